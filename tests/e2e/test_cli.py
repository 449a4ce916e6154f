"""The command line, as a person types it."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry import Sandbox

from .conftest import Server


class Cli:
    def __init__(self, server: Server | None) -> None:
        self.environment = dict(os.environ)
        if server is not None:
            self.environment |= {"SKERRY_API_URL": server.api_url, "SKERRY_API_KEY": server.api_key}

    def __call__(self, *arguments: str, stdin: str = "", status: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "skerry", *arguments], input=stdin, capture_output=True, text=True, timeout=100,
            env=self.environment, check=False,
        )  # fmt: skip
        assert done.returncode == status, done
        self.stderr = done.stderr
        return done.stdout


@pytest.fixture
def cli(server: Server) -> Cli:
    return Cli(server)


@pytest.fixture
def sandbox(server: Server) -> Iterator[Sandbox]:
    with server.sandbox() as sandbox:
        yield sandbox


@pytest.mark.parametrize("arguments", [["nosuch"], ["run", "--bad"], ["key"], ["key", "nosuch"], ["exec"], []])
def test_a_wrong_command_line_is_told_and_answered_2(cli: Cli, arguments: list[str]) -> None:
    told = cli(*arguments, status=2) + cli.stderr
    assert "Usage: " in told
    assert "Traceback" not in told


def test_code_runs_and_its_result_is_printed(cli: Cli) -> None:
    assert cli("run", "-c", "print('hello')\n6 * 7") == "hello\n42\n"
    assert cli("run", stdin="1 + 1") == "2\n"
    assert json.loads(cli("run", "--json", "-c", "3"))["text"] == "3"
    cli("run", "-c", "1/0", status=1)
    assert "ZeroDivisionError" in cli.stderr


def test_a_program_runs_with_its_arguments_and_status(cli: Cli, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os, sys\nprint(sys.argv[1:], os.environ['E'])\nsys.exit(5)")
    assert cli("run", "-e", "E=f", str(program), "--", "-x", "y", status=5) == "['-x', 'y'] f\n"
    script = tmp_path / "program.js"
    script.write_text("console.log('from node')")
    assert cli("run", str(script)) == "from node\n"
    cli("run", str(tmp_path / "missing.py"), status=1)
    assert "Traceback" not in cli.stderr
    assert "missing.py" in cli.stderr


def test_ctrl_c_cancels_and_destroys(cli: Cli, server: Server) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "skerry", "run", "-c", "print('started')\nimport time\ntime.sleep(600)"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=cli.environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # ignored in background jobs
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    before = json.loads(cli("ls", "--json"))
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    process.stdout.close()
    after = json.loads(cli("ls", "--json"))
    assert len(after) == len(before) - 1


def test_sandboxes_are_listed_used_and_killed(cli: Cli, sandbox: Sandbox) -> None:
    assert sandbox.id in cli("ls")
    assert cli("exec", sandbox.id, "--", "sh", "-c", "echo out; exit 4", status=4) == "out\n"
    assert cli("exec", "-i", sandbox.id, "cat", stdin="passed on") == "passed on"
    process = sandbox.exec("echo logged; sleep 100", background=True)
    assert "sleep 100" in cli("ps", sandbox.id)
    process.kill()
    assert "logged" in cli("logs", sandbox.id, "--pid", str(process.pid))
    assert "sandbox.running" in cli("logs", sandbox.id)
    cli("kill", sandbox.id)
    assert sandbox.id not in cli("ls")
    assert "killed" in cli("ls", "--all")


def test_a_sandbox_rests_and_goes_on(cli: Cli) -> None:
    name = cli("create", "--timeout", "none", "--metadata", "made=here").strip()
    cli("exec", name, "--", "sh", "-c", "echo 1 > file")
    assert cli("pause", name) == f"{name}  in memory\n"
    assert "paused" in cli("ls")
    assert "in memory" in cli("ls")
    assert cli("pause", "--disk", name).startswith(f"{name}  all on disk, ")
    assert "all on disk" in cli("ls", "--metadata", "made=here")
    assert cli("resume", "--timeout", "100", name) == f"{name}\n"
    [shown] = json.loads(cli("ls", "--json", "--metadata", "made=here"))
    assert (shown["state"], shown["timeout_s"], shown["rest"]) == ("running", 100, None)
    assert json.loads(cli("pause", "--files-only", "--json", name))[0]["rest"]["memory"] is False
    assert cli("exec", name, "cat", "file") == "1\n"
    assert cli("stop", "--grace", "0", name).startswith(f"{name}  files on disk")
    cli("exec", name, "true", status=1)
    assert "start it first" in cli.stderr
    assert cli("start", "--timeout", "none", name) == f"{name}\n"
    cli("pause", name, "sbnosuch", status=1)
    assert "sandbox.not_found" in cli.stderr
    assert name in cli("ls")
    cli("kill", name)


def test_copies_are_kept_listed_started_and_removed(cli: Cli, sandbox: Sandbox) -> None:
    sandbox.files.write("file", "then")
    assert "stood still for" in cli("snapshot", sandbox.id, "cli-then")
    sandbox.files.write("file", "now")
    other = json.loads(cli("snapshot", "--files-only", "--json", sandbox.id))
    listed = cli("snapshots", "ls", "--sandbox", sandbox.id)
    assert "cli-then" in listed
    assert other["id"] in listed
    made = cli("create", "--snapshot", "cli-then").strip()
    assert cli("exec", made, "cat", "file") == "then"
    copies = cli("fork", sandbox.id, "-n", "2", "--timeout", "100").split()
    assert len(copies) == 2
    assert cli("exec", copies[0], "cat", "file") == "now"
    assert cli("rollback", sandbox.id, "cli-then") == f"{sandbox.id}\n"
    assert cli("exec", sandbox.id, "cat", "file") == "then"
    cli("snapshots", "rm", "cli-then", other["id"])
    cli("rollback", sandbox.id, "cli-then", status=1)
    assert "snapshot.not_found" in cli.stderr
    cli("kill", made, *copies)


def test_files_and_folders_are_copied_both_ways(cli: Cli, sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(b"\0\xff" * 100_000)
    (folder / "run.sh").write_text("#!/bin/sh\necho ran")
    (folder / "run.sh").chmod(0o755)
    cli("cp", str(folder), f"{sandbox.id}:copied")
    assert sandbox.exec("./copied/run.sh").stdout == "ran\n"
    cli("cp", f"{sandbox.id}:copied", str(tmp_path / "back"))
    assert (tmp_path / "back" / "deep" / "file").read_bytes() == (folder / "deep" / "file").read_bytes()
    cli("cp", str(folder / "run.sh"), f"{sandbox.id}:/tmp/")
    assert sandbox.files.exists("/tmp/run.sh")
    cli("cp", "a", "b", status=1)


def test_keys_are_made_used_and_revoked(cli: Cli, server: Server) -> None:
    made = json.loads(cli("key", "create", "test", "--json"))
    other = Cli(server)
    other.environment["SKERRY_API_KEY"] = made["secret"]
    assert made["id"] in other("key", "list")
    cli("key", "revoke", made["id"])
    other("ls", status=1)
    assert "auth.invalid" in other.stderr


def test_templates_are_listed_and_building_twice_is_nothing(cli: Cli) -> None:
    assert "base" in cli("template", "ls")
    assert json.loads(cli("template", "build", "base", "--json"))["name"] == "base"
    cli("template", "build", "no-such", status=1)
    assert "template.not_found" in cli.stderr


def test_an_interactive_shell(cli: Cli, sandbox: Sandbox) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-m", "skerry", "shell", sandbox.id], cli.environment)
    try:
        _expect(terminal, b"$ ")
        os.write(terminal, b"echo si''zed; stty size\n")
        _expect(terminal, b"sized\r\n")
        os.write(terminal, b"exit 8\n")
        deadline = time.monotonic() + 20
        while (status := os.waitpid(pid, os.WNOHANG))[0] == 0:
            assert time.monotonic() < deadline
            _drain(terminal)
        assert os.waitstatus_to_exitcode(status[1]) == 8
    finally:
        os.close(terminal)


def _expect(terminal: int, wanted: bytes) -> None:
    seen = b""
    while wanted not in seen:
        ready, _, _ = select.select([terminal], [], [], 20)
        assert ready, seen
        seen += os.read(terminal, 4096)


def _drain(terminal: int) -> None:
    if select.select([terminal], [], [], 0.1)[0]:
        try:
            os.read(terminal, 4096)
        except OSError:
            time.sleep(0.05)


def test_without_a_server_one_is_started_for_the_call(tmp_path: Path) -> None:
    cli = Cli(None)
    cli.environment |= {"SKERRY_API_KEY": "none", "HOME": str(tmp_path), "SKERRY_SUBNET": "10.218.0.0/16"}
    cli.environment.pop("SKERRY_API_URL", None)
    assert cli("run", "-c", "'embedded'") == "'embedded'\n"
    assert "starting one" in cli.stderr


def test_no_server_at_the_address_given_is_said(cli: Cli) -> None:
    cli.environment["SKERRY_API_URL"] = "http://127.0.0.1:9"
    cli("ls", status=1)
    assert "server.unreachable" in cli.stderr
    assert "skerry up" in cli.stderr


def test_doctor_and_version(cli: Cli) -> None:
    checks = json.loads(cli("doctor", "--json"))
    assert all(check["ok"] for check in checks)
    assert {"gVisor", "control groups"} <= {check["name"] for check in checks}
    assert cli("--version").startswith("skerry ")
