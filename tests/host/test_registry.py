"""Images pulled from a real registry on this machine: Debian's docker-registry."""

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

import pytest

from skerry.errors import ImageUnreachable, InvalidRequest, TemplateBuildFailed
from skerry.host.images import Images
from skerry.host.registry import Puller
from skerry.models import Registry

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

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


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    yield from serve(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRegistry]:
    yield from serve(tmp_path_factory.mktemp("private"), "somebody:secret")


def puller(images: Images, *registries: LocalRegistry) -> Puller:
    return Puller(images, frozenset(registry.address for registry in registries))


async def test_an_image_is_pulled_and_its_layers_are_shared(tmp_path: Path, registry: LocalRegistry) -> None:
    images, log = Images(tmp_path), []
    below, above = layer(etc__name="one", etc__gone="x"), layer(etc__WH_gone="", etc__more="two")
    reference = registry.push("team/app:1", [below, above], Env=["PATH=/bin", "A=b=c"], User="nobody")
    image = await puller(images, registry).pull(reference, None, log.append)
    assert image.env == {"PATH": "/bin", "A": "b=c"}
    first, second = images.trees(images.add(image))
    assert (first / "etc/name").read_text() == "one"
    assert (second / "etc/more").read_text() == "two"
    assert (second / "etc/gone").is_char_device()
    assert [line for line in log if "unpacking" in line] == ["unpacking layer 1 of 2", "unpacking layer 2 of 2"]
    log.clear()
    other = registry.push("team/other:1", [below, layer(etc__other="three")])
    again = await puller(images, registry).pull(other, None, log.append)
    assert again.layers[0] == image.layers[0]
    assert [line for line in log if "unpacking" in line] == ["unpacking layer 2 of 2"]
    assert list((tmp_path / "building").iterdir()) == []


async def test_a_private_registry_wants_credentials(tmp_path: Path, private: LocalRegistry) -> None:
    images = Images(tmp_path)
    reference = private.push("app:1", [layer(name="x")])
    pull = puller(images, private).pull
    for wrong in (None, Registry(username="somebody", password="wrong")):
        with pytest.raises(ImageUnreachable, match=r"authentication required|unauthorized|incorrect"):
            await pull(reference, wrong, lambda _: None)
    good = Registry(username="somebody", password="secret")
    assert len((await pull(reference, good, lambda _: None)).layers) == 1
    with pytest.raises(InvalidRequest, match="name its registry"):
        await pull("app:1", good, lambda _: None)


async def test_what_cannot_be_pulled(tmp_path: Path, registry: LocalRegistry) -> None:
    images = Images(tmp_path)
    pull = puller(images, registry).pull
    for reference in (f"{registry.address}/nosuch:1", "127.0.0.1:1/app:1", "UPPER/ not a reference"):
        with pytest.raises(ImageUnreachable, match="cannot pull"):
            await pull(reference, None, lambda _: None)
    up = io.BytesIO()
    with tarfile.open(fileobj=up, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("../escaped"))
    with pytest.raises(TemplateBuildFailed, match="leads upwards"):
        await pull(registry.push("hostile:1", [up.getvalue()]), None, lambda _: None)
    assert list((tmp_path / "layers").iterdir()) == list((tmp_path / "building").iterdir()) == []
