"""What every driver must do: one list of checks, run on each of them.

A check takes a rig with the driver in place. `CHECKS` is the list; `tests/drivers/test_<driver>.py` runs it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from skerry.drivers.launch import wait_for_exit
from skerry.errors import SandboxStartFailed
from skerry.models import Limits
from skerry.node.records import start_time
from tests.drivers.rig import LIMITS, Box, Rig

Check = Callable[[Rig], Awaitable[None]]


async def boots_and_runs_a_command(rig: Rig) -> None:
    async with rig.box() as box:
        assert start_time(box.pid) is not None
        assert await box.run("/bin/echo", "hello") == (0, "hello\n", "")
        assert (await box.run("/bin/sh", "-c", "exit 7"))[0] == 7


async def the_main_process_is_the_sandbox(rig: Rig) -> None:
    async with rig.box() as box:
        assert box.pid in rig.cgroups.pids(box.boot.cgroup)
        os.kill(box.pid, signal.SIGKILL)
        with anyio.fail_after(5):
            await wait_for_exit(box.pid)


async def everything_runs_inside_the_control_group(rig: Rig) -> None:
    async with rig.box() as box:
        inside = set(rig.cgroups.pids(box.boot.cgroup))
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                mentions = box.boot.sandbox_id.encode() in path.read_bytes().split(b"\0")
            except OSError:
                continue
            assert not mentions or int(path.parent.name) in inside


async def the_user_is_not_root_and_root_is_root(rig: Rig) -> None:
    async with rig.box() as box:
        assert await box.output("id -un") == "user"
        assert await box.output("id -u", user="root") == "0"


async def the_kernel_is_not_the_hosts(rig: Rig) -> None:
    async with rig.box() as box:
        assert await box.output("uname -v") != os.uname().version
        assert os.uname().release not in await box.output("cat /proc/version")


async def nothing_of_the_host_is_visible(rig: Rig) -> None:
    async with rig.box() as box:
        names = await box.output("ls /proc | grep -c '^[0-9]'", user="root")
        assert int(names) < 20
        environment = await box.output("env", user="root")
        for name in ("SKERRY", "VIRTUAL_ENV", "PYTEST"):
            assert name not in environment
        assert await box.output("ls /dev | grep -E '^(loop|sd|vd|nvme|kvm|mem|kmsg)' | wc -l", user="root") == "0"
        names = await box.output("cat /proc/1/environ | tr '\\0' '\\n' | cut -d= -f1", user="root")
        assert set(names.split()) <= {"PATH", "HOME"}


async def no_descriptor_of_the_host_leaks_in(rig: Rig) -> None:
    with (rig.directory / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        async with rig.box() as box:
            links = await box.output("ls -l /proc/1/fd /proc/self/fd", user="root")
            assert "secret" not in links


async def the_runtime_and_the_link_cannot_be_written(rig: Rig) -> None:
    async with rig.box() as box:
        for path in ("/opt/skerry/agent", "/opt/skerry/new", "/run/skerry/link/token", "/run/skerry/link/new"):
            code, _, err = await box.run("/bin/sh", "-c", f"echo x >> {path}", user="root")
            assert code != 0, path
            assert "Read-only" in err or "denied" in err.lower() or "busy" in err.lower(), (path, err)
        code, _, _ = await box.run("/bin/cat", "/run/skerry/link/token", user="user")
        assert code != 0, "the token is root's alone"


async def a_command_has_no_power_over_the_machine(rig: Rig) -> None:
    async with rig.box() as box:
        for script in ("mount -t tmpfs none /mnt", "hostname evil", "mknod /tmp/d b 7 0 && cat /tmp/d", "insmod x"):
            assert (await box.run("/bin/sh", "-c", script, user="root"))[0] != 0, script


async def the_disk_is_limited(rig: Rig) -> None:
    async with rig.box(limits=LIMITS.model_copy(update={"disk_mib": 64})) as box:
        code, _, err = await box.run("/bin/dd", "if=/dev/zero", "of=/tmp/big", "bs=1M", "count=200")
        assert code != 0
        assert "No space" in err
        # What is full can be emptied, and the sandbox still works.
        assert await box.output("rm /tmp/big && echo fine > /tmp/small && cat /tmp/small") == "fine"


async def memory_is_limited(rig: Rig) -> None:
    async with rig.box(limits=Limits(cpu=2, memory_mib=128, disk_mib=64, pids=100)) as box:
        script = "a = bytearray(700 << 20)\nfor i in range(0, len(a), 4096): a[i] = 1\nprint('took it all')"
        ended = anyio.Event()

        async def eat() -> None:
            with pytest.raises(Exception):  # noqa: B017, PT011 - whichever the link says: the sandbox is gone
                await box.run("/usr/bin/python3", "-c", script)

        async def watch() -> None:
            await wait_for_exit(box.pid)
            ended.set()
            await box.listener.aclose()

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(eat)
                group.start_soon(watch)
        assert ended.is_set()
        assert rig.cgroups.usage(box.boot.cgroup).oom_kills > 0


async def a_frozen_sandbox_stands_still_and_goes_on(rig: Rig) -> None:
    async with rig.box() as box:
        box.link.suspend()
        rig.cgroups.freeze(box.boot.cgroup)
        before = rig.cgroups.usage(box.boot.cgroup).cpu_used_s
        await anyio.sleep(0.3)
        assert rig.cgroups.usage(box.boot.cgroup).cpu_used_s == before
        rig.cgroups.thaw(box.boot.cgroup)
        box.link.resume()
        assert await box.output("echo on") == "on"


async def an_idle_sandbox_goes_on_and_answers(rig: Rig) -> None:
    async with rig.box() as box:
        for idle in (True, True, False):
            rig.driver.set_idle(box.pid, idle)
            assert await box.output("sleep 0.01; echo awake") == "awake"
    rig.driver.set_idle(box.pid, True)  # it has ended


async def a_frozen_sandbox_can_be_destroyed(rig: Rig) -> None:
    async with rig.box() as box:
        rig.cgroups.freeze(box.boot.cgroup)
        rig.cgroups.kill(box.boot.cgroup)
        with anyio.fail_after(5):
            await rig.driver.destroy(box.boot.sandbox_id)
            await wait_for_exit(box.pid)


async def destroy_leaves_nothing_and_may_be_repeated(rig: Rig) -> None:
    before = _files(rig.directory / "state")
    async with rig.box() as box:
        name, pid = box.boot.sandbox_id, box.pid
        assert _files(rig.directory / "state") != before
    assert start_time(pid) is None
    assert _files(rig.directory / "state") == before
    assert rig.cgroups.names() == []
    assert rig.disks.names() == []
    assert name not in Path("/proc/self/mountinfo").read_text()
    await rig.driver.destroy(name)
    await rig.driver.destroy("never-was")


async def a_failed_boot_says_why_and_leaves_nothing(rig: Rig) -> None:
    rig.image = rig.directory / "empty-image"
    rig.image.mkdir()
    (rig.runtime / "agent").rename(rig.runtime / "moved")
    with pytest.raises(SandboxStartFailed) as caught:
        async with rig.box():
            pass
    assert "cannot start sandbox" in caught.value.message
    assert caught.value.details["log"]
    json.dumps(caught.value.to_wire())
    assert _files(rig.directory / "state") == set()


async def a_cancelled_boot_leaves_nothing(rig: Rig) -> None:
    for wait in (0.0, 0.02, 0.06, 0.12):
        with anyio.move_on_after(wait):
            async with rig.box():
                pass
        assert _files(rig.directory / "state") == set()
        assert rig.cgroups.names() == []


async def a_checkpoint_is_restored_twice_with_processes_memory_and_disk(rig: Rig) -> None:
    image, disk = rig.directory / "checkpoint", rig.directory / "disk.img"
    async with rig.box() as box:
        await box.output("echo kept > /tmp/file; mkdir -p ~/d && echo home > ~/d/f")
        async with box.link.run(["/bin/sh", "-c", "read x; echo got $x"], stdin=True) as events:
            started = await anext(aiter(events))
            assert started.type == "started"
        await box.listener.hold()
        await rig.driver.checkpoint(box.boot.sandbox_id, image, keep_running=False)
        await rig.disks.export(box.boot.sandbox_id, disk)
    for number in range(2):
        async with rig.box(checkpoint=image, disk=disk) as box:
            await box.link.reseed(hostname=f"copy{number}")
            assert await box.output("hostname") == f"copy{number}"
            assert await box.output("cat /tmp/file ~/d/f") == "kept\nhome"
            assert await box.output(f"echo {number} > /tmp/own && cat /tmp/own") == str(number)
            pid = started.process.pid
            await box.link.write_stdin(pid, f"{number}\n".encode())
            async with box.link.attach(pid) as events:
                data = b"".join([event.data async for event in events if event.type == "stdout"])
            assert data == f"got {number}\n".encode()


async def two_sandboxes_do_not_see_each_other(rig: Rig) -> None:
    async with rig.box() as one, rig.box() as two:
        await one.output("echo secret > /tmp/one; sleep 1000 >/dev/null 2>&1 &")
        assert await two.output("ls /tmp") == ""
        assert "sleep 1000" not in await two.output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")


def _files(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if not path.is_dir()}


CHECKS: tuple[Check, ...] = (
    boots_and_runs_a_command,
    the_main_process_is_the_sandbox,
    everything_runs_inside_the_control_group,
    the_user_is_not_root_and_root_is_root,
    the_kernel_is_not_the_hosts,
    nothing_of_the_host_is_visible,
    no_descriptor_of_the_host_leaks_in,
    the_runtime_and_the_link_cannot_be_written,
    a_command_has_no_power_over_the_machine,
    the_disk_is_limited,
    memory_is_limited,
    a_frozen_sandbox_stands_still_and_goes_on,
    an_idle_sandbox_goes_on_and_answers,
    a_frozen_sandbox_can_be_destroyed,
    destroy_leaves_nothing_and_may_be_repeated,
    a_failed_boot_says_why_and_leaves_nothing,
    a_cancelled_boot_leaves_nothing,
    a_checkpoint_is_restored_twice_with_processes_memory_and_disk,
    two_sandboxes_do_not_see_each_other,
)

__all__ = ["CHECKS", "Box", "Check"]
