"""Images of OCI registries and of archives, read by skopeo; each layer is unpacked once, whatever it belongs to.

<images>/layers/<diff id>/    a layer of a registry is named by the digest of its tar, as the image's configuration
                              names it; skopeo has checked it by then
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import stat
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from skerry.errors import ImageUnreachable, InvalidRequest, TemplateBuildFailed
from skerry.host.commands import CommandFailed, follow
from skerry.host.images import Images
from skerry.host.trees import Allowance
from skerry.models import Image, Registry

_TIMEOUT = "900s"
_WATCH_S = 0.5
_DOCUMENT_MAX = 16 << 20
"""Bytes of a manifest or a configuration."""
_MESSAGE = re.compile(r'msg="(.*)"')
_PASSED_ON = (
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
)  # fmt: skip


class Puller:
    """Brings images into the store.

    Args:
        insecure: registries (`host:port`) that are asked without TLS.
        private: registries whose addresses may be other than public ones; the insecure ones are, too.
    """

    def __init__(
        self, images: Images, insecure: frozenset[str] = frozenset(), private: frozenset[str] = frozenset()
    ) -> None:
        self._images, self._insecure, self._private = images, insecure, private | insecure

    async def pull(self, reference: str, credentials: Registry | None, log: Callable[[str], None]) -> Image:
        """The image of a reference such as `ubuntu:22.04` or `registry.example:5000/team/app@sha256:…`.

        Args:
            log: takes lines as they come.

        Raises:
            ImageUnreachable: skopeo's own words are in the message.
            TemplateBuildFailed: it is no image for this machine, or holds what no image may hold.
        """
        if (registry := registry_of(reference)) is not None and registry not in self._private:
            # It is this machine that connects, from where sandboxes cannot: builds must not look around there.
            await anyio.to_thread.run_sync(_require_public, reference, registry)
        verified = registry not in self._insecure
        options = [f"--src-tls-verify={str(verified).lower()}"]
        async with self._images.staging() as staging:
            if credentials is not None:
                file = staging / "auth.json"
                await anyio.to_thread.run_sync(_write_credentials, file, reference, credentials)
                options += ["--src-authfile", str(file)]
            return await self._take(reference, f"docker://{reference}", options, staging, log)

    async def load(self, archive: Path, log: Callable[[str], None]) -> Image:
        """The image in a tar: of a root file system, or of an image as `docker save` and skopeo write it.

        Raises:
            ImageUnreachable, TemplateBuildFailed: as `pull`; also for what is no tar.
        """
        async with self._images.staging() as staging:
            tree = staging / "archive"
            # By our own program, whatever it is: skopeo follows the links that it finds in an archive.
            await self._unpack(archive, tree, "the archive")
            layout, saved = await anyio.to_thread.run_sync(_look, tree)
            if layout:
                return await self._take("the archive", f"oci:{tree}", [], staging, log)
            if saved is not None:
                return await self._adopt(*await anyio.to_thread.run_sync(_saved, tree, saved), staging, log)
            log("taking the tar of a root file system")
            return Image(layers=[await anyio.to_thread.run_sync(self._images.layers.adopt, tree)], user="root")

    async def _take(
        self, shown: str, source: str, options: list[str], staging: Path, log: Callable[[str], None]
    ) -> Image:
        await self._copy(shown, source, options, staging, log)
        return await self._adopt(*await anyio.to_thread.run_sync(_copied, staging / "image"), staging, log)

    async def _adopt(
        self, layers: list[tuple[str, Path]], image: Image, staging: Path, log: Callable[[str], None]
    ) -> Image:
        for number, (diff_id, blob) in enumerate(layers, 1):
            if not self._images.layers.has(diff_id):
                log(f"unpacking layer {number} of {len(layers)}")
                tree = staging / diff_id[7:39]
                await self._unpack(blob, tree, f"layer {diff_id}")
                await anyio.to_thread.run_sync(self._images.layers.adopt, tree, diff_id)
        return image

    async def _copy(
        self, shown: str, source: str, options: list[str], staging: Path, log: Callable[[str], None]
    ) -> None:
        command = [
            "skopeo", "--insecure-policy", "--tmpdir", str(staging / "tmp"), "copy", "--command-timeout", _TIMEOUT,
            "--dest-decompress", "--override-os", "linux", *options, source, f"dir:{staging}/image",
        ]  # fmt: skip
        await anyio.Path(staging / "tmp").mkdir()
        said: list[str] = []
        try:
            async with self._bounded(shown, staging), aclosing(_follow(command)) as lines:
                async for line in lines:
                    said.append(line)
                    log(line)
        except CommandFailed as error:
            found = _MESSAGE.search(said[-1]) if said else None
            why = found[1].replace('\\"', '"') if found else str(error)
            raise ImageUnreachable(f"cannot pull {shown}: {why}", log=said[-20:]) from error

    @asynccontextmanager
    async def _bounded(self, shown: str, staging: Path) -> AsyncIterator[None]:
        """While skopeo writes, uncompressed, what may be a bomb. Raises TemplateBuildFailed."""
        allowed, exceeded = self._allowance(staging).bytes, False

        async def watch(scope: anyio.CancelScope) -> None:
            nonlocal exceeded
            while not exceeded:
                await anyio.sleep(_WATCH_S)
                exceeded = await anyio.to_thread.run_sync(_size_bytes, staging) > allowed
            scope.cancel()

        try:
            async with anyio.create_task_group() as group:
                group.start_soon(watch, group.cancel_scope)
                yield
                group.cancel_scope.cancel()
        except ExceptionGroup as failed:  # only the body's own: the watch raises nothing
            raise failed.exceptions[0] from None
        if exceeded:
            raise TemplateBuildFailed(
                f"cannot take {shown}: uncompressed it is more than the {allowed >> 20} MiB that there is room for",
                limit=allowed, log=[],
            )  # fmt: skip

    def _allowance(self, staging: Path) -> Allowance:
        """What an image may hold, and most of what the disk does."""
        return Allowance(bytes=min(Allowance().bytes, shutil.disk_usage(staging).free * 9 // 10))

    async def _unpack(self, archive: Path, tree: Path, shown: str) -> None:
        allowed = self._allowance(tree.parent)
        arguments = [str(word) for word in (archive, tree, allowed.bytes, allowed.entries)]
        command = [sys.executable, "-m", "skerry.host.unpack", *arguments]
        said: list[str] = []
        try:
            async with aclosing(follow(command, {"PYTHONPATH": os.pathsep.join(sys.path)})) as lines:
                async for line in lines:
                    said.append(line)
        except CommandFailed as error:
            raise TemplateBuildFailed(
                f"cannot unpack {shown}: {said[-1] if said else error}", log=said[-20:]
            ) from error


def _size_bytes(staging: Path) -> int:
    """Of the files that skopeo has written so far, its temporary ones too."""
    total = 0
    for name in ("image", "tmp"):
        for path in (staging / name).rglob("*"):
            with suppress(OSError):
                total += path.lstat().st_size
    return total


def _follow(command: list[str]) -> AsyncGenerator[str, None]:
    env = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return follow(command, {"PATH": os.environ.get("PATH", "/usr/bin"), "HOME": "/root", **env})


def registry_of(reference: str) -> str | None:
    """The registry that an image's name names, as `host` or `host:port`; None when it is docker's own."""
    host, slash, _ = reference.partition("/")
    return host if slash and ("." in host or ":" in host or host == "localhost") else None


def _require_public(reference: str, registry: str) -> None:
    """Raises ImageUnreachable. A name that is not known here is left to skopeo, which may ask a proxy."""
    url = urlsplit(f"//{registry}")
    try:
        found = socket.getaddrinfo(url.hostname, url.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, ValueError):
        return
    for *_, address in found:
        if not ip_address(str(address[0]).partition("%")[0]).is_global:
            raise ImageUnreachable(
                f"cannot pull {reference}: {registry} is in a network that is not public; whoever runs the server can "
                f"allow it, with {registry!r} in SKERRY_PRIVATE_REGISTRIES", log=[],
            )  # fmt: skip


def _write_credentials(file: Path, reference: str, credentials: Registry) -> None:
    from base64 import b64encode

    host = registry_of(reference)
    if host is None:
        raise InvalidRequest(
            f"cannot pull {reference} with credentials: name its registry, as in registry.example/{reference}"
        )
    secret = b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
        json.dump({"auths": {host: {"auth": secret}}}, out)


def _look(tree: Path) -> tuple[bool, Any]:
    """Whether an unpacked archive is an OCI layout, and else what `docker save` has written about it; None for neither.

    Raises:
        TemplateBuildFailed: it is a layout with something in it that no layout has.
    """
    if (tree / "oci-layout").is_file():
        for folder, folders, files in os.walk(tree):
            for name in (*folders, *files):
                mode = os.lstat(os.path.join(folder, name)).st_mode
                if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    raise TemplateBuildFailed(
                        f"cannot take the archive: {name!r} is neither file nor directory", log=[]
                    )
        return True, None
    manifest = tree / "manifest.json"
    if manifest.is_symlink() or not manifest.is_file() or manifest.stat().st_size > _DOCUMENT_MAX:
        return False, None
    with suppress(ValueError, RecursionError):
        found = json.loads(manifest.read_text())
        if isinstance(found, list) and found and isinstance(found[0], dict) and "Layers" in found[0]:
            return False, found[0]
    return False, None


def _saved(tree: Path, manifest: dict[str, Any]) -> tuple[list[tuple[str, Path]], Image]:
    """The layers and the image that `docker save` has written. Raises TemplateBuildFailed."""
    with _understood():
        config = _document(_within(tree, manifest["Config"]))
        return _configured(config, [_within(tree, name) for name in manifest["Layers"]])


def _copied(directory: Path) -> tuple[list[tuple[str, Path]], Image]:
    """The layers (digest, file) of an image that skopeo has copied, and the image. Raises TemplateBuildFailed."""
    with _understood():
        manifest = _document(directory / "manifest.json")
        config = _document(directory / manifest["config"]["digest"].partition(":")[2])
        return _configured(config, [directory / layer["digest"].partition(":")[2] for layer in manifest["layers"]])


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TemplateBuildFailed(f"cannot use the image: its manifest is not understood: {error}", log=[]) from error


def _within(tree: Path, name: str) -> Path:
    """A regular file of an archive; older docker writes a layer that is there twice as a link. Raises ValueError."""
    path = (tree / name).resolve()
    if not path.is_relative_to(tree.resolve()) or not path.is_file():
        raise ValueError(f"{name!r} is no file of the archive")
    return path


def _document(path: Path) -> Any:
    if path.stat().st_size > _DOCUMENT_MAX:
        raise ValueError("it is too large")
    return json.loads(path.read_text())


def _configured(config: Any, blobs: list[Path]) -> tuple[list[tuple[str, Path]], Image]:
    diff_ids = [str(diff_id) for diff_id in config["rootfs"]["diff_ids"]]
    how: dict[str, Any] = config.get("config") or {}
    pairs = [part.partition("=")[::2] for part in how.get("Env") or []]
    image = Image(
        layers=diff_ids, env={name: value for name, value in pairs if name},
        user=str(how.get("User") or "root").partition(":")[0] or "root", workdir=how.get("WorkingDir") or None,
    )  # fmt: skip
    if len(blobs) != len(diff_ids):
        raise TemplateBuildFailed("cannot use the image: its manifest and its configuration do not agree", log=[])
    for blob, diff_id in zip(blobs, diff_ids, strict=True):
        with blob.open("rb") as file:
            if f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" != diff_id:
                raise TemplateBuildFailed(f"cannot use the image: layer {diff_id} is not what it says", log=[])
    return list(zip(diff_ids, blobs, strict=True)), image
