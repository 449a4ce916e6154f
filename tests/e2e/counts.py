"""What one server's sandboxes could leave behind on the host, counted. Other servers on the machine do not matter."""

from collections.abc import Iterator
from pathlib import Path

from skerry.config import Settings


def counts(data_dir: Path) -> dict[str, int]:
    """Processes, control groups, loop devices, network links and run files of the server with that data directory."""
    instance = Settings(data_dir=data_dir).instance
    return {
        "runsc processes": sum(1 for command in _commands() if f"--root=/run/skerry/{instance}/".encode() in command),
        "control groups": sum(1 for path in _control_groups(instance)),
        "loop devices": sum(1 for path in _backing_files() if path.startswith(str(data_dir))),
        "links": sum(1 for link in Path("/sys/class/net").iterdir() if link.name.startswith(f"sk{instance}-")),
        "run files": len(list(Path(f"/run/skerry/{instance}").glob("sandboxes/*"))),
    }


NOTHING = {"runsc processes": 0, "control groups": 0, "loop devices": 0, "links": 0, "run files": 0}


def _control_groups(instance: str) -> Iterator[Path]:
    for hierarchy in Path("/sys/fs/cgroup").iterdir():
        for root in (hierarchy / "skerry" / instance, hierarchy.parent / "skerry" / instance):
            if root.is_dir():
                yield from (path for path in root.iterdir() if path.is_dir())
                yield root


def _backing_files() -> Iterator[str]:
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            yield file.read_text().strip()
        except OSError:
            continue  # freed meanwhile


def _commands() -> Iterator[bytes]:
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                yield (process / "cmdline").read_bytes()
            except OSError:
                continue
