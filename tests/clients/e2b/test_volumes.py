"""Volumes, through E2B's client: with a sandbox and without."""

import datetime
import io
import uuid

import pytest
from e2b import AsyncVolume, Volume
from e2b.exceptions import VolumeException, VolumeNotFoundException, VolumePathNotFoundException
from e2b_code_interpreter import AsyncSandbox, Sandbox


@pytest.fixture
def volume():
    volume = Volume.create(f"volume-{uuid.uuid4().hex[:8]}")
    yield volume
    Volume.destroy(volume.volume_id)


def test_a_volume_from_its_making_to_its_end():
    made = Volume.create(f"made-{uuid.uuid4().hex[:8]}")
    assert made.token
    assert (made.volume_id, made.name) in [(item.volume_id, item.name) for item in Volume.list()]
    found = Volume.connect(made.volume_id)
    assert (found.name, found.token) == (made.name, made.token)
    assert Volume.get_info(made.volume_id).name == made.name
    with pytest.raises(VolumeException, match="409"):
        Volume.create(made.name)
    assert Volume.destroy(made.volume_id) is True
    assert Volume.destroy(made.volume_id) is False
    with pytest.raises(VolumeNotFoundException):
        Volume.connect(made.volume_id)
    with pytest.raises(VolumeException, match="400"):
        Volume.create("no such/name")


def test_content(volume):
    written = volume.write_file("/a/file.txt", "text", mode=0o600, uid=5, gid=6)
    assert (written.name, written.path, written.size) == ("file.txt", "/a/file.txt", 4)
    assert (written.mode & 0o777, written.uid, written.gid, written.type.value) == (0o600, 5, 6, "file")
    assert written.mtime.tzinfo is not None
    assert abs(written.ctime - datetime.datetime.now(datetime.UTC)) < datetime.timedelta(minutes=5)
    assert volume.read_file("/a/file.txt") == "text"
    assert volume.read_file("a/file.txt", format="bytes") == b"text"
    volume.write_file("/a/file.txt", io.BytesIO(b"x" * 3_000_000))
    assert b"".join(volume.read_file("/a/file.txt", format="stream")) == b"x" * 3_000_000
    made = volume.make_dir("/d/e", force=True, mode=0o750)
    assert (made.type.value, made.mode & 0o777) == ("directory", 0o750)
    with pytest.raises(VolumeException):
        volume.make_dir("/d/e")
    with pytest.raises(VolumePathNotFoundException):
        volume.make_dir("/x/y/z")
    assert [item.path for item in volume.list("/")] == ["/a", "/d"]
    assert [item.path for item in volume.list("/", depth=2)] == ["/a", "/a/file.txt", "/d", "/d/e"]
    changed = volume.update_metadata("/a/file.txt", mode=0o644, uid=1000)
    assert (changed.mode & 0o777, changed.uid) == (0o644, 1000)
    assert volume.exists("/a/file.txt")
    assert not volume.exists("/none")
    assert volume.get_info("/d").type.value == "directory"
    with pytest.raises(VolumePathNotFoundException):
        volume.read_file("/none")
    with pytest.raises(VolumeException):
        volume.read_file("/a")
    volume.remove("/a")
    assert not volume.exists("/a/file.txt")
    with pytest.raises(VolumePathNotFoundException):
        volume.remove("/a")


def test_only_its_own_token_opens_it(volume):
    other = Volume.create(f"other-{uuid.uuid4().hex[:8]}")
    try:
        for token in ("nonsense", other.token):
            stranger = Volume(volume.volume_id, volume.name, token=token)
            with pytest.raises(Exception, match=r"401|uthenti|token"):
                stranger.list("/")
    finally:
        Volume.destroy(other.volume_id)


def test_no_path_leads_out(volume):
    with Sandbox.create("base", timeout=60, volume_mounts={"/data": volume}) as sandbox:
        sandbox.commands.run("ln -s / /data/out")
    for path in ("/out/etc/passwd", "/../etc/passwd", "out"):
        with pytest.raises(VolumeException):
            volume.read_file(path)
        with pytest.raises(VolumeException):
            volume.write_file(path, "evil")
    info = volume.get_info("/out")
    assert (info.type.value, info.target) == ("symlink", "/")


def test_sandboxes_share_it(volume):
    volume.write_file("/in", "from outside")
    with Sandbox.create("base", timeout=60, volume_mounts={"/mnt/data": volume}) as first:
        assert first.get_info().volume_mounts == [{"name": volume.name, "path": "/mnt/data"}]
        assert first.files.read("/mnt/data/in") == "from outside"
        first.commands.run("echo inside > /mnt/data/out")
        with pytest.raises(VolumeException):
            Volume.destroy(volume.volume_id)
        with Sandbox.create("base", timeout=60, volume_mounts={"/mnt/data": volume.name}) as second:
            assert second.commands.run("cat /mnt/data/out").stdout == "inside\n"
    assert volume.read_file("/out") == "inside\n"


def test_a_volume_that_is_not_there_is_no_reason_to_go_without():
    with pytest.raises(Exception, match="volume"):
        Sandbox.create("base", timeout=60, volume_mounts={"/data": "none-of-that-name"})
    with pytest.raises(Exception, match="mount"):
        Sandbox.create("base", timeout=60, volume_mounts={"/proc": "none-of-that-name"})


async def test_volumes_awaited():
    volume = await AsyncVolume.create(f"async-{uuid.uuid4().hex[:8]}")
    try:
        await volume.write_file("/file", "text")
        async with await AsyncSandbox.create("base", timeout=60, volume_mounts={"/data": volume}) as sandbox:
            assert await sandbox.files.read("/data/file") == "text"
            await sandbox.files.write("/data/file", "changed")
        assert await volume.read_file("/file") == "changed"
        assert [item.name for item in await volume.list("/")] == ["file"]
        assert volume.volume_id in [item.volume_id for item in await AsyncVolume.list()]
    finally:
        assert await AsyncVolume.destroy(volume.volume_id) is True
