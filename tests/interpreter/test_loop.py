"""The conversation: requests, interrupts, and what user code may do to it."""

from __future__ import annotations

import time

import pytest

from tests.interpreter.rig import Interpreter


def test_hello_and_ping_and_end_of_input(fresh: Interpreter) -> None:
    assert fresh.hello["event"] == "ready"
    assert fresh.hello["language"] == "python"
    assert fresh.hello["version"].startswith("3.")
    fresh.send(op="ping")
    assert fresh.read() == {"event": "pong"}
    assert fresh.end_input() == 0
    assert fresh.last_words() == ""


def test_end_of_input_does_not_wait_for_threads(fresh: Interpreter) -> None:
    fresh.run("import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()")
    assert fresh.end_input() == 0


def test_environment_of_one_run_and_of_all(fresh: Interpreter) -> None:
    fresh.configure(env={"KEPT": "1"}, cwd="/tmp/made/for/it", entropy="AAAA")
    read = "import os; os.environ.get('KEPT'), os.environ.get('ONCE'), os.getcwd()"
    assert fresh.run(read, {"ONCE": "2", "KEPT": "3"}).text == "('3', '2', '/tmp/made/for/it')"
    assert fresh.run(read).text == "('1', None, '/tmp/made/for/it')"


def test_the_first_configure_starts_the_count_anew(fresh: Interpreter) -> None:
    fresh.run("x = 1\nx")
    fresh.configure(env={}, cwd=None, entropy=None)
    assert fresh.run("x, Out, _").text == "(1, {}, '')"
    fresh.configure(env={}, cwd=None, entropy=None)
    assert fresh.run("1").of("done")[0]["execution_count"] == 2


@pytest.mark.parametrize(
    "code",
    [
        "import time\nprint('on')\ntime.sleep(60)",
        "print('on')\nwhile True: pass",
        "import asyncio\nprint('on', flush=True)\nawait asyncio.sleep(60)",
        "print('on', flush=True)\n!sleep 60",
        "import subprocess\nprint('on')\nsubprocess.run(['sleep', '60'])",
    ],
)
def test_an_interrupt_ends_the_cell_and_nothing_else(shared: Interpreter, code: str) -> None:
    shared.run("survivor = 7")
    shared.begin(code)
    first = shared.read()
    assert first["text"].startswith("on")
    time.sleep(0.05)
    shared.interrupt()
    ran = shared.finish()
    assert [error["name"] for error in ran.of("error")] == ["KeyboardInterrupt"]
    assert shared.run("survivor").text == "7"


def test_interrupts_while_idle_and_in_a_flood_of_output_break_nothing(shared: Interpreter) -> None:
    shared.interrupt()
    assert shared.run("1").text == "1"
    shared.begin("print('on')\nwhile True: print('x' * 200)")
    for _ in range(300):
        shared.read()
    shared.interrupt()
    ran = shared.finish()
    assert ran.error["name"] == "KeyboardInterrupt"
    assert shared.run("2").text == "2"


def test_a_handler_of_the_users_lasts_for_its_cell(shared: Interpreter) -> None:
    shared.run("import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)")
    shared.begin("import time\nprint('on')\ntime.sleep(60)")
    shared.read()
    time.sleep(0.05)
    shared.interrupt()
    assert shared.finish().error["name"] == "KeyboardInterrupt"


def test_a_forked_child_ends_with_its_cell(shared: Interpreter) -> None:
    ran = shared.run("import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\nelse: print('child')\n'both'")
    assert ran.stdout == "child\n"
    assert [event["data"]["text/plain"] for event in ran.of("result")] == ["'both'"]
    failed = shared.run("pid = os.fork()\nif not pid: 1/0\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])")
    assert failed.text == "1"
    assert "ZeroDivisionError" in failed.stderr
    assert failed.error is None


def test_multiprocessing(shared: Interpreter) -> None:
    code = "import multiprocessing as m\ndef square(x): return x * x\n"
    code += "with m.get_context('fork').Pool(2) as pool: found = pool.map(square, range(4))\nfound"
    assert shared.run(code).text == "[0, 1, 4, 9]"


def test_a_crash_says_where(fresh: Interpreter) -> None:
    fresh.begin("import ctypes\nctypes.string_at(0)")
    with pytest.raises(EOFError):
        fresh.finish()
    assert "Segmentation fault" in fresh.last_words()


def test_user_code_that_ends_the_process_ends_the_conversation(fresh: Interpreter) -> None:
    fresh.begin("import os\nos._exit(5)")
    with pytest.raises(EOFError):
        fresh.finish()
