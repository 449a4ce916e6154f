"""What every driver must do with volumes: a part of the conformance suite."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from skerry.errors import FileError, InvalidRequest
from tests.drivers.rig import Box, Rig

AT = "/run/skerry/volumes"


@asynccontextmanager
async def volumes(rig: Rig, *names: str) -> AsyncIterator[None]:
    """New volumes of that rig."""
    await rig.volumes.start()
    for name in names:
        await rig.volumes.create(name, 16, 8192)
    yield
    for name in names:
        await rig.volumes.remove(name)


async def volumes_appear_in_a_running_sandbox(rig: Rig) -> None:
    async with volumes(rig, "a", "b"):
        async with rig.box() as box:
            assert await box.output(f"ls -a {AT}", user="root") == ".\n.."
            await rig.volumes.attach(box.boot.sandbox_id, [("a", False), ("b", True)])
            await box.link.mount(f"{AT}/a", "/srv/deep/data")
            await box.link.mount(f"{AT}/b", "/ro")
            assert await box.output("echo x > /srv/deep/data/file && cat /srv/deep/data/file") == "x"
            async with rig.volumes.use("a") as root:
                assert (root / "file").read_text() == "x\n"
                (root / "of the host").write_text("y")
            assert await box.output("cat '/srv/deep/data/of the host'") == "y"
        async with rig.box(volumes=[("a", False)]) as box:
            await box.link.mount(f"{AT}/a", "/data")
            assert await box.output("cat /data/file") == "x", "it has outlived its sandbox"


async def nobody_writes_to_a_read_only_volume(rig: Rig) -> None:
    async with volumes(rig, "a"):
        async with rig.volumes.use("a") as root:
            (root / "file").write_text("kept")
        async with rig.box(volumes=[("a", True)]) as box:
            await box.link.mount(f"{AT}/a", "/ro", read_only=True)
            for script in ("echo x > /ro/file", "echo x > /ro/new", "rm /ro/file", "mkdir /ro/d", "chmod 777 /ro/file",
                           f"echo x > {AT}/a/file", "mount -o remount,rw /ro", f"mount -o remount,rw {AT}"):  # fmt: skip
                assert (await box.run("/bin/sh", "-c", script, user="root"))[0] != 0, script
            assert await box.output("cat /ro/file") == "kept"


async def a_full_volume_hurts_nobody_else(rig: Rig) -> None:
    async with volumes(rig, "a"), rig.box(volumes=[("a", False)]) as box:
        await box.link.mount(f"{AT}/a", "/data")
        code, _, err = await box.run("/bin/dd", "if=/dev/zero", "of=/data/big", "bs=1M", "count=64")
        assert code != 0
        assert "No space" in err
        assert await box.output("rm /data/big && echo fine > /data/small && cat /data/small") == "fine"
        code, _, err = await box.run("/bin/sh", "-c", "i=0; while : > /data/$i; do i=$((i+1)); done")
        assert "No space" in err


async def nothing_can_be_made_beside_the_volumes(rig: Rig) -> None:
    """It would be on the host's disk, without a limit."""
    async with volumes(rig, "a"), rig.box(volumes=[("a", False)]) as box:
        for script in (
            f"echo x > {AT}/new",
            f"mkdir {AT}/new",
            f"mv {AT}/a {AT}/b",
            f"ln -s / {AT}/l",
            f"rmdir {AT}/a",
        ):
            assert (await box.run("/bin/sh", "-c", script, user="root"))[0] != 0, script
        assert (await box.run("/bin/ls", AT, user="user"))[0] != 0, "programs see volumes at their paths only"
        assert os.listdir(rig.volumes.directory(box.boot.sandbox_id)) == ["a"]


async def programs_cannot_lead_the_mount_astray(rig: Rig) -> None:
    async with volumes(rig, "a"), rig.box(volumes=[("a", False)]) as box:
        for source in ("/etc", f"{AT}/../link", f"{AT}/", f"{AT}/a/b"):
            with pytest.raises(InvalidRequest):
                await box.link.mount(source, "/data")
        await box.output("echo x > /tmp/file")
        for target in ("/tmp/file", "/tmp/file/below", "/proc/1/data"):
            with pytest.raises(FileError):
                await box.link.mount(f"{AT}/a", target)
        with pytest.raises(FileError):
            await box.link.mount(f"{AT}/missing", "/data")
        assert (await box.run("/bin/sh", "-c", f"mount --bind {AT}/a /mnt", user="root"))[0] != 0


async def what_a_volume_holds_is_no_way_to_the_host(rig: Rig) -> None:
    """Links, devices and sockets in it mean what they mean inside."""
    async with volumes(rig, "a"):
        async with rig.volumes.use("a") as root:
            (root / "link").symlink_to("/etc/hostname")
            (root / "up").symlink_to("../../../../../../../../etc/hostname")
            os.mknod(root / "disk", 0o666 | 0o060000, os.stat("/").st_dev)
            os.mkfifo(root / "fifo")
        async with rig.box(volumes=[("a", False)]) as box:
            await box.link.mount(f"{AT}/a", "/data")
            assert await box.output("cat /data/link") == await box.output("cat /etc/hostname")
            assert await box.output("cat /data/up") == await box.output("cat /etc/hostname")
            assert (await box.run("/bin/sh", "-c", "head -c 1 /data/disk", user="root"))[0] != 0
            await box.output("ls -l /data && rm /data/fifo")


async def memory_and_its_volumes_are_restored_together(rig: Rig) -> None:
    image, disk = rig.directory / "volumes-checkpoint", rig.directory / "volumes-disk.img"
    async with volumes(rig, "a"):
        async with rig.box(volumes=[("a", False)]) as box:
            await box.link.mount(f"{AT}/a", "/data")
            await box.output("echo x > /data/file")
            await _checkpoint(rig, box, image, disk)
        async with rig.box(volumes=[("a", False)], checkpoint=image, disk=disk) as box:
            assert await box.output("cat /data/file") == "x"
            await box.link.mount(f"{AT}/a", "/data")
            assert await box.output("grep -c ' /data ' /proc/mounts") == "1"
            await box.output("echo y > /data/file")
            async with rig.volumes.use("a") as root:
                assert (root / "file").read_text() == "y\n"


async def _checkpoint(rig: Rig, box: Box, image: object, disk: object) -> None:
    await box.listener.hold()
    await rig.driver.checkpoint(box.boot.sandbox_id, image, keep_running=False)  # type: ignore[arg-type]
    await rig.disks.export(box.boot.sandbox_id, disk)  # type: ignore[arg-type]


VOLUME_CHECKS = (
    volumes_appear_in_a_running_sandbox,
    nobody_writes_to_a_read_only_volume,
    a_full_volume_hurts_nobody_else,
    nothing_can_be_made_beside_the_volumes,
    programs_cannot_lead_the_mount_astray,
    what_a_volume_holds_is_no_way_to_the_host,
    memory_and_its_volumes_are_restored_together,
)
