"""Output: all of it, in order, as it comes, and whatever user code does to the streams."""

from __future__ import annotations

from tests.interpreter.rig import Interpreter


def test_output_of_python_c_code_and_programs(shared: Interpreter) -> None:
    ran = shared.run(
        "import ctypes, os, subprocess, sys\nprint('python', flush=True)\nos.write(1, b'descriptor\\n')\n"
        "libc = ctypes.CDLL(None)\nlibc.puts(b'libc')\nlibc.fflush(None)\n"
        "subprocess.run('echo program; echo bad >&2', shell=True)\nprint('err', file=sys.stderr)"
    )
    assert ran.stdout == "python\ndescriptor\nlibc\nprogram\n"
    assert sorted(ran.stderr.split()) == ["bad", "err"]


def test_output_comes_before_the_cell_ends(shared: Interpreter) -> None:
    shared.begin("import time\nfor _ in range(2): print('early', end='')\ntime.sleep(1)\nprint('late')")
    text = ""
    while text != "earlyearly":
        text += shared.read()["text"]
    assert shared.finish().stdout == "late\n"


def test_much_output_in_pieces_of_bounded_size(shared: Interpreter) -> None:
    ran = shared.run("import sys\nfor _ in range(100): sys.stdout.write('é' * 100_000)")
    assert ran.stdout == "é" * 10_000_000
    assert max(len(event["text"]) for event in ran.of("stdout")) <= 65_536


def test_undecodable_bytes(shared: Interpreter) -> None:
    ran = shared.run("import os\nos.write(1, b'a\\xffb')\nos.write(1, '€'.encode()[:2])")
    assert ran.stdout == "a\ufffdb\ufffd"
    assert shared.run(r"print('\ud800')").stdout == "\\ud800\n"


def test_closed_and_replaced_streams(shared: Interpreter) -> None:
    shared.run("import os, sys\nos.close(1); os.close(2)")
    assert shared.run("print('back')").stdout == "back\n"
    shared.run("sys.stdout.close()")
    assert shared.run("print('again')").stdout == "again\n"
    shared.run("import io\nold, sys.stdout = sys.stdout, io.StringIO()")
    assert shared.run("print('hidden')\n5").order == ["result", "done"]
    assert shared.run("text = sys.stdout.getvalue()\nsys.stdout = old\ntext").text == "'hidden\\n'"
    shared.run("sys.stdout = None; sys.stderr = 7")
    assert shared.run("1").text == "1"
    assert shared.run("print('whole')").stdout == "whole\n"


def test_a_duplicate_over_descriptor_one_is_undone(shared: Interpreter) -> None:
    shared.run("import os\nos.dup2(os.open('/dev/null', os.O_WRONLY), 1)\nprint('lost')")
    assert shared.run("print('found')").stdout == "found\n"


def test_output_between_runs_belongs_to_no_later_run_and_is_bounded(fresh: Interpreter) -> None:
    fresh.run(
        "import threading, time\ndef noise():\n    time.sleep(0.1)\n"
        "    for _ in range(100): print('n' * 10_000)\nt = threading.Thread(target=noise)\nt.start()"
    )
    seen = 0
    while (event := fresh.read())["event"] == "stdout" and seen <= 65_536:
        assert event["id"] == "1"
        seen += len(event["text"])
        if seen > 64 * 1024 - 10_001:
            break
    fresh.begin("t.join()\n'done'")
    events: list[dict[str, object]] = []
    while not events or events[-1]["event"] != "done":
        events.append(fresh.read())
    assert events[-1]["id"] == "2"


def test_c_code_that_fills_the_pipe_and_holds_the_lock(shared: Interpreter) -> None:
    ran = shared.run(
        "import ctypes\nlibc = ctypes.PyDLL(None)\nblock = b'z' * 500_000\n"
        "print('before', flush=True)\nlibc.write(1, block, len(block))"
    )
    assert len(ran.stdout) == 7 + 500_000
