"""The SDK against a real server: what a program sees."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from skerry import AsyncSandbox, Sandbox
from skerry.errors import (
    CannotStartProcess,
    ContextNotFound,
    FileExists,
    InvalidRequest,
    LanguageNotFound,
    SandboxNotFound,
    UserNotFound,
)
from skerry.models import EndCode, ExitReason, FileType, SandboxState, WatchEventType
from skerry.sdk.results import CommandFailed, ShownResult

from .conftest import Server, eventually


@pytest.fixture(scope="module")
def sandbox(server: Server) -> Iterator[Sandbox]:
    with server.sandbox(env={"GIVEN": "yes"}, metadata={"suite": "sdk"}) as sandbox:
        yield sandbox


# --- sandboxes --------------------------------------------------------------------------------------------------------


def test_a_sandbox_is_what_was_asked_for(server: Server) -> None:
    with server.sandbox(cpu=0.5, memory=300, pids=99, timeout=1000, metadata={"a": "b"}) as sandbox:
        info = sandbox.info()
        assert info.state is SandboxState.RUNNING
        assert info.isolation == "gvisor"
        assert (info.limits.cpu, info.limits.memory_mib, info.limits.pids) == (0.5, 300, 99)
        assert info.metadata == {"a": "b"}
        assert info.expires_at is not None
        assert 990 < (info.expires_at - info.created_at).total_seconds() < 1010
    assert sandbox.info().end.code is EndCode.KILLED


def test_a_disk_of_another_size_is_given(server: Server) -> None:
    with server.sandbox(disk=100) as sandbox:
        assert sandbox.exec("dd if=/dev/zero of=big bs=1M count=200 2>&1 | tail -1; stat -c %s big").returncode == 0
        assert sandbox.files.stat("big").size < 110 << 20


def test_sandboxes_are_listed_by_their_metadata(server: Server, sandbox: Sandbox) -> None:
    found = list(Sandbox.list(metadata={"suite": "sdk"}, api_url=server.api_url, api_key=server.api_key))
    assert [item.id for item in found] == [sandbox.id]


def test_a_timeout_ends_a_sandbox_and_can_be_moved(server: Server) -> None:
    ending, living = server.sandbox(timeout=2), server.sandbox(timeout=2)
    living.set_timeout(None)
    end = eventually(lambda: ending.info().end)
    assert end.code is EndCode.TIMEOUT
    assert living.info().state is SandboxState.RUNNING
    assert living.info().expires_at is None
    living.set_timeout(0.5)
    assert eventually(lambda: living.info().end).code is EndCode.TIMEOUT


def test_an_idle_sandbox_ends_and_a_used_one_does_not(server: Server) -> None:
    idle, used = server.sandbox(idle_timeout=1.5), server.sandbox(idle_timeout=1.5)
    process = used.exec(["sleep", "4"], background=True)
    assert process.wait() == 0, "an open stream is use"
    assert idle.info().end.code is EndCode.IDLE_TIMEOUT
    assert used.info().state is SandboxState.RUNNING
    used.kill()


def test_an_unknown_sandbox_is_not_found(server: Server) -> None:
    with pytest.raises(SandboxNotFound):
        server.connect("sb00000000000000000000")


def test_environment_metadata_and_stats(server: Server, sandbox: Sandbox) -> None:
    assert sandbox.exec("echo $GIVEN").stdout == "yes\n"
    assert sandbox.run_code("import os; os.environ['GIVEN']").text == "'yes'"
    assert sandbox.stats().memory_used_mib > 1
    assert sandbox.events()[0].type == "sandbox.running"
    assert sandbox.update(metadata={"suite": "sdk", "x": "y"}).metadata["x"] == "y"


# --- code -------------------------------------------------------------------------------------------------------------


def test_variables_are_kept_and_the_last_expression_is_the_result(sandbox: Sandbox) -> None:
    sandbox.run_code("x = 20")
    execution = sandbox.run_code("print('hello'); x += 1\nx * 2")
    assert (execution.text, execution.stdout, execution.error) == ("42", "hello\n", None)


def test_rich_results(sandbox: Sandbox) -> None:
    figure = sandbox.run_code("import matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()").results[0]
    assert figure.png is not None
    assert figure.png.startswith(b"\x89PNG")
    table = sandbox.run_code("import pandas as pd\npd.DataFrame({'a': [1, 2]})").results[0]
    assert table.main
    assert "<table" in (table.html or "")
    shown = sandbox.run_code("from IPython.display import display, Markdown, Latex, JSON, SVG\n"
                             "display(Markdown('*m*'), Latex('$l$'), JSON({'j': 1}))").results  # fmt: skip
    assert [shown[0].markdown, shown[1].latex, shown[2].json] == ["*m*", "$l$", {"j": 1}]


def test_an_exception_is_a_result(sandbox: Sandbox) -> None:
    error = sandbox.run_code("def f():\n    return 1 / 0\nf()").error
    assert error is not None
    assert (error.name, error.value) == ("ZeroDivisionError", "division by zero")
    assert "1 / 0" in error.traceback
    assert sandbox.run_code("!exit 3\n1").text == "1"
    assert sandbox.run_code("import sys; sys.exit(4)").error.name == "SystemExit"
    assert sandbox.run_code("x").text == "21", "the context goes on"


def test_await_magics_and_installing(sandbox: Sandbox) -> None:
    assert sandbox.run_code("import asyncio\nawait asyncio.sleep(0, 'slept')").text == "'slept'"
    installed = sandbox.run_code("%pip install -q six\nimport six\nsix.__name__", timeout=100)
    assert installed.text == "'six'", installed


def test_output_streams_as_it_happens(sandbox: Sandbox) -> None:
    arrived: list[tuple[str, float]] = []
    sandbox.run_code(
        "import time\nfor n in range(3):\n    print(n)\n    time.sleep(0.4)",
        on_stdout=lambda text: arrived.append((text, time.monotonic())),
    )
    assert "".join(text for text, _ in arrived) == "0\n1\n2\n"
    assert arrived[-1][1] - arrived[0][1] > 0.5, "not all at the end"


def test_events_can_be_iterated(sandbox: Sandbox) -> None:
    with sandbox.run_code_stream("print('a')\n1/0") as events:
        seen = list(events)
    assert "".join(event.text for event in seen if event.type == "stdout") == "a\n"
    assert [event.type for event in seen if event.type != "stdout"] == ["error", "done"]


def test_contexts_are_apart(sandbox: Sandbox) -> None:
    other = sandbox.create_context(cwd="/tmp", env={"ONLY": "here"})
    sandbox.run_code("y = 'default'")
    assert (
        sandbox.run_code("y = 'other'; import os; os.getcwd(), os.environ['ONLY']", context=other).text
        == "('/tmp', 'here')"
    )
    assert sandbox.run_code("y").text == "'default'"
    started = {context.id: context.start_s for context in sandbox.contexts()}
    assert started["default-python"] is None, "it came with the sandbox"
    assert started[other.id] > 0
    other.restart()
    assert sandbox.run_code("y", context=other).error.name == "NameError"
    other.remove()
    with pytest.raises(ContextNotFound):
        sandbox.run_code("1", context=other)


def test_a_timeout_interrupts_and_keeps_the_state(sandbox: Sandbox) -> None:
    sandbox.run_code("kept = 'kept'")
    execution = sandbox.run_code("import time\ntime.sleep(60)", timeout=1)
    assert execution.error.name == "TimeoutError"
    assert "1 s" in execution.error.value
    assert not execution.context_restarted
    assert sandbox.run_code("kept").text == "'kept'"


def test_code_that_ignores_interrupts_is_killed(server: Server) -> None:
    with server.sandbox() as sandbox:
        code = "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except KeyboardInterrupt:\n        pass"
        execution = sandbox.run_code(code, timeout=1)
        assert execution.error is not None
        assert execution.context_restarted
        assert sandbox.run_code("'fresh'").text == "'fresh'"


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os._exit(7)", "status 7"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    ],
)
def test_the_death_of_an_interpreter_is_told_and_survived(sandbox: Sandbox, code: str, how: str) -> None:
    context = sandbox.create_context()
    sandbox.run_code("lost = 1", context=context)
    execution = sandbox.run_code(code, context=context)
    assert execution.context_restarted
    assert how in f"{execution.error.value} {execution.error.traceback}"
    assert sandbox.run_code("'lost' in dir()", context=context).text == "False"
    context.remove()


def test_code_can_be_interrupted(sandbox: Sandbox) -> None:
    context = sandbox.create_context()
    timer = threading.Timer(1.0, context.interrupt)
    timer.start()
    execution = sandbox.run_code("import time\ntime.sleep(60)", context=context)
    timer.join()
    assert execution.error.name == "KeyboardInterrupt"
    context.remove()


def test_runs_in_one_context_wait_for_each_other(sandbox: Sandbox) -> None:
    sandbox.run_code("order = []")
    threads = [
        threading.Thread(target=sandbox.run_code, args=(f"import time; time.sleep(0.05); order.append({n})",))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sandbox.run_code("sorted(order)").text == "[0, 1, 2, 3]"


def test_an_unknown_language_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(LanguageNotFound) as caught:
        sandbox.run_code("1", language="cobol")
    assert "python" in caught.value.details["languages"]


def test_results_show_in_a_notebook() -> None:
    result = ShownResult({"text/plain": "x", "image/png": "aGk="})
    assert result._repr_mimebundle_() == {"text/plain": "x", "image/png": b"hi"}


# --- commands ---------------------------------------------------------------------------------------------------------


def test_commands_are_like_subprocess(sandbox: Sandbox) -> None:
    done = sandbox.exec("echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr, done.reason) == (3, "out\n", "err\n", ExitReason.EXITED)
    assert sandbox.exec(["printf", "%s", "a b"], text=False).stdout == b"a b"
    assert sandbox.exec(["cat"], input="typed").stdout == "typed"
    assert sandbox.exec("pwd; echo $X; id -un", cwd="/tmp", env={"X": "1"}, user="root").stdout == "/tmp\n1\nroot\n"
    with pytest.raises(CommandFailed) as caught:
        sandbox.exec("echo why >&2; false", check=True)
    assert caught.value.details["stderr"] == "why\n"
    assert sandbox.exec("kill -TERM $$").returncode == 143


@pytest.mark.parametrize(
    ("command", "options", "what"),
    [
        (["no-such-program"], {}, "no-such-program"),
        (["true"], {"cwd": "/nowhere"}, "/nowhere"),
    ],
)
def test_what_cannot_start_says_why(sandbox: Sandbox, command: list[str], options: dict[str, str], what: str) -> None:
    with pytest.raises(CannotStartProcess) as caught:
        sandbox.exec(command, **options)
    assert what in caught.value.message


def test_an_unknown_user_is_told(sandbox: Sandbox) -> None:
    with pytest.raises(UserNotFound, match="nobody-at-all"):
        sandbox.exec(["true"], user="nobody-at-all")
    with pytest.raises(UserNotFound, match="nobody-at-all"):
        sandbox.files.read("/etc/hostname", user="nobody-at-all")


def test_background_processes(sandbox: Sandbox) -> None:
    process = sandbox.exec("read line; echo got $line; sleep 600", background=True, stdin=True, tag="mine")
    assert process.poll() is None
    process.write_stdin("something\n")
    assert next(iter(process.stdout)) == b"got something\n"
    assert [other.info.tag for other in sandbox.processes() if other.pid == process.pid] == ["mine"]
    process.terminate()
    assert process.wait() == 143
    assert process.poll() == 143


def test_output_is_replayed_from_where_it_was_left(sandbox: Sandbox) -> None:
    process = sandbox.exec("for n in 1 2 3; do echo $n; sleep 0.3; done", background=True)
    assert next(iter(process.stdout)) == b"1\n"
    assert b"".join(process.stdout) == b"2\n3\n"
    assert b"".join(sandbox.attach(process.pid).stdout) == b"1\n2\n3\n"


def test_sudo_works_for_the_user(sandbox: Sandbox) -> None:
    assert sandbox.exec("sudo id -u").stdout == "0\n"
    assert sandbox.exec("sudo -u user id -un").stdout == "user\n"
    assert sandbox.exec("sudo sh -c 'exit 9'").returncode == 9


def test_a_terminal(sandbox: Sandbox) -> None:
    with sandbox.pty.open(cols=100, rows=30, command=["bash", "--norc"], env={"PS1": "ready> "}) as terminal:

        def answer(typed: str) -> bytes:
            """Type at the prompt, and read up to the next one."""
            terminal.send(typed)
            seen = b""
            while not seen.endswith(b"ready> "):
                seen += terminal.receive()
            return seen

        answer("")
        assert b"is a tty\r\n" in answer("tty -s && echo is a t''ty\n")
        assert b"30 100\r\n" in answer("stty size\n")
        terminal.resize(120, 40)
        answer("")  # bash is told, and draws its prompt anew
        assert b"40 120\r\n" in answer("stty size\n")
        terminal.send("exit 6\n")
        assert terminal.wait() == 6


def test_node_and_git_are_there(sandbox: Sandbox) -> None:
    assert sandbox.exec(["node", "-e", "console.log(6 * 7)"]).stdout == "42\n"
    assert (
        sandbox.exec("git init -q repo && cd repo && git status -s && npm --version && curl --version").returncode == 0
    )


# --- files ------------------------------------------------------------------------------------------------------------


def test_use_over_time(sandbox: Sandbox) -> None:
    deadline = time.monotonic() + 30
    while len(samples := sandbox.stats_history()) < 2:
        assert time.monotonic() < deadline, samples
        time.sleep(0.2)
    assert samples[0].at < samples[1].at
    assert 0 < samples[0].cpu_used_s <= samples[1].cpu_used_s
    assert 0 < samples[1].memory_used_mib < 4096


def test_metadata_of_files(sandbox: Sandbox) -> None:
    files = sandbox.files
    assert files.write("noted", "x", metadata={"By": "me"}).metadata == {"by": "me"}
    sandbox.exec("mv noted moved", check=True)
    assert files.stat("moved").metadata == {"by": "me"}
    assert files.write("moved", "y").metadata == {}
    for wrong in ({"a b": "c"}, {"": "c"}, {"a": "line\nbreak"}, {"a": "x" * 4097}):
        with pytest.raises(InvalidRequest):
            files.write("wrong", "x", metadata=wrong)
    assert not files.exists("wrong")


def test_files(sandbox: Sandbox, tmp_path) -> None:
    files = sandbox.files
    info = files.write("folder/text.txt", "grüße", mode=0o600)
    assert (info.type, info.size, info.mode, info.owner) == (FileType.FILE, 7, 0o600, "user")
    assert files.read("folder/text.txt") == "grüße"
    assert [item.name for item in files.list("folder")] == ["text.txt"]
    files.chmod("folder/text.txt", 0o644)
    files.rename("folder/text.txt", "folder/other.txt")
    assert not files.exists("folder/text.txt")
    with pytest.raises(FileExists):
        files.mkdir("folder", parents=False)
    local = tmp_path / "local"
    local.write_bytes(b"\0\1" * 3_000_000)
    files.upload(local, "folder/big")
    files.download("folder/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == local.read_bytes()
    files.remove("folder", recursive=True)
    assert not files.exists("folder")


def test_changes_are_watched(sandbox: Sandbox) -> None:
    sandbox.files.mkdir("watched/deep")
    with sandbox.files.watch("watched", recursive=True) as events:
        sandbox.exec("echo x > watched/deep/new")
        event = next(iter(events))
        assert event.type is WatchEventType.CREATE
        assert event.path.endswith("watched/deep/new")


# --- network ----------------------------------------------------------------------------------------------------------


def test_ports_are_reached_through_the_api(server: Server, sandbox: Sandbox) -> None:
    sandbox.files.write("www/page.html", "<p>served</p>")
    process = sandbox.exec(["python3", "-m", "http.server", "8000", "--directory", "/home/user/www"], background=True)
    path = f"/v1/sandboxes/{sandbox.id}/ports/8000/page.html"
    eventually(lambda: b"<p>served</p>" in _get(server, path))
    process.kill()
    assert server.request("GET", f"/v1/sandboxes/{sandbox.id}/ports/9/")[1]["error"]["code"] == "port.not_open"


def _get(server: Server, path: str) -> bytes:
    with server.open_socket() as connection:
        head = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.api_key}\r\nconnection: close\r\n\r\n"
        connection.sendall(head.encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_the_internet_can_be_switched_off(server: Server) -> None:
    look = "import socket; socket.setdefaulttimeout(3); socket.getaddrinfo('example.com', 80)"
    with server.sandbox(internet=False) as sandbox:
        assert sandbox.exec(["python3", "-c", look], timeout=30).returncode != 0


def test_the_host_and_neighbours_are_out_of_reach(server: Server, sandbox: Sandbox) -> None:
    port = server.api_url.rsplit(":", 1)[1]
    gateway = sandbox.exec("awk '/nameserver/ {print $2}' /etc/resolv.conf").stdout.strip()
    for target in (f"127.0.0.1 {port}", f"{gateway} {port}", "169.254.169.254 80", "10.211.0.3 80", "192.168.0.1 80"):
        host, number = target.split()
        code = f"import socket; socket.create_connection(('{host}', {number}), 2)"
        assert sandbox.exec(["python3", "-c", code], timeout=20).returncode != 0, target


# --- the other half ---------------------------------------------------------------------------------------------------


def test_the_half_that_awaits(server: Server) -> None:
    async def work() -> None:
        where = {"api_url": server.api_url, "api_key": server.api_key}
        async with await AsyncSandbox.create(**where) as sandbox:
            execution, done = await asyncio.gather(sandbox.run_code("1 + 1"), sandbox.exec("echo hi"))
            assert (execution.text, done.stdout) == ("2", "hi\n")
            process = await sandbox.exec("echo a; echo b", background=True)
            assert b"".join([chunk async for chunk in process.stdout]) == b"a\nb\n"
            await sandbox.files.write("x", b"y")
            assert await sandbox.files.read_bytes("x") == b"y"
            async with await sandbox.pty.open() as terminal:
                await terminal.send("exit 2\n")
                assert await terminal.wait() == 2

    asyncio.run(work())
