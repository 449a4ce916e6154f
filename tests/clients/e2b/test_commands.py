"""Commands, their input and output, terminals."""

import time

import pytest
from e2b import (
    AuthenticationException,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    TimeoutException,
)


def test_output_status_and_surroundings(sandbox):
    done = sandbox.commands.run("echo $GLOBAL; echo $OWN; id -un; pwd; echo error >&2", envs={"OWN": "of the command"})
    assert done.stdout == "of the sandbox\nof the command\nuser\n/home/user\n"
    assert done.stderr == "error\n"
    assert done.exit_code == 0
    assert sandbox.commands.run("id -un; pwd", user="root", cwd="/tmp").stdout == "root\n/tmp\n"


def test_output_comes_as_it_is_written(sandbox):
    pieces = []
    sandbox.commands.run("echo a; sleep 1; echo ü", on_stdout=lambda data: pieces.append((time.monotonic(), data)))
    assert "".join(piece for _, piece in pieces) == "a\nü\n"
    assert pieces[-1][0] - pieces[0][0] > 0.5


def test_failures(sandbox):
    with pytest.raises(CommandExitException) as failed:
        sandbox.commands.run("echo before; exit 3")
    assert failed.value.exit_code == 3
    assert failed.value.stdout == "before\n"
    with pytest.raises(CommandExitException) as killed:
        sandbox.commands.run("kill -9 $$")
    assert killed.value.exit_code != 0
    with pytest.raises(TimeoutException):
        sandbox.commands.run("sleep 30", timeout=1)
    with pytest.raises(InvalidArgumentException, match="cwd '/nowhere' does not exist"):
        sandbox.commands.run("true", cwd="/nowhere")
    with pytest.raises(AuthenticationException, match="invalid username: 'nobody-here'"):
        sandbox.commands.run("true", user="nobody-here")


def test_background_commands(sandbox):
    handle = sandbox.commands.run("cat", background=True, stdin=True)
    assert [process.pid for process in sandbox.commands.list()] == [handle.pid]
    sandbox.commands.send_stdin(handle.pid, "through the pipe\n")
    again = sandbox.commands.connect(handle.pid)
    sandbox.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == "through the pipe\n"
    assert again.wait().exit_code == 0
    assert sandbox.commands.kill(handle.pid) is False
    with pytest.raises(NotFoundException):
        sandbox.commands.connect(999_999)


def test_a_kill_takes_what_was_started_too(sandbox):
    handle = sandbox.commands.run("sleep 4321 & sleep 4321", background=True)
    assert sandbox.commands.kill(handle.pid) is True
    assert sandbox.commands.run("pgrep -f 'sleep 432[1]' || echo none").stdout == "none\n"


def test_a_large_output_arrives_whole(sandbox):
    done = sandbox.commands.run("head -c 3000000 /dev/zero | tr '\\0' x")
    assert done.stdout == "x" * 3_000_000


def test_terminals(sandbox):
    output = []
    terminal = sandbox.pty.create(PtySize(rows=20, cols=70))
    sandbox.pty.send_stdin(terminal.pid, b"stty size; touch /tmp/first\n")
    while not sandbox.files.exists("/tmp/first"):
        time.sleep(0.1)
    sandbox.pty.resize(terminal.pid, PtySize(rows=30, cols=99))
    sandbox.pty.send_stdin(terminal.pid, b"stty size; exit\n")
    assert terminal.wait(on_pty=output.append).exit_code == 0
    assert b"20 70" in b"".join(output)
    assert b"30 99" in b"".join(output)


async def test_asynchronously(async_sandbox):
    commands = async_sandbox.commands
    seen = []
    done = await commands.run("echo $GLOBAL; echo error >&2", on_stdout=seen.append, on_stderr=seen.append, cwd="/tmp")
    assert (done.stdout, done.stderr, done.exit_code) == ("of the sandbox\n", "error\n", 0)
    assert sorted(seen) == ["error\n", "of the sandbox\n"]
    handle = await commands.run("cat", background=True, stdin=True)
    assert [process.pid for process in await commands.list()] == [handle.pid]
    again = await commands.connect(handle.pid)
    await commands.send_stdin(handle.pid, "async\n")
    await commands.close_stdin(handle.pid)
    assert (await handle.wait()).stdout == "async\n"
    assert (await again.wait()).exit_code == 0
    forever = await commands.run("sleep 4321", background=True)
    assert await commands.kill(forever.pid) is True
    with pytest.raises(CommandExitException):
        await forever.wait()
    assert await commands.kill(forever.pid) is False
    with pytest.raises(TimeoutException):
        await commands.run("sleep 30", timeout=1)
    with pytest.raises(CommandExitException):
        await commands.run("exit 3")
    with pytest.raises(NotFoundException):
        await commands.connect(999_999)


async def test_terminals_asynchronously(async_sandbox):
    output = []
    terminal = await async_sandbox.pty.create(PtySize(rows=20, cols=70), on_data=output.append)
    await async_sandbox.pty.resize(terminal.pid, PtySize(rows=30, cols=99))
    await async_sandbox.pty.send_stdin(terminal.pid, b"stty size; echo $((6 * 7)); exit\n")
    await terminal.wait()
    assert b"42" in b"".join(output)
    assert b"30 99" in b"".join(output)
    other = await async_sandbox.pty.create(PtySize(rows=20, cols=70), on_data=output.append)
    assert await async_sandbox.pty.kill(other.pid) is True


def test_git(sandbox):
    git = sandbox.git
    git.init("/tmp/repository", initial_branch="main")
    git.configure_user("Somebody", "somebody@example.com")
    sandbox.files.write("/tmp/repository/file", "content")
    assert [entry.name for entry in git.status("/tmp/repository").file_status] == ["file"]
    git.add("/tmp/repository")
    git.commit("/tmp/repository", "the first")
    assert git.status("/tmp/repository").file_status == []
    git.create_branch("/tmp/repository", "other")
    assert git.branches("/tmp/repository").current_branch == "other"
    git.clone("/tmp/repository", path="/tmp/cloned")
    assert sandbox.files.read("/tmp/cloned/file") == "content"
