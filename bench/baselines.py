"""What Skerry is compared with: the same image and the same commands, started by hand.

`runsc` gets the smallest bundle that works: no network, no cgroups, a read-only root: nothing that Skerry adds. So its
time is the floor under any cold start, and a hard baseline for a claim.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.rounds import Sampler, timed

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMAND_TIMEOUT_S = 60


class BaselineFailed(Exception):
    """A baseline's own command failed; its time would mean nothing."""


def call(command: Sequence[str]) -> None:
    """Run to the end with nothing attached: runsc's children inherit the descriptors, and a pipe would never close."""
    code = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        timeout=COMMAND_TIMEOUT_S, check=False,
    ).returncode  # fmt: skip
    if code != 0:
        raise BaselineFailed(f"{' '.join(command)!r} ended with {code}")


def specification(rootfs: Path, args: Sequence[str]) -> dict[str, object]:
    """The OCI specification of one run by hand."""
    return {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": list(args), "env": [f"PATH={PATH}"], "cwd": "/"},
        "root": {"path": str(rootfs), "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
    }


class Runsc:
    """`runsc` by hand on one image. Everything it leaves lies in `directory`."""

    def __init__(self, rootfs: Path, directory: Path) -> None:
        self._rootfs, self._directory, self._count = rootfs, directory, 0
        self._bundles: dict[tuple[str, ...], Path] = {}
        options = ("--network=none", "--ignore-cgroups", "--overlay2=none")
        self._base = ("runsc", f"--root={directory / 'state'}", *options)

    def _bundle(self, args: tuple[str, ...]) -> Path:
        if args not in self._bundles:
            bundle = self._directory / f"bundle-{len(self._bundles)}"
            bundle.mkdir(parents=True)
            (bundle / "config.json").write_text(json.dumps(specification(self._rootfs, args)))
            self._bundles[args] = bundle
        return self._bundles[args]

    def run(self, *args: str) -> None:
        """A whole life: boot, the command, the end."""
        self._count += 1
        bundle = self._bundle(args)
        call([*self._base, "run", f"--bundle={bundle}", f"bench-{os.getpid()}-{self._count}"])

    @contextmanager
    def running(self) -> Iterator[str]:
        """A sandbox that sleeps; its id, for `exec`."""
        name = f"bench-{os.getpid()}-sleeper"
        bundle = self._bundle(("sleep", "infinity"))
        call([*self._base, "run", "--detach", f"--bundle={bundle}", name])
        try:
            yield name
        finally:
            call([*self._base, "kill", name, "KILL"])
            self._wait_for_end(name)
            call([*self._base, "delete", name])

    def exec(self, name: str, *args: str) -> None:
        call([*self._base, "exec", name, *args])

    def _wait_for_end(self, name: str) -> None:
        """Deleting a sandbox that still dies costs runsc seconds of its own waiting."""
        for _ in range(100):
            state = subprocess.run(
                [*self._base, "state", name], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=COMMAND_TIMEOUT_S, check=False,
            )  # fmt: skip
            if '"stopped"' in state.stdout or state.returncode != 0:
                return
            time.sleep(0.05)


def _bubblewrap(rootfs: Path) -> list[str]:
    return ["bwrap", "--ro-bind", str(rootfs), "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "true"]


def _works(command: Sequence[str]) -> bool:
    with suppress(BaselineFailed, subprocess.TimeoutExpired, OSError):
        call(command)
        return True
    return False


def _docker_image(rootfs: Path) -> str | None:
    """The image in Docker's own store, put there once per run; None where no daemon answers."""
    if not shutil.which("docker") or not _works(["docker", "info"]):
        return None
    pack = subprocess.Popen(["tar", "-C", str(rootfs), "-c", "."], stdout=subprocess.PIPE)
    with pack:
        done = subprocess.run(
            ["docker", "import", "-", "skerry-bench:latest"], stdin=pack.stdout, capture_output=True, timeout=600,
            check=False,
        )  # fmt: skip
    return "skerry-bench:latest" if done.returncode == 0 else None


def others(rootfs: Path) -> Mapping[str, Sampler]:
    """`true` by whatever else this machine has: bwrap, docker, podman (where they work), and nothing at all."""
    commands = {"bare host `true`": ["true"]}
    if shutil.which("bwrap"):
        commands["`bwrap true`"] = _bubblewrap(rootfs)
    if image := _docker_image(rootfs):
        commands["`docker run true`"] = ["docker", "run", "--rm", "--network=none", image, "true"]
    if shutil.which("podman"):
        base = ["podman", "run", "--rm", "--network=none"]
        commands["`podman run true`"] = [*base, "--rootfs", f"{rootfs}:O", "true"]
    return {
        name: timed(lambda command=command: call(command))  # type: ignore[misc]
        for name, command in commands.items()
        if _works(command)
    }
