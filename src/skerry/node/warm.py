"""A template's warm image: the memory of a started sandbox whose interpreter has run its first cells, and its disk.

Made once for each image, runtime and runsc version, and kept beside the images; pools and cold starts restore from it.
What a sandbox inherits from it is the same in all of them, so each one's agent and interpreter are reseeded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from skerry.errors import SandboxStartFailed
from skerry.models import Isolation, Template
from skerry.node import interpreters, startup
from skerry.node.builder import Builder, Host, Order, Source
from skerry.node.gate import BootGate
from skerry.node.unit import Unit
from skerry.ports import WARM_LANGUAGES, interpreter_command

logger = logging.getLogger(__name__)

WARMING_TIMEOUT_S = 480.0
SUSPICIONS_MAX = 3
KEPT_S = 24 * 3600.0
"""How long one is kept after its last use."""
USED_EVERY_S = 3600.0
"""How often at most a server notes that it uses one."""
_FORMAT = 1  # raise it when the content of a warm image changes its meaning
_META = "warm.json"


class WarmImages:
    """Makes and finds warm images.

    Args:
        directory: where they are kept, one directory for each. Servers of one machine share it, and may need different
            ones of a template: those that nobody has used for KEPT_S are removed.
        gate: whose turn it is to boot. Held for the boot only: what a template's own command takes is its user's, and
            nobody else waits for it.
    """

    def __init__(self, directory: Path, host: Host, builder: Builder, gate: BootGate) -> None:
        self._directory = directory
        self._host = host
        self._builder = builder
        self._gate = gate
        self._making: dict[str, anyio.Lock] = {}
        self._keys: dict[tuple[str, Isolation], str] = {}
        self._suspicions: dict[str, int] = {}
        self._runtime_digest: str | None = None

    async def find(self, template: Template, isolation: Isolation) -> Source | None:
        """The warm image for the template as it is now; None when it has not been made."""
        return await anyio.to_thread.run_sync(_use, self._directory / await self._key(template, isolation))

    async def make(self, template: Template, isolation: Isolation) -> Source:
        """Make it unless it exists: start a sandbox, warm its interpreters, checkpoint it.

        Raises:
            SandboxStartFailed: the sandbox, its interpreter or the checkpoint failed; nothing is left behind.
        """
        key = await self._key(template, isolation)
        async with self._making.setdefault(key, anyio.Lock()):
            found = await self.find(template, isolation)
            if found is not None:
                return found
            partial = self._directory / f".{key}.{secrets.token_hex(4)}"
            await anyio.to_thread.run_sync(lambda: partial.mkdir(mode=0o700, parents=True))
            try:
                began = time.monotonic()
                with anyio.fail_after(WARMING_TIMEOUT_S):
                    await self._warm_up(template, isolation, partial)
                await anyio.to_thread.run_sync(self._publish, partial, key)
                logger.info("template %s is warm after %.1f s", template.name, time.monotonic() - began)
            except TimeoutError:
                raise SandboxStartFailed(
                    f"cannot warm template {template.name}: not done in {WARMING_TIMEOUT_S:.0f} s"
                ) from None
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(lambda: shutil.rmtree(partial, ignore_errors=True))
            made = await self.find(template, isolation)
            assert made is not None
            return made

    async def _warm_up(self, template: Template, isolation: Isolation, directory: Path) -> None:
        order = Order(template, isolation, template.limits)
        async with self._gate.enter(background=True):
            unit = await self._builder.start(order, lambda _unit, _error: None)
        try:
            # Now, so that a claim need not: the agent has little to do when nothing changes.
            await unit.require_link().configure(pids=template.limits.pids)
            await startup.launch(unit.require_link(), template)
            started = await interpreters.start_all(unit.require_link(), template.languages)
            await self._checkpoint(unit, directory / "checkpoint")
            await self._host.disks.export(unit.name, directory / "disk.img")
            meta = {"template": template.name, "interpreters": started}
            await anyio.Path(directory / _META).write_text(json.dumps(meta))
        finally:
            with anyio.CancelScope(shield=True):
                await self._builder.remove(unit)

    async def _checkpoint(self, unit: Unit, directory: Path) -> None:
        # A connection to the host that is open in a checkpoint makes every restore of it fail.
        assert unit.listener is not None
        await unit.listener.hold()
        driver = self._host.driver(unit.record.isolation)
        await driver.checkpoint(unit.name, directory, keep_running=False)

    def _publish(self, partial: Path, key: str) -> None:
        final = self._directory / key
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for other in self._directory.iterdir():
            if other == final:
                continue
            with suppress(OSError):
                mark = other if other.name.startswith(".") else other / _META  # half-made: of a server that was killed
                if time.time() - mark.stat().st_mtime >= KEPT_S:
                    shutil.rmtree(other, ignore_errors=True)

    async def suspect(self, template: Template, isolation: Isolation) -> None:
        """A restore from it failed. After SUSPICIONS_MAX failures it is thrown away, and made
        again by the next refill."""
        key = await self._key(template, isolation)
        self._suspicions[key] = self._suspicions.get(key, 0) + 1
        if self._suspicions[key] >= SUSPICIONS_MAX:
            self._suspicions.pop(key)
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(self._directory / key, ignore_errors=True))

    async def _key(self, template: Template, isolation: Isolation) -> str:
        known = (template.model_dump_json(), isolation)
        if known not in self._keys:
            self._keys[known] = await self._make_key(template, isolation)
        return self._keys[known]

    async def _make_key(self, template: Template, isolation: Isolation) -> str:
        if self._runtime_digest is None:
            self._runtime_digest = await anyio.to_thread.run_sync(tree_digest, self._host.runtime_directory)
        driver = self._host.driver(isolation)
        parts = [
            _FORMAT, isolation, await driver.version(), driver.traits(), list(map(interpreter_command, WARM_LANGUAGES)),
            self._runtime_digest, template.image, template.limits.model_dump(),
            sorted(set(template.languages) & set(WARM_LANGUAGES)), template.start_command, template.ready_command,
            template.user, template.workdir, template.env, interpreters.FIRST_CELLS, self._host.network.resolv_conf,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def tree_digest(directory: Path) -> str:
    """A digest of all files below a directory: names and content."""
    digest = hashlib.sha256()
    for path in sorted(path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        digest.update(f"{path.relative_to(directory)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _meta(directory: Path) -> dict[str, Any]:
    try:
        content = json.loads((directory / _META).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _use(directory: Path) -> Source | None:
    """The warm image in `directory`, which counts as used from now on; None when there is none."""
    meta = _meta(directory)
    if not meta:
        return None
    with suppress(OSError):
        if time.time() - (directory / _META).stat().st_mtime > USED_EVERY_S:
            os.utime(directory / _META)
    return Source(directory / "disk.img", directory / "checkpoint", dict(meta["interpreters"]))
