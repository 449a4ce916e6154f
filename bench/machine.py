"""What the numbers were measured on: recorded at the time of the run, for none means anything without it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """One look at the machine."""

    at: str
    cores: int
    processor: str
    memory_mib: int
    memory_available_mib: int
    kernel: str
    system: str
    runsc: str
    python: str
    load: tuple[float, float, float]
    """Runnable tasks, averaged over 1, 5 and 15 minutes."""
    cgroups: str


def field_of(text: str, name: str, separator: str = ":") -> str:
    """The value of the first `name: value` line; empty when there is none."""
    found = re.search(rf"^{re.escape(name)}\s*{re.escape(separator)}\s*(.*)$", text, re.MULTILINE)
    return found[1].strip().strip('"') if found else ""


def _kib(text: str, name: str) -> int:
    return int(field_of(text, name).removesuffix(" kB") or 0) // 1024


def _runsc_version() -> str:
    if not shutil.which("runsc"):
        return "not installed"
    done = subprocess.run(["runsc", "--version"], capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.partition("\n")[0].removeprefix("runsc version ") or "unknown"


def look() -> Machine:
    """Read it all; takes one `runsc --version`."""
    cpuinfo, meminfo = Path("/proc/cpuinfo").read_text(), Path("/proc/meminfo").read_text()
    release = Path("/etc/os-release")
    return Machine(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        cores=len(os.sched_getaffinity(0)),
        processor=field_of(cpuinfo, "model name") or platform.machine(),
        memory_mib=_kib(meminfo, "MemTotal"),
        memory_available_mib=_kib(meminfo, "MemAvailable"),
        kernel=platform.release(),
        system=field_of(release.read_text(), "PRETTY_NAME", "=") if release.exists() else platform.system(),
        runsc=_runsc_version(),
        python=platform.python_version(),
        load=os.getloadavg(),
        cgroups="v2" if Path("/sys/fs/cgroup/cgroup.controllers").exists() else "v1",
    )


def markdown(before: Machine, after: Machine) -> str:
    """One line about the machine, one about how busy it was."""
    loads = " → ".join(f"{machine.load[0]:.2f}" for machine in (before, after))
    return (
        f"{before.system}, kernel {before.kernel}, {before.cores} cores ({before.processor}), {before.memory_mib} MiB, "
        f"runsc {before.runsc}, cgroups {before.cgroups}, Python {before.python}; {before.at}.\n"
        f"Load (1 min) before → after the run: {loads}."
    )
