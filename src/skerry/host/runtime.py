"""What every sandbox sees read-only at /opt/skerry: the agent and the interpreters, always those of this installation.

The directory is named by its content, so that a server never runs with an older agent than its sources, and a sandbox
that outlives its server keeps the one it was started with.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from pathlib import Path

import skerry
from skerry.errors import IsolationUnavailable

_PACKAGE = Path(skerry.__file__).parent
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def agent_binary() -> Path:
    """The agent for this machine.

    Raises:
        IsolationUnavailable: it is not built.
    """
    architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
    agent = _PACKAGE / "_bin" / f"agent-{architecture}"
    if agent.is_file():
        return agent
    raise IsolationUnavailable(f"cannot start: the agent for {architecture} is not built; run `make agent`")


def prepare_runtime(directory: Path) -> Path:
    """The runtime directory below `directory`, made if this content was never there. Raises IsolationUnavailable."""
    files = {"agent": agent_binary()}
    for source in sorted((_PACKAGE / "interpreter").rglob("*.*")):
        if source.suffix not in (".py", ".java"):
            continue
        files[str(Path("interpreter") / source.relative_to(_PACKAGE / "interpreter"))] = source
    digest = hashlib.sha256()
    for name, source in files.items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(source.read_bytes()).digest())
    target = directory / "runtime" / digest.hexdigest()[:16]
    if not target.exists():
        _copy(files, target)
    return target


def _copy(files: dict[str, Path], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        new = Path(temporary) / "new"
        for name, source in files.items():
            (new / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, new / name)
            (new / name).chmod(0o755 if name == "agent" else 0o644)
        for path in (new, *(path for path in new.rglob("*") if path.is_dir())):
            path.chmod(0o755)
        try:
            os.rename(new, target)
        except OSError:
            if not target.is_dir():
                raise
            # Another server was first: what is named by its content is the same.
