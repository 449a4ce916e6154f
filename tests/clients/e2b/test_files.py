"""Files, their content and what happens to them."""

import asyncio

import pytest
from e2b import FileNotFoundException, FilesystemEventType, FileType, InvalidArgumentException


def test_content_of_every_kind(sandbox):
    assert sandbox.files.write("text.txt", "grüße\n").path == "/home/user/text.txt"
    assert sandbox.files.read("/home/user/text.txt") == "grüße\n"
    data = bytes(range(256)) * 4096
    sandbox.files.write("/tmp/new/folders/binary", data)
    assert bytes(sandbox.files.read("/tmp/new/folders/binary", format="bytes")) == data
    assert b"".join(sandbox.files.read("/tmp/new/folders/binary", format="stream")) == data
    sandbox.files.write("empty", "")
    assert sandbox.files.read("empty") == ""


def test_compressed_content(sandbox):
    data = b"much the same, " * 200_000
    sandbox.files.write("/tmp/packed", data, gzip=True)
    assert bytes(sandbox.files.read("/tmp/packed", format="bytes")) == data
    assert bytes(sandbox.files.read("/tmp/packed", format="bytes", gzip=True)) == data
    assert b"".join(sandbox.files.read("/tmp/packed", format="stream", gzip=True)) == data
    with pytest.raises(FileNotFoundException):
        sandbox.files.read("/tmp/nothing", gzip=True)


def test_many_at_once(sandbox):
    written = sandbox.files.write_files([{"path": f"/tmp/many/{n}", "data": f"file {n}"} for n in range(10)])
    assert [info.path for info in written] == [f"/tmp/many/{n}" for n in range(10)]
    assert sandbox.files.read("/tmp/many/7") == "file 7"


def test_looking_around(sandbox):
    sandbox.files.write("/tmp/tree/a/b/file", "12345")
    sandbox.commands.run(
        "ln -s /tmp/tree/a/b/file /tmp/tree/link; ln -s /nowhere /tmp/tree/dangling; chmod 640 /tmp/tree/a/b/file"
    )
    entries = {entry.path: entry for entry in sandbox.files.list("/tmp/tree", depth=3)}
    assert list(entries) == [
        "/tmp/tree/a",
        "/tmp/tree/a/b",
        "/tmp/tree/a/b/file",
        "/tmp/tree/dangling",
        "/tmp/tree/link",
    ]
    file = entries["/tmp/tree/a/b/file"]
    assert (file.name, file.type, file.size, file.permissions, file.owner) == (
        "file",
        FileType.FILE,
        5,
        "-rw-r-----",
        "user",
    )
    assert entries["/tmp/tree/a"].type == FileType.DIR
    # Newer clients call a link a link.
    assert entries["/tmp/tree/link"].type in (FileType.FILE, getattr(FileType, "SYMLINK", FileType.FILE))
    assert entries["/tmp/tree/link"].symlink_target == "/tmp/tree/a/b/file"
    assert [entry.name for entry in sandbox.files.list("/tmp/tree")] == ["a", "dangling", "link"]
    assert sandbox.files.exists("/tmp/tree/a")
    assert not sandbox.files.exists("/tmp/tree/c")
    assert sandbox.files.get_info("/tmp/tree/a/b/file").size == 5


def test_metadata_goes_with_the_file(sandbox):
    noted = {"author": "somebody", "purpose": "a test"}
    assert sandbox.files.write("noted", "x", metadata={"Author": "somebody", "purpose": "a test"}).metadata == noted
    assert sandbox.files.get_info("noted").metadata == noted
    assert {entry.name: entry.metadata for entry in sandbox.files.list(".")}["noted"] == noted
    assert sandbox.files.rename("noted", "renamed").metadata == noted
    sandbox.commands.run("mv renamed again")
    assert sandbox.files.get_info("again").metadata == noted
    assert sandbox.files.write("again", "y").metadata is None
    assert sandbox.files.get_info("again").metadata is None
    several = sandbox.files.write_files([{"path": f"/srv/m/{n}", "data": "x"} for n in range(3)], metadata=noted)
    assert [info.metadata for info in several] == [noted] * 3
    with pytest.raises(InvalidArgumentException, match="limit is 4096"):
        sandbox.files.write("much", "x", metadata={"k": "v" * 5000})
    assert not sandbox.files.exists("much")


