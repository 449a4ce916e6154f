"""Programs that try to take the machine, or the sandbox, down with them. Each must end in an outcome its owner would call right:
the limit holds, the sandbox says what happened, and the sandbox next door does not notice."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from skerry import Sandbox
from skerry.errors import Error, SandboxLost, SandboxNotRunning
from skerry.models import EndCode, SandboxState

from .conftest import Server, eventually


@pytest.fixture
def sandbox(server: Server) -> Iterator[Sandbox]:
    with server.sandbox(memory=512, disk=512, pids=128, timeout=120) as sandbox:
        yield sandbox


@pytest.fixture
def neighbour(server: Server) -> Iterator[Sandbox]:
    with server.sandbox() as sandbox:
        assert sandbox.exec(["echo", "before"]).stdout == "before\n"
        yield sandbox
        assert sandbox.exec(["echo", "after"]).stdout == "after\n"


def test_a_fork_bomb_meets_the_process_limit_and_nothing_else(sandbox: Sandbox, neighbour: Sandbox) -> None:
    bomb = sandbox.exec(
        ["python3", "-c", "import os,time\nn=0\ntry:\n  while True:\n    if os.fork()==0: time.sleep(60); os._exit(0)\n    n+=1\n"
         "except OSError as e: print(n, e.errno, flush=True)"],
        timeout=60,
    )  # fmt: skip
    forks, errno = bomb.stdout.split()
    assert int(errno) == 11, "EAGAIN is what a program expects at the limit"
    assert int(forks) <= 128
    assert sandbox.files.list("/home") != [], "the agent still answers"


EATER = "blocks = []\nwhile True: blocks.append(bytearray(16 << 20))"


@pytest.mark.parametrize("how", ["exec", "run_code"])
def test_a_memory_bomb_ends_its_sandbox_and_is_called_so(sandbox: Sandbox, neighbour: Sandbox, how: str) -> None:
    with suppress(SandboxLost, SandboxNotRunning):  # its end may come before the answer
        if how == "exec":
            assert sandbox.exec(["python3", "-c", EATER], timeout=90).reason == "out_of_memory"
        else:
            assert "memory" in sandbox.run_code(EATER, timeout=90).error.value
    end = eventually(lambda: sandbox.info().end)
    assert end.code is EndCode.OUT_OF_MEMORY
    assert "512 MiB" in end.message


def test_a_full_disk_is_an_error_of_the_program_and_can_be_mended(sandbox: Sandbox, neighbour: Sandbox) -> None:
    full = sandbox.exec("dd if=/dev/zero of=/home/user/big bs=1M count=2000", timeout=90)
    assert full.returncode != 0
    assert "No space left on device" in full.stderr
    sandbox.files.remove("/home/user/big")
    sandbox.files.write("/home/user/small", "fits again")
    assert sandbox.files.read("/home/user/small") == "fits again"


def test_files_without_content_meet_the_inode_limit(sandbox: Sandbox) -> None:
    code = "import os\nos.mkdir('/home/user/d')\nfor i in range(10**6): open(f'/home/user/d/{i}', 'w').close()"
    ended = sandbox.exec(["python3", "-c", code], timeout=100)
    assert "No space left on device" in ended.stderr
    assert sandbox.exec("rm -r /home/user/d && echo mended", timeout=60).stdout == "mended\n"


def test_upload_over_the_disk_limit_changes_nothing(sandbox: Sandbox) -> None:
    sandbox.files.write("/home/user/f", "old")
    before = {entry.name for entry in sandbox.files.list("/home/user")}
    with pytest.raises(Error) as caught:
        sandbox.files.write("/home/user/f", b"x" * (600 << 20))
    assert caught.value.code == "file.no_space"
    assert sandbox.files.read("/home/user/f") == "old"
    assert {entry.name for entry in sandbox.files.list("/home/user")} == before


def test_endless_output_is_cut_and_said_to_be(sandbox: Sandbox, neighbour: Sandbox, server: Server) -> None:
    before = server.memory_mib()
    ended = sandbox.exec("yes | head -c 300000000", timeout=100)
    assert ended.truncated
    assert len(ended.stdout) <= 16 << 20
    assert ended.returncode == 0
    assert server.memory_mib() - before < 150, "the server holds a bounded part of it"


def test_a_very_long_line_streams_with_flat_memory(sandbox: Sandbox, server: Server) -> None:
    before = server.memory_mib()
    process = sandbox.exec("head -c 200000000 /dev/zero | tr '\\0' x", background=True)
    received = sum(len(chunk) for chunk in process.stdout)
    assert received == 200_000_000
    assert process.wait() == 0
    assert server.memory_mib() - before < 150


def test_run_code_output_flood_is_bounded(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("for _ in range(600_000): print('y' * 100)", timeout=100)
    assert execution.truncated
    assert sandbox.run_code("1 + 1").text == "2"


def test_descriptors_run_out_inside_only(sandbox: Sandbox, neighbour: Sandbox) -> None:
    code = "import os\nn = 0\ntry:\n  while True: os.open('/dev/null', os.O_RDONLY); n += 1\nexcept OSError as e: print(e.errno)"
    assert sandbox.exec(["python3", "-c", code], timeout=60).stdout == "24\n"
    assert sandbox.files.read("/etc/hostname") is not None


def test_zombies_and_daemons_end_with_the_sandbox(sandbox: Sandbox) -> None:
    code = "import os, time\nfor _ in range(40):\n  if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(300)\n    os._exit(0)"
    sandbox.exec(["python3", "-c", code], timeout=60)
    zombies = sandbox.exec("ps -eo stat= | grep -c '^Z' || true").stdout.strip()
    assert zombies == "0", "orphans are reaped"
    sandbox.kill()
    assert sandbox.info().state is SandboxState.DESTROYED


def test_a_process_that_ignores_sigterm_is_killed(sandbox: Sandbox) -> None:
    process = sandbox.exec("trap '' TERM; echo ready; while true; do sleep 1; done", background=True)
    assert next(iter(process.stdout)).startswith(b"ready")
    process.terminate()
    assert process.poll() is None
    process.kill()
    assert process.wait() == 137


def test_a_timeout_kills_the_whole_group(sandbox: Sandbox) -> None:
    ended = sandbox.exec("sleep 301 & sleep 302", timeout=2)
    assert ended.reason == "timeout"
    assert eventually(lambda: "30" not in sandbox.exec("pgrep -a sleep || true").stdout)


def test_sandboxed_code_cannot_touch_the_agent(sandbox: Sandbox) -> None:
    kill = sandbox.exec(["kill", "-9", "1"])
    assert kill.returncode != 0
    assert "not permitted" in kill.stderr.lower()
    assert sandbox.exec(["cat", "/run/skerry/link/token"]).returncode != 0
    trace = "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True); print(libc.ptrace(16, 1, 0, 0), ctypes.get_errno())"
    assert sandbox.exec(["python3", "-c", trace]).stdout.split()[0] == "-1"
    assert sandbox.exec(["echo", "still here"]).stdout == "still here\n"


def test_even_root_inside_cannot_mount_or_see_the_host(sandbox: Sandbox) -> None:
    assert sandbox.exec(["id", "-u"], user="root").stdout == "0\n"
    mount = sandbox.exec(["mount", "-t", "tmpfs", "none", "/mnt"], user="root")
    assert mount.returncode != 0
    assert "gVisor" in sandbox.exec(["dmesg"], user="root").stdout
    devices = sandbox.exec("ls /dev").stdout.split()
    assert not {"sda", "vda", "kvm", "loop0", "mem", "port"} & set(devices)


def test_no_descriptor_or_variable_of_the_host_is_inherited(sandbox: Sandbox) -> None:
    assert sandbox.exec("ls /proc/self/fd | sort -n | head -c 8").stdout.split()[:3] == ["0", "1", "2"]
    names = {line.split("=")[0] for line in sandbox.exec("env").stdout.splitlines()}
    assert names <= {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "PWD", "OLDPWD", "SHLVL", "_", "LC_ALL",
                     "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"}  # fmt: skip


def test_rm_rf_hurts_only_this_sandbox(sandbox: Sandbox, neighbour: Sandbox) -> None:
    sandbox.exec("rm -rf --no-preserve-root / 2>/dev/null", user="root", timeout=100)
    assert neighbour.exec(["ls", "/usr/bin/python3"]).returncode == 0
