"""The OCI bundle of a gVisor sandbox: what is inside, and what it may do. Pure: no I/O.

The capabilities below are capabilities *inside the guest kernel*; none of them means anything on the host. PID 1 is our
agent. It needs SYS_ADMIN to set the host name, to put what it starts under a pids limit and to mount volumes at their
paths, SYS_RESOURCE to change the limits of running processes, and takes both out of the bounding set of everything it
starts.
"""

from __future__ import annotations

from typing import Any

from skerry.ports import VOLUMES_MOUNT, Boot

AGENT_PATH = "/opt/skerry/agent"
RUNTIME_MOUNT = "/opt/skerry"
LINK_MOUNT = "/run/skerry/link"

CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_RESOURCE",
)

MASKED_PATHS = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/sched_debug", "/proc/timer_list", "/sys/firmware")
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sysrq-trigger")

OPEN_FILES = 65_536
"""RLIMIT_NOFILE inside; what the sentry may open on the host is bounded by the server's own limit."""


def oci_config(boot: Boot) -> dict[str, Any]:
    """The content of `config.json` for one sandbox. The environment holds PATH only: nothing of the host's."""
    return {
        "ociVersion": "1.0.2",
        "hostname": boot.hostname,
        "root": {"path": str(boot.rootfs), "readonly": False},
        "process": _process(),
        "mounts": _mounts(boot),
        "linux": {
            "namespaces": [
                {"type": "pid"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
                {"type": "network", "path": boot.network_namespace},
            ],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            # No resources: the node's control groups enforce them, and runsc, told to leave control groups alone, does
            # not tell the guest of them either. /proc shows the host's CPUs and memory inside.
        },
    }


def _process() -> dict[str, Any]:
    capabilities = list(CAPABILITIES)
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": [AGENT_PATH],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "cwd": "/",
        "noNewPrivileges": True,
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
            "inheritable": [],
            "ambient": [],
        },
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "hard": OPEN_FILES, "soft": OPEN_FILES},
            {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
        ],
    }


def _mounts(boot: Boot) -> list[dict[str, Any]]:
    shared_memory_mib = max(16, boot.limits.memory_mib // 2)
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {
            "destination": "/dev/shm",  # noqa: S108 - a mount point inside the guest
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "noexec", "mode=1777", f"size={shared_memory_mib}m"],
        },
        _bind(boot.runtime_directory, RUNTIME_MOUNT, "exec"),
        _bind(boot.link_directory, LINK_MOUNT, "noexec"),
        {
            # A slave: volumes are mounted below it when the sandbox is claimed. Not `ro`: volumes would be so too; that
            # nothing can be made beside them is up to the mount on the host.
            "destination": VOLUMES_MOUNT,
            "type": "bind",
            "source": str(boot.volumes_directory),
            "options": ["rbind", "rslave", "nosuid", "nodev"],
        },
    ]


def _bind(source: Any, destination: str, execution: str) -> dict[str, Any]:
    options = ["bind", "ro", "nosuid", "nodev", execution]
    return {"destination": destination, "type": "bind", "source": str(source), "options": options}