def test_what_the_user_may_not_make_is_made_and_given_to_the_user(sandbox):
    assert sandbox.files.make_dir("/workspace/deep") is True
    assert sandbox.files.make_dir("/workspace/deep") is False
    for content in ("first", "second"):
        sandbox.files.write("/app/src/main.py", content)
        assert sandbox.files.write("/opt/file", content).path == "/opt/file"
    sandbox.files.write("/opt/by-root", "x", user="root")
    assert sandbox.files.read("/app/src/main.py") == "second"
    paths = "/workspace /workspace/deep /app /app/src /app/src/main.py /opt/file /opt/by-root /opt"
    owners = sandbox.commands.run(f"touch /workspace/deep/mine && stat -c %U:%G {paths}").stdout.split()
    assert owners == ["user:user"] * 6 + ["root:root"] * 2


def test_changes(sandbox):
    assert sandbox.files.make_dir("/tmp/made/deep") is True
    assert sandbox.files.make_dir("/tmp/made/deep") is False
    sandbox.files.write("/tmp/made/old", "content")
    assert sandbox.files.rename("/tmp/made/old", "/tmp/made/new").path == "/tmp/made/new"
    assert sandbox.files.read("/tmp/made/new") == "content"
    sandbox.files.remove("/tmp/made")
    assert not sandbox.files.exists("/tmp/made")
    sandbox.files.remove("/tmp/made")


def test_mistakes_are_told(sandbox):
    with pytest.raises(FileNotFoundException):
        sandbox.files.read("/nowhere")
    with pytest.raises(FileNotFoundException):
        sandbox.files.list("/nowhere")
    with pytest.raises(FileNotFoundException):
        sandbox.files.rename("/nowhere", "/tmp/x")
    with pytest.raises(FileNotFoundException):
        sandbox.files.watch_dir("/nowhere")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.read("/tmp")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.list("/etc/hostname")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.watch_dir("/etc/hostname")


def test_watching(sandbox):
    sandbox.files.make_dir("/tmp/watched/inner")
    watcher = sandbox.files.watch_dir("/tmp/watched", recursive=True)
    sandbox.files.write("/tmp/watched/new", "x")
    sandbox.files.write("/tmp/watched/inner/deep", "x")
    sandbox.files.remove("/tmp/watched/new")
    events = []
    while ("new", FilesystemEventType.REMOVE) not in events:
        events += [(event.name, event.type) for event in watcher.get_new_events()]
    assert ("new", FilesystemEventType.CREATE) in events
    assert ("inner/deep", FilesystemEventType.CREATE) in events
    assert ("new", FilesystemEventType.REMOVE) in events
    assert watcher.get_new_events() == []
    watcher.stop()


async def test_asynchronously(async_sandbox):
    seen = []
    await async_sandbox.files.make_dir("/tmp/watched")
    watcher = await async_sandbox.files.watch_dir("/tmp/watched", on_event=seen.append)
    await async_sandbox.files.write("/tmp/watched/new", b"\x00\x01")
    assert bytes(await async_sandbox.files.read("/tmp/watched/new", format="bytes")) == b"\x00\x01"
    for _ in range(50):
        if seen:
            break
        await asyncio.sleep(0.1)
    assert (seen[0].name, seen[0].type) == ("new", FilesystemEventType.CREATE)
    await watcher.stop()


async def test_every_call_asynchronously(async_sandbox):
    files = async_sandbox.files
    noted = {"author": "somebody"}
    assert (await files.write("text.txt", "grüße", metadata=noted)).path == "/home/user/text.txt"
    assert await files.read("text.txt") == "grüße"
    written = await files.write_files([{"path": f"/srv/many/{n}", "data": f"file {n}"} for n in range(3)])
    assert [info.path for info in written] == [f"/srv/many/{n}" for n in range(3)]
    assert b"".join([chunk async for chunk in await files.read("/srv/many/2", format="stream")]) == b"file 2"
    info = await files.get_info("text.txt")
    assert (info.name, info.type, info.size, info.owner, info.metadata) == ("text.txt", FileType.FILE, 7, "user", noted)
    assert await files.make_dir("/srv/many/deep/er") is True
    assert await files.make_dir("/srv/many/deep/er") is False
    listed = [entry.path for entry in await files.list("/srv/many", depth=2)]
    assert listed == ["/srv/many/0", "/srv/many/1", "/srv/many/2", "/srv/many/deep", "/srv/many/deep/er"]
    assert (await files.rename("text.txt", "renamed.txt")).metadata == noted
    assert await files.exists("renamed.txt")
    await files.remove("renamed.txt")
    assert not await files.exists("renamed.txt")
    with pytest.raises(FileNotFoundException):
        await files.read("renamed.txt")
    with pytest.raises(InvalidArgumentException):
        await files.list("/srv/many/0")
