"""What a sandbox is for, in one run: code that nobody reviewed, with state, files, a figure, and limits that hold.

make run                              # starts a server for this, and stops it again
.venv/bin/python examples/hello.py    # with a server: SKERRY_API_URL and SKERRY_API_KEY say which
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from skerry import Sandbox
from skerry.errors import Error

T = TypeVar("T")

SALES = "month,sold\n" + "".join(f"{month},{month * month + 7}\n" for month in range(1, 13))
TABLE = """
import pandas as pd
sales = pd.read_csv("sales.csv")
sales.sold.describe()[["count", "mean", "max"]]
"""
FIGURE = """
import matplotlib.pyplot as plt
plt.bar(sales.month, sales.sold)
plt.title("sold")
"""
FILL_DISK = """
with open("filler", "wb") as file:
    while True:
        file.write(b"x" * 2**20)
"""
USE_MEMORY = """
held = []
while True:
    held.append(b"x" * 2**24)
"""


def step(title: str, action: Callable[[], T], show: Callable[[T], object]) -> T:
    """Do it, and print what came of it and how long it took."""
    started = time.perf_counter()
    outcome = action()
    took_ms = (time.perf_counter() - started) * 1000
    first, *more = str(show(outcome)).splitlines() or [""]
    print(f"{title:<34}{took_ms:8.1f} ms   {first}")
    for line in more:
        print(f"{'':<48}{line}")
    return outcome


def main() -> None:
    """One sandbox does some work, another one misbehaves."""
    sandbox = step(
        "create a sandbox", Sandbox.create,
        lambda made: f"{made.id}, isolation: {made.created.isolation}, from: {made.created.origin}",
    )  # fmt: skip
    with sandbox:
        step("run_code: x = 41", lambda: sandbox.run_code("x = 41"), lambda run: run.text)
        step("run_code: x + 1", lambda: sandbox.run_code("x + 1"), lambda run: run.text)
        step("write a file", lambda: sandbox.files.write("sales.csv", SALES), lambda file: f"{file.size} bytes")
        step("run_code: pandas reads it", lambda: sandbox.run_code(TABLE), lambda run: run.text)
        step(
            "run_code: a figure",
            lambda: sandbox.run_code(FIGURE),
            lambda run: f"{len(run.results[-1].png)} bytes of PNG",
        )
        step("run_code: a mistake", lambda: sandbox.run_code("1 / 0"), lambda run: run.error.traceback)
        step("exec: which kernel is this?", lambda: sandbox.exec("uname -rv; id -un"), lambda done: done.stdout)
        step("exec: node", lambda: sandbox.exec(["node", "-p", "6 * 7"]), lambda done: done.stdout)

    step("one more, from the warm pool", Sandbox.create, lambda made: f"from: {made.created.origin}").kill()
    misbehave()


def misbehave() -> None:
    """Limits: what code does wrong is a result; what it takes too much of ends it."""
    sandbox = step(
        "another one, with other limits", lambda: Sandbox.create(memory=512, disk=64),
        lambda made: f"{made.created.limits.memory_mib} MiB of memory, {made.created.limits.disk_mib} MiB of disk",
    )  # fmt: skip
    with sandbox:
        step("run_code: pass", lambda: sandbox.run_code("pass"), lambda run: "its interpreter has started")
        step(
            "an endless loop, stopped after 1 s", lambda: sandbox.run_code("while True: pass", timeout=1),
            lambda run: run.error.name,
        )  # fmt: skip
        step(
            "a disk of 64 MiB, filled", lambda: sandbox.run_code(FILL_DISK),
            lambda run: f"{run.error.name}: {run.error.value}",
        )  # fmt: skip
        step("512 MiB of memory, overused", lambda: overuse(sandbox), lambda outcome: outcome)


def overuse(sandbox: Sandbox) -> str:
    """Either the interpreter ends, or the whole sandbox does; the host does not notice."""
    try:
        run = sandbox.run_code(USE_MEMORY, timeout=30)
    except Error as error:
        end = sandbox.info().end
        return f"{end.code}: {end.message}" if end else str(error)
    return f"{run.error.name}: {run.error.value}" if run.error else "nothing happened"


if __name__ == "__main__":
    main()
