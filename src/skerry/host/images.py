"""The images on this machine, and the templates that name them.

    <directory>/layers/<digest>/            trees of files, shared by the images that are made of them
    <directory>/images/<digest>.json        what an image is made of, and how programs start in it
    <directory>/kept/<build>                the image that a user's build made
    <directory>/steps/<key>                 which layer a step of a build made
    <directory>/templates/<name>.json       what the name means at present
    <directory>/building/                   trees under way; swept at the next build

`python -m skerry.host.images build base` builds a template that ships; a server does the same when it is asked to.
Servers remove what no template names any more when nobody has used it for some days; `… collect`, with all servers
stopped, removes it at once.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread

from skerry.errors import Error, TemplateBuildFailed, TemplateNotFound
from skerry.host import debian, definitions
from skerry.host.certificates import local_certificates
from skerry.host.commands import CommandFailed
from skerry.host.definitions import Definition
from skerry.host.layers import DIGEST, Layers
from skerry.models import Image, Template

DEFAULT_DIRECTORY = Path("/var/lib/skerry/images")
"""Shared by all servers of a machine."""
LAYERS_MAX = 48
"""Of one image: the kernel takes one page for all their names."""

_IN_MOUNTS = re.compile(r"/layers/([0-9a-f]{32})")
_STAGING, _OLD = "staging-", "old-"
_ABANDONED_S = 12 * 3600.0
"""Longer than any build takes."""
_LOG_KEPT = 200  # lines


class Images:
    """Images and templates below one directory. Several processes may use it at the same time."""

    def __init__(self, directory: Path = DEFAULT_DIRECTORY) -> None:
        self.layers = Layers(directory / "layers")
        self._images = directory / "images"
        self._kept = directory / "kept"
        self._steps = directory / "steps"
        self._templates = directory / "templates"
        self._building = directory / "building"
        for path in (directory, self._images, self._kept, self._steps, self._templates, self._building):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    # --- what there is ----------------------------------------------------------------------------------------------

    def templates(self) -> list[Template]:
        """All templates that are built, by name."""
        found = (self._stored(path) for path in sorted(self._templates.glob("*.json")))
        return [template for template, _ in filter(None, found)]

    def template(self, name: str) -> Template:
        """Raises TemplateNotFound, with the names there are."""
        for template in self.templates():
            if template.name == name:
                return template
        hint = f"; build it with `skerry template build {name}`" if name in definitions.shipped() else ""
        raise TemplateNotFound(
            f"cannot find template {name!r}: it is not on this machine{hint}",
            template=name,
            templates=[template.name for template in self.templates()],
        )

    def image(self, digest: str) -> Image:
        """Raises TemplateNotFound: it, or a layer of it, is not here."""
        if not DIGEST.match(digest):
            raise TemplateNotFound(f"cannot find image {digest!r}: that is no digest")
        try:
            image = Image.model_validate_json((self._images / f"{digest[7:]}.json").read_text())
        except (OSError, ValueError):
            raise TemplateNotFound(f"cannot find image {digest}: it is not on this machine") from None
        for layer in image.layers:
            self.layers.path(layer)
        return image

    def trees(self, digest: str) -> list[Path]:
        """The layers of an image, the lowest first. Raises TemplateNotFound."""
        layers = self.image(digest).layers
        # overlayfs refuses a layer that is there twice (two steps that change nothing make the same one); whatever the
        # lower one holds or hides, the upper one does too.
        once = reversed(dict.fromkeys(reversed(layers)))
        return [self.layers.path(layer) for layer in once]

    def add(self, image: Image) -> str:
        """Keep an image whose layers are here, and count as used from now on; returns its digest.

        Raises:
            TemplateBuildFailed: it has more than LAYERS_MAX layers.
        """
        if len(image.layers) > LAYERS_MAX:
            raise TemplateBuildFailed(
                f"cannot keep an image of {len(image.layers)} layers: {LAYERS_MAX} are possible; join steps that "
                "belong together", limit=LAYERS_MAX, current=len(image.layers), log=[],
            )  # fmt: skip
        for layer in image.layers:
            self.layers.has(layer)
        content = image.model_dump_json() + "\n"
        digest = f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
        _write(self._images / f"{digest[7:]}.json", content)
        return digest

    def keep(self, build_id: str, digest: str) -> None:
        """`collect` leaves the image alone until it is let go."""
        _write(self._kept / build_id, digest + "\n")

    def let_go(self, build_id: str) -> None:
        (self._kept / build_id).unlink(missing_ok=True)

    def known_layer(self, key: str) -> str | None:
        """The layer that a step of that key made before, while it is here."""
        with suppress(OSError, TemplateNotFound):
            layer = (self._steps / key).read_text().strip()
            return layer if self.layers.has(layer) else None
        return None

    def remember_layer(self, key: str, layer: str) -> None:
        _write(self._steps / key, layer + "\n")

    def size_mib(self, image: Image) -> float:
        return round(sum(map(self.layers.size_bytes, image.layers)) / 2**20, 1)

    @asynccontextmanager
    async def staging(self) -> AsyncIterator[Path]:
        """A directory for trees that are to become layers; removed on leaving."""
        path = Path(await anyio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix=_STAGING, dir=self._building)))
        try:
            yield path
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(lambda: shutil.rmtree(path, ignore_errors=True))

    def _stored(self, path: Path) -> tuple[Template, str] | None:
        """A template and the hash of what it was built from; None when its file or its image is gone or broken."""
        try:
            stored = json.loads(path.read_text())
            template = Template.model_validate(stored["template"])
            self.image(template.image)
            return template, str(stored["inputs"])
        except (OSError, ValueError, KeyError, TypeError, TemplateNotFound):
            return None

    # --- building ---------------------------------------------------------------------------------------------------

    async def build(self, name: str) -> AsyncGenerator[str, None]:
        """Build a template that ships, unless it is built from the same inputs already; yields log lines.

        Published at once when it is whole; sandboxes of an earlier image go on.

        Raises:
            TemplateNotFound: no such definition. TemplateBuildFailed: details hold the end of the log.
        """
        definition = definitions.definition(name)
        if os.geteuid() != 0:
            raise TemplateBuildFailed(f"cannot build template {name!r}: only root can make a root file system", log=[])
        log: deque[str] = deque(maxlen=_LOG_KEPT)
        try:
            async with self._exclusive(), aclosing(self._build(definition)) as lines:
                async for line in lines:
                    log.append(line)
                    yield line
        except (CommandFailed, OSError) as error:
            raise TemplateBuildFailed(f"cannot build template {name!r}: {error}", log=list(log)) from error

    async def _build(self, definition: Definition) -> AsyncGenerator[str, None]:
        parent = None
        if definition.based_on is not None:
            async with aclosing(self._build(definitions.definition(definition.based_on))) as lines:
                async for line in lines:
                    yield line
            parent = self.template(definition.based_on).image
        inputs = _inputs(definition, parent)
        stored = self._stored(self._templates / f"{definition.name}.json")
        if stored is not None and stored[1] == inputs:
            yield f"template {definition.name} is up to date: {stored[0].image}"
            return
        await anyio.to_thread.run_sync(_sweep, self._building)
        lower = [] if parent is None else self.trees(parent)
        root = Path(tempfile.mkdtemp(prefix=f"{definition.name}-", dir=self._building)) / "root"
        try:
            async with aclosing(debian.build(definition, root, lower)) as lines:
                async for line in lines:
                    yield line
            yield "computing the digest"
            template = await anyio.to_thread.run_sync(self._publish, definition, inputs, root, parent)
            yield f"template {definition.name}: {template.size_mib:.0f} MiB, {template.image}"
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_sweep, self._building)

    def _publish(self, definition: Definition, inputs: str, root: Path, parent: str | None) -> Template:
        """Put a finished tree in its place, then the name that refers to it."""
        root.chmod(0o755)
        below = Image(layers=[]) if parent is None else self.image(parent)
        image = Image(layers=[*below.layers, self.layers.adopt(root)], env={**below.env, **definition.env})
        template = Template(
            name=definition.name,
            image=self.add(image),
            limits=definition.limits,
            languages=definition.languages,
            size_mib=self.size_mib(image),
            built_at=datetime.now(UTC),
            description=definition.description,
            env=image.env,
            start_command=definition.start.command if definition.start else None,
            ready_command=definition.start.ready if definition.start else None,
        )
        _write(
            self._templates / f"{definition.name}.json",
            json.dumps({"inputs": inputs, "template": template.model_dump(mode="json")}, indent=2) + "\n",
        )
        return template

    @asynccontextmanager
    async def _exclusive(self) -> AsyncIterator[None]:
        """One build at a time on a machine; others wait for it, and mostly find its result."""
        with (self._building.parent / "lock").open("w") as file:  # local, at once
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await anyio.sleep(0.2)
            yield

    # --- cleaning up ------------------------------------------------------------------------------------------------

    def collect(self, in_use: Collection[str] = (), unused_s: float = 0.0) -> list[str]:
        """Remove the images that no template and no build names, and the layers that none of the rest is made of.

        Args:
            in_use: names of layers that something is mounted on; they stay.
            unused_s: what was used in the last so many seconds stays, too: builds under way have no name yet. Without
                it, no server may run.

        Returns:
            The names of the layers removed.
        """
        wanted = {template.image for template in self.templates()}
        for path in self._kept.iterdir():
            with suppress(FileNotFoundError):  # let go meanwhile
                wanted.add(path.read_text().strip())
        layers: set[str] = set()
        for digest in wanted:
            with suppress(TemplateNotFound):
                layers |= set(self.image(digest).layers)
        for path in self._images.glob("*.json"):
            if f"sha256:{path.stem}" not in wanted and _age_s(path) >= unused_s:
                path.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix=_OLD, dir=self._building) as doomed:
            kept = layers | {f"sha256:{name:0<64}" for name in in_use}
            removed = self.layers.collect(kept, Path(doomed), unused_s)
        for path in self._steps.iterdir():
            with suppress(FileNotFoundError):
                try:
                    self.layers.path(path.read_text().strip())
                except TemplateNotFound:
                    path.unlink()
        return removed


def _inputs(definition: Definition, parent: str | None) -> str:
    """The hash of all that decides what is built, but for what the archives hold at the time."""
    wanted = definition.model_dump(mode="json")
    if not definition.env:
        del wanted["env"]  # younger than the rest: templates without one are not built again for it
    inputs = [debian.VERSION, wanted, local_certificates(), parent]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _sweep(directory: Path) -> None:
    """What builds that were cut off have left. Of templates that ship there is one at a time; other things may be under
    way in other processes."""
    for path in directory.iterdir():
        if not path.name.startswith((_STAGING, _OLD)) or _age_s(path) > _ABANDONED_S:
            shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, text: str) -> None:
    """Replace a file: old or new, never half."""
    temporary = path.with_suffix(f".new{secrets.token_hex(4)}")
    with open(temporary, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


async def _print_build(images: Images, name: str) -> None:
    async for line in images.build(name):
        print(line, flush=True)


def _age_s(path: Path) -> float:
    """Seconds since it was written; none when it has just gone."""
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0


def mounted() -> set[str]:
    """Names of layers that some mount on this machine refers to."""
    found: set[str] = set()
    for path in Path("/proc").glob("[0-9]*/mountinfo"):
        with suppress(OSError):
            found.update(_IN_MOUNTS.findall(path.read_text()))
    return found


def _collect(images: Images) -> None:
    removed = images.collect(mounted())
    print("\n".join(f"removed layer {name}" for name in removed) or "nothing to remove")


def _main(arguments: list[str]) -> int:
    images = Images(Path(os.environ.get("SKERRY_IMAGES_DIR", DEFAULT_DIRECTORY)))
    try:
        match arguments:
            case ["build", name]:
                asyncio.run(_print_build(images, name))
            case ["collect"]:
                _collect(images)
            case _:
                print("usage: python -m skerry.host.images build NAME | collect", file=sys.stderr)
                return 2
    except Error as error:
        print(error.message, *error.details.get("log", [])[-20:], sep="\n", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
