"""A real registry on this machine, Debian's docker-registry, and images to put there."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {directory}/storage}}}}
http: {{addr: "127.0.0.1:{port}"}}
{auth}
"""
_AUTH = "auth: {{htpasswd: {{realm: test, path: {directory}/htpasswd}}}}"


@dataclass
class LocalRegistry:
    address: str
    directory: Path
    credentials: str = ""

    def push(self, name: str, layers: list[bytes], **config: Any) -> str:
        """Make an image of these tars and push it; returns its reference."""
        layout = self.directory / f"layout-{name.replace(':', '-')}"
        write_layout(layout, layers, config)
        options = ["--dest-creds", self.credentials] if self.credentials else []
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", *options, f"oci:{layout}",
             f"docker://{self.address}/{name}"],
            check=True, timeout=60, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return f"{self.address}/{name}"


def write_layout(layout: Path, layers: list[bytes], config: dict[str, Any]) -> None:
    """An image as files (OCI image-layout)."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        (blobs / digest).write_bytes(content)
        media = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(content)}

    document = {
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(document).encode(), "config.v1+json"),
        "layers": [blob(gzip.compress(layer), "layer.v1.tar+gzip") for layer in layers],
    }  # fmt: skip
    index = {"schemaVersion": 2, "manifests": [blob(json.dumps(manifest).encode(), "manifest.v1+json")]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def write_saved(archive: Path, layers: list[bytes], config: dict[str, Any]) -> None:
    """An image as `docker save` wrote it until its release 25: a layer that is there twice is a link."""
    document = {
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers]},
    }  # fmt: skip
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    manifest = [{"Config": "config.json", "RepoTags": None, "Layers": names}]
    with tarfile.open(archive, "w") as tar:
        seen: dict[bytes, str] = {}
        for name, content in zip(names, layers, strict=True):
            member = tarfile.TarInfo(name)
            if content in seen:
                member.type, member.linkname = tarfile.SYMTYPE, f"../{seen[content]}"
            else:
                seen[content], member.size = name, len(content)
            tar.addfile(member, io.BytesIO(content if member.isreg() else b""))
        for name, text in (("config.json", document), ("manifest.json", manifest)):
            member, content = tarfile.TarInfo(name), json.dumps(text).encode()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def layer(**files: str) -> bytes:
    """A tar; `__` in a name is a slash, and `WH_` marks what the layer hides."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("WH_", ".wh."))
            member.size, member.mode = len(content), 0o644
            tar.addfile(member, io.BytesIO(content.encode()))
    return made.getvalue()


def serve(directory: Path, credentials: str = "") -> Iterator[LocalRegistry]:
    assert shutil.which("docker-registry"), "docker-registry is not installed: run tools/clients.sh"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    auth = ""
    if credentials:
        user, _, password = credentials.partition(":")
        hashed = subprocess.run(
            ["htpasswd", "-Bbn", user, password], check=True, capture_output=True, timeout=20, stdin=subprocess.DEVNULL
        )
        (directory / "htpasswd").write_bytes(hashed.stdout)
        auth = _AUTH.format(directory=directory)
    (directory / "config.yml").write_text(_CONFIG.format(directory=directory, port=port, auth=auth))
    process = subprocess.Popen(
        ["docker-registry", "serve", directory / "config.yml"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "OTEL_TRACES_EXPORTER": "none"},
    )  # fmt: skip
    try:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield LocalRegistry(f"127.0.0.1:{port}", directory, credentials)
    finally:
        process.kill()
        process.wait()


APPLETS = "sh grep sed mkdir ln chown cat echo ls cp id whoami sleep test touch"


def tiny_system() -> bytes:
    """A layer with a system that is no Debian: BusyBox and bash, both static, and somebody else with uid 1000."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:

        def put(name: str, kind: bytes, content: bytes = b"", target: str = "") -> None:
            member = tarfile.TarInfo(name)
            member.type, member.size, member.linkname, member.mode = kind, len(content), target, 0o755
            tar.addfile(member, io.BytesIO(content))

        for name in ("bin", "etc", "root", "tmp", "home"):
            put(name, tarfile.DIRTYPE)
        for name, program in (("busybox", "busybox"), ("bash", "bash-static")):
            found = shutil.which(program)
            assert found, f"{program} is not installed: run tools/clients.sh"
            put(f"bin/{name}", tarfile.REGTYPE, Path(found).read_bytes())
        for name in APPLETS.split():
            put(f"bin/{name}", tarfile.SYMTYPE, target="busybox")
        put("etc/passwd", tarfile.REGTYPE, b"root:x:0:0::/root:/bin/sh\nother:x:1000:1000::/home/other:/bin/sh\n")
        put("etc/group", tarfile.REGTYPE, b"root:x:0:\n")
    return made.getvalue()
