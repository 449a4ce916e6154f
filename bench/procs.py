"""Processes and control groups as the kernel counts them: memory that is theirs alone, CPU time, who belongs where."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process or many, in MiB. `pss` shares shared pages among their users; `private` counts only pages nobody
    else maps; `rss` counts shared pages in full, once for each."""

    rss: float = 0.0
    pss: float = 0.0
    private: float = 0.0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss, self.private + other.private)


def parse_rollup(text: str) -> Memory:
    """`/proc/<pid>/smaps_rollup`."""
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}
    private = kib.get("Private_Clean", 0) + kib.get("Private_Dirty", 0)
    return Memory(kib.get("Rss", 0) / 1024, kib.get("Pss", 0) / 1024, private / 1024)


def parse_stat_cpu_s(text: str) -> float:
    """User and system seconds of `/proc/<pid>/stat`, without children. The command may hold spaces and brackets."""
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def parse_cgroup(text: str) -> str:
    """The memory control group of `/proc/<pid>/cgroup`: v1's memory line where there is one, else v2's."""
    unified = ""
    for line in text.splitlines():
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            return path
        if number == "0":
            unified = path
    return unified


def parse_machine_cpu_s(text: str) -> dict[str, float]:
    """The first line of `/proc/stat`: seconds by kind, over all cores."""
    kinds = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    values = text.partition("\n")[0].split()[1:]
    return {kind: int(value) / TICKS_PER_S for kind, value in zip(kinds, values, strict=False)}


def memory(pids: Iterable[int]) -> Memory:
    """Of all of `pids` together; those that ended meanwhile count nothing."""
    total = Memory()
    for pid in pids:
        with suppress(OSError):
            total += parse_rollup((PROC / str(pid) / "smaps_rollup").read_text())
    return total


def cpu_s(pid: int) -> float:
    """Raises OSError when it has ended."""
    return parse_stat_cpu_s((PROC / str(pid) / "stat").read_text())


def machine_cpu_s() -> dict[str, float]:
    return parse_machine_cpu_s((PROC / "stat").read_text())


def by_cgroup() -> Mapping[str, list[int]]:
    """Every process on the machine by its control group."""
    groups: dict[str, list[int]] = defaultdict(list)
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                groups[parse_cgroup((entry / "cgroup").read_text())].append(int(entry.name))
    return groups


def group_cpu_s(group: str) -> float:
    """CPU seconds ever used below a control group, by the dead too. `cpuacct` on v1, `cpu.stat` on v2."""
    v1 = CGROUPS / "cpuacct" / group.lstrip("/") / "cpuacct.usage"
    if v1.exists():
        return int(v1.read_text()) / 1e9
    text = (CGROUPS / group.lstrip("/") / "cpu.stat").read_text()
    found = re.search(r"^usage_usec (\d+)$", text, re.MULTILINE)
    return int(found[1]) / 1e6 if found else 0.0


def group_memory_mib(group: str) -> float:
    """What the kernel charges a control group for, page cache included."""
    v1 = CGROUPS / "memory" / group.lstrip("/") / "memory.usage_in_bytes"
    v2 = CGROUPS / group.lstrip("/") / "memory.current"
    return int((v1 if v1.exists() else v2).read_text()) / 2**20


def children(pid: int) -> set[int]:
    """Processes whose parent it is, its own and those that it has adopted."""
    found: set[int] = set()
    for path in (PROC / str(pid)).glob("task/*/children"):
        with suppress(OSError):
            found.update(map(int, path.read_text().split()))
    return found
