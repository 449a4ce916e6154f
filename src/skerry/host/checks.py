"""What the server needs of this machine, and the command that mends what is missing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_MIB = 1024 * 1024
MINIMUM_RUNSC = 20240729
MINIMUM_KERNEL = (5, 10)
MINIMUM_MEMORY_MIB = 2048
MINIMUM_DISK_MIB = 8192


@dataclass(frozen=True, slots=True)
class Check:
    """One thing the server needs."""

    name: str
    ok: bool
    found: str
    needed: str
    fix: str
    """Command, or sentence, that mends it."""


def checks() -> list[Check]:
    """Look at everything; nothing is changed."""
    return [
        _user(), _kernel(), *_kernel_features(), _cgroups(), _runsc(),
        _program("nft", "nftables", "the firewall between sandboxes and everything else"),
        _program("mkfs.ext4", "e2fsprogs", "disks of sandboxes, and volumes"),
        _program("skopeo", "skopeo", "pulling images from registries"),
        _program("mmdebstrap", "mmdebstrap", "building the base template"),
        _memory(), _disk(Path("/var/lib")), _forwarding(), _foreign_firewall(),
    ]  # fmt: skip


def _user() -> Check:
    root = os.geteuid() == 0
    return Check("root", root, "root" if root else "an ordinary user", "root", "run it with sudo")


def _kernel() -> Check:
    release = platform.release()
    numbers = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    needed = ".".join(map(str, MINIMUM_KERNEL))
    return Check(
        "kernel", numbers >= MINIMUM_KERNEL, release, f"Linux {needed} or newer", "upgrade to Debian 12 or newer"
    )


def _kernel_features() -> list[Check]:
    filesystems = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    found = []
    for name, module in (("overlay", "overlay"), ("ext4", "ext4")):
        ok = name in filesystems or _has_module(module)
        found.append(Check(f"{name} file system", ok, _word(ok), "kernel support", f"modprobe {module}"))
    for name, path, fix in (
        ("network namespaces", "/proc/self/ns/net", "use a kernel with CONFIG_NET_NS"),
        ("loop devices", "/dev/loop-control", "modprobe loop"),
    ):
        ok = Path(path).exists()
        found.append(Check(name, ok, _word(ok), path, fix))
    return found


def _has_module(name: str) -> bool:
    """Whether the running kernel could load a module of that name."""
    folder = Path("/lib/modules") / platform.release()
    try:
        return any(f"/{name}.ko" in (folder / index).read_text() for index in ("modules.dep", "modules.builtin"))
    except OSError:
        return False


def _cgroups() -> Check:
    mount = Path("/sys/fs/cgroup")
    if (mount / "memory").is_dir():
        missing = [name for name in ("memory", "cpu", "cpuacct", "pids", "freezer") if not (mount / name).is_dir()]
        version = "version 1"
    else:
        try:
            there = (mount / "cgroup.controllers").read_text().split()
        except OSError:
            there = []
        missing, version = [name for name in ("memory", "cpu", "pids") if name not in there], "version 2"
    found = f"{version}, without {', '.join(missing)}" if missing else version
    fix = "boot with cgroup_enable=memory, or mount the missing controllers below /sys/fs/cgroup"
    return Check("control groups", not missing, found, "memory, cpu and pids controllers", fix)


def _runsc() -> Check:
    needed = f"runsc {MINIMUM_RUNSC} or newer"
    if shutil.which("runsc") is None:
        return Check("gVisor", False, "not installed", needed, _install_runsc())
    said = subprocess.run(
        ["runsc", "--version"], capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL
    ).stdout
    date = re.search(r"(\d{8})", said)
    found = said.splitlines()[0] if said else "runsc, which does not tell its version"
    return Check("gVisor", date is not None and int(date[1]) >= MINIMUM_RUNSC, found, needed, _install_runsc())


def _install_runsc() -> str:
    name, version = _distribution()
    if name == "debian" and version == "12":
        return "make setup (adds bookworm-backports), or: apt install -t bookworm-backports runsc"
    if name == "debian":
        return "apt install runsc"
    return f"install runsc {MINIMUM_RUNSC} or newer from gVisor's own packages, see its installation page"


def _program(name: str, package: str, use: str) -> Check:
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    manager = "apt install" if _distribution()[0] in ("debian", "ubuntu") else "install the package"
    return Check(name, path is not None, path or "not installed", f"for {use}", f"{manager} {package}")


def _distribution() -> tuple[str, str]:
    try:
        facts = platform.freedesktop_os_release()
    except OSError:
        return "", ""
    return facts.get("ID", ""), facts.get("VERSION_ID", "")


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB
    return Check(
        "memory", total >= MINIMUM_MEMORY_MIB, f"{total} MiB", f"{MINIMUM_MEMORY_MIB} MiB", "use a larger machine"
    )


def _disk(directory: Path) -> Check:
    free = shutil.disk_usage(directory).free // _MIB
    needed = f"{MINIMUM_DISK_MIB} MiB free"
    fix = f"free some space below {directory}, or set SKERRY_DATA_DIR and SKERRY_IMAGES_DIR"
    return Check("disk", free >= MINIMUM_DISK_MIB, f"{free} MiB free in {directory}", needed, fix)


def _forwarding() -> Check:
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    if not switch.exists():  # as in a sandboxing server's own mount namespace
        found = "cannot look: /proc/sys/net is hidden here"
    else:
        found = "on" if switch.read_text().strip() == "1" else "off; the server switches it on"
    return Check("packet forwarding", True, found, "on", "sysctl net.ipv4.ip_forward=1")


def _foreign_firewall() -> Check:
    """Docker sets the policy of FORWARD to drop; an accept in our table cannot undo a drop in another."""
    needed = "no other firewall that drops forwarded packets"
    fix = 'iptables -I DOCKER-USER -i "sk+" -j ACCEPT; iptables -I DOCKER-USER -o "sk+" -j ACCEPT'
    try:
        listed = _listed_rules()
    except (OSError, subprocess.TimeoutExpired):
        return Check("foreign firewall", True, "cannot look: nft is not there", needed, fix)
    drops = re.search(r"hook forward [^\n]*policy drop", listed) is not None
    passes = '"sk*"' in listed or "sk+" in listed
    return Check("foreign firewall", not drops or passes, "drops" if drops else "none", needed, fix)


def _listed_rules() -> str:
    command = ["nft", "list", "ruleset"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, stdin=subprocess.DEVNULL)
    return done.stdout


def _word(ok: bool) -> str:
    return "there" if ok else "missing"
