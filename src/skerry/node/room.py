"""Whether this machine has room for one more sandbox."""

from __future__ import annotations

from pathlib import Path

from skerry.errors import HostFull

RESERVE_MIB = 512
"""Memory that must stay available for the server and the kernel: beyond it the host itself would be in danger."""


def check_room(meminfo: Path = Path("/proc/meminfo")) -> None:
    """Raises HostFull when a new sandbox would endanger the machine."""
    available = available_mib(meminfo.read_text())
    if available < RESERVE_MIB:
        raise HostFull(
            f"cannot start a sandbox: {available} MiB of memory are available and {RESERVE_MIB} must stay free",
            available_mib=available,
            reserve_mib=RESERVE_MIB,
            retry_after_s=5,
        )


def available_mib(meminfo: str) -> int:
    """`MemAvailable` of the text of /proc/meminfo, in MiB."""
    for line in meminfo.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    raise ValueError("/proc/meminfo has no MemAvailable")
