"""Random numbers after a copy, as far as one process can show it: what was seeded draws other numbers."""

from __future__ import annotations

import os
import signal

from tests.interpreter.rig import Interpreter

SEED = "import random, tempfile, numpy; random.seed(1); numpy.random.seed(1); next(tempfile._get_candidate_names())"


def test_configuring_reseeds(fresh: Interpreter) -> None:
    before = fresh.run(f"{SEED}\n(random.random(), numpy.random.rand())").text
    assert fresh.run(f"{SEED}\n(random.random(), numpy.random.rand())").text == before, "seeded alike, drawn alike"
    seen = {before}
    for _ in range(2):
        fresh.run(SEED)
        fresh.configure(env={}, cwd=None, entropy="the same")
        seen.add(fresh.run("(random.random(), numpy.random.rand())").text)
    assert len(seen) == 3


def test_a_running_cell_is_reseeded_by_a_signal(fresh: Interpreter) -> None:
    fresh.begin(f"""{SEED}
import time
state = random.getstate()
names = tempfile._get_candidate_names()
deadline = time.monotonic() + 10
print('seeded', flush=True)
while random.getstate() == state and time.monotonic() < deadline:
    time.sleep(0.01)
renamed = names is not tempfile._get_candidate_names()
(random.getstate() != state, numpy.random.rand() != numpy.random.RandomState(1).rand(), renamed)
""")
    assert fresh.read()["event"] == "stdout"
    os.kill(fresh.pid, signal.SIGURG)
    assert fresh.finish().text == "(True, True, True)"
    fresh.configure(env={}, cwd=None, entropy="x")
    os.kill(fresh.pid, signal.SIGURG)
    assert fresh.run("1").text == "1", "while idle it does no harm"


def test_a_signal_in_the_middle_of_numpys_own_call_does_not_hang(fresh: Interpreter) -> None:
    code = """
import numpy, os, signal
class Swapped(list):
    def __setitem__(self, at, value):
        if not done:
            done.append(1)
            os.kill(os.getpid(), signal.SIGURG)
        super().__setitem__(at, value)
done = []
numpy.random.shuffle(Swapped(range(10)))
len(done)
"""
    assert fresh.run(code).text == "1"


def test_saying_the_same_again_keeps_what_a_program_has_changed(fresh: Interpreter) -> None:
    said = {"env": {"A": "1", "B": "1"}, "cwd": "/tmp/said"}
    fresh.configure(**said, entropy=None)
    fresh.run("import os; os.environ['A'] = 'mine'; os.chdir('/')")
    fresh.configure(**said | {"env": {"A": "1", "B": "2"}}, entropy="x")
    assert fresh.run("(os.environ['A'], os.environ['B'], os.getcwd())").text == "('mine', '2', '/')"
