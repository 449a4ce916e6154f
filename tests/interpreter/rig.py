"""An interpreter in the base template's tree, without a sandbox around it: its conversation can be had line by line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from skerry.errors import TemplateNotFound

SOURCES = Path(__file__).resolve().parents[2] / "src" / "skerry" / "interpreter"

# The tree is a layer that goes away with this mount namespace, and so do the mounts.
_ENTER = """
set -e
mount -t tmpfs tmpfs "$3"
mkdir "$3/upper" "$3/work" "$3/root"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$3/upper,workdir=$3/work" "$3/root"
mount -t proc proc "$3/root/proc"
mount -t tmpfs -o mode=755 tmpfs "$3/root/dev"
for device in null zero random urandom; do
    touch "$3/root/dev/$device"
    mount --bind "/dev/$device" "$3/root/dev/$device"
done
mkdir -m 1777 "$3/root/dev/shm"
mkdir -p "$3/root/opt/skerry/interpreter"
mount --bind "$2" "$3/root/opt/skerry/interpreter"
exec chroot --userspec=1000:1000 "$3/root" env -i HOME=/home/user USER=user SHELL=/bin/bash LANG=C.UTF-8 \
    PATH=/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 \
    sh -c 'cd && exec python3 -u /opt/skerry/interpreter/main.py $0' "$4"
"""


def base_tree() -> Path:
    """The tree named by SKERRY_TEST_ROOTFS, or the base template."""
    if named := os.environ.get("SKERRY_TEST_ROOTFS"):
        return Path(named)
    from skerry.host.images import Images

    images = Images()
    try:
        return images.trees(images.template("base").image)[0]
    except TemplateNotFound:
        pytest.skip("the base template is not built: `make template`")


@dataclass
class Ran:
    """What one cell gave."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def of(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]

    @property
    def stdout(self) -> str:
        return "".join(event["text"] for event in self.of("stdout"))

    @property
    def stderr(self) -> str:
        return "".join(event["text"] for event in self.of("stderr"))

    @property
    def text(self) -> Any:
        """The main result."""
        return next((event["data"].get("text/plain") for event in self.of("result") if event["main"]), None)

    @property
    def shown(self) -> list[dict[str, Any]]:
        return [event["data"] for event in self.of("result")]

    @property
    def error(self) -> Any:
        return next(iter(self.of("error")), None)

    @property
    def order(self) -> list[str]:
        return [event["event"] for event in self.events]


class Interpreter:
    """One running interpreter."""

    def __init__(self, scratch: Path, *, warm: bool = False) -> None:
        self._process = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "sh", base_tree(), SOURCES, scratch,
             "--warm" if warm else ""],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._count = 0
        self.hello = self.read()

    @property
    def pid(self) -> int:
        return self._process.pid

    def read(self) -> dict[str, Any]:
        """The next event. Raises EOFError when the interpreter has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the interpreter has ended")
        event = json.loads(line)
        assert isinstance(event, dict)
        return event

    def send(self, **request: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def begin(self, code: str, env: Mapping[str, str] | None = None, *, structured: bool = False) -> None:
        self._count += 1
        self.send(op="run", id=str(self._count), code=code, env=dict(env or {}), structured=structured)

    def finish(self) -> Ran:
        """Everything up to `done`, all of it of this run."""
        ran = Ran()
        while not ran.of("done"):
            ran.events.append(self.read())
        assert {event["id"] for event in ran.events} == {str(self._count)}
        return ran

    def run(self, code: str, env: Mapping[str, str] | None = None, *, structured: bool = False) -> Ran:
        self.begin(code, env, structured=structured)
        return self.finish()

    def interrupt(self) -> None:
        os.kill(self.pid, signal.SIGINT)

    def configure(self, **fields: Any) -> None:
        self.send(op="configure", **fields)
        assert self.read() == {"event": "configured"}

    def end_input(self) -> int:
        """Close its input; its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(10)

    def last_words(self) -> str:
        """What it wrote to its own standard error, after its end."""
        assert self._process.stderr is not None
        self._process.wait(10)
        return self._process.stderr.read().decode()

    def close(self) -> None:
        """End it and everything it started."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(10)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
