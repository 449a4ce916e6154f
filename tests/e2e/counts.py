"""What a sandbox could leave behind on the host, counted."""

from pathlib import Path


def counts() -> dict[str, int]:
    """Skerry's processes, control groups, loop devices, network links and run directories on this machine."""
    return {
        "runsc processes": sum(1 for command in _commands() if command.startswith(b"runsc")),
        "control groups": sum(1 for path in Path("/sys/fs/cgroup").glob("**/skerry/**/") if path.is_dir()),
        "loop devices": len(list(Path("/sys/block").glob("loop*/loop/backing_file"))),
        "links": len([link for link in Path("/sys/class/net").iterdir() if link.name.startswith("sk")]),
        "mounts": len(Path("/proc/self/mountinfo").read_text().splitlines()),
        "run files": len(list(Path("/run/skerry").glob("*/*"))),
    }


def _commands() -> list[bytes]:
    commands = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                commands.append((process / "cmdline").read_bytes().split(b"\0")[0].rsplit(b"/", 1)[-1])
            except OSError:
                continue
    return commands
