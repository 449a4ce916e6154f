"""Requests in, events out: the interpreter's main loop."""

from __future__ import annotations

import atexit
import builtins
import contextlib
import faulthandler
import gc
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from . import figures, fresh, pictures, structure, warm
from .bundles import portable
from .capture import Capture
from .channel import Channel, private_descriptor
from .interrupts import Interrupts
from .reports import describe
from .shell import make_shell


def main(*, warm_up: bool) -> NoReturn:
    """Serve until the end of input.

    Args:
        warm_up: first load and run all that a program may need: for a sandbox that nobody waits for yet. Otherwise it
            is loaded when code asks for it.
    """
    faulthandler.enable(private_descriptor(2))
    interrupts = Interrupts()
    channel = Channel(interrupts)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    interpreter = Interpreter(interrupts, channel, Capture(channel))
    interpreter.prepare(warm_up=warm_up)
    channel.send_plain("ready", language="python", version=platform.python_version())
    with contextlib.suppress(BrokenPipeError):
        for request in channel.requests():
            interpreter.handle(request)
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    os._exit(0)  # threads of user code do not hold it up


class Interpreter:
    """One IPython shell and the conversation about it."""

    def __init__(self, interrupts: Interrupts, channel: Channel, capture: Capture) -> None:
        self._interrupts = interrupts
        self._channel = channel
        self._capture = capture
        self._pid = os.getpid()
        self._configured = False
        self._env: dict[str, str] = {}
        self._cwd: str | None = None
        builtins.input = _no_input
        interrupts.install()
        fresh.listen()
        self._shell = make_shell(self._show, self._report)
        figures.adopt(self._shell, self._show)
        pictures.adopt()

    def prepare(self, *, warm_up: bool) -> None:
        """Run some cells and forget them."""
        self._channel.muted = True
        if warm_up:
            warm.import_modules()
        for cell in warm.CELLS if warm_up else warm.FIRST_CELLS:
            self._run_cell(cell)
        fresh.reseed()  # loads what it needs, too
        self._capture.finish()
        self._channel.muted = False
        self._shell.reset(new_session=False)
        self._shell.begin_anew()
        gc.collect()
        gc.freeze()  # what is loaded now stays: no collection looks at it again

    def handle(self, request: Mapping[str, Any]) -> None:
        """Answer one request."""
        operation = request.get("op")
        if operation == "run":
            structure.wanted = request.get("structured") is True
            self._run(request["id"], request["code"], request.get("env") or {})
        elif operation == "configure":
            self._configure(request.get("env") or {}, request.get("cwd"), request.get("entropy"))
            if not self._configured and not request.get("rehearsal"):
                self._configured = True
                self._shell.begin_anew()
            self._channel.send_plain("configured")
        elif operation == "ping":
            self._channel.send_plain("pong")

    # --- running ----------------------------------------------------------------------------------------------------

    def _run(self, run_id: str, code: str, env: Mapping[str, str]) -> None:
        self._channel.begin(run_id)
        count = self._shell.execution_count
        with _environment(env):
            self._run_cell(code)
        self._capture.repair()
        self._capture.finish()
        self._channel.end(count)

    def _run_cell(self, code: str) -> None:
        """Run a cell and send all it shows. Nothing that user code raises comes out of here."""
        self._interrupts.install()
        failed = False
        try:
            with self._interrupts.armed():
                failed = not self._shell.run_cell(code, store_history=True).success
                figures.show()
        except BaseException as error:  # an interrupt at the last moment; a figure that cannot be drawn
            failed = True
            self._report(*describe(error))
        if os.getpid() != self._pid:
            self._capture.flush()
            os._exit(1 if failed else 0)  # a fork that user code let run to the end of its cell

    def _show(self, bundle: Mapping[str, Any], main: bool) -> None:
        self._capture.drain()
        self._channel.send("result", hold=main, data=portable(bundle), main=main)
        if main:
            figures.close(self._shell.displayhook.value)

    def _report(self, name: str, value: str, traceback: str) -> None:
        if os.getpid() != self._pid:
            print(traceback, file=sys.stderr, end="")
            return
        self._capture.drain()
        self._channel.send("error", hold=True, name=name, value=value, traceback=traceback)

    # --- configuration ----------------------------------------------------------------------------------------------

    def _configure(self, env: Mapping[str, str], cwd: str | None, entropy: str | None) -> None:
        # What a program has changed since stays changed when the same is said again, to a copy.
        os.environ.update({name: value for name, value in env.items() if self._env.get(name) != value})
        self._env.update(env)
        if cwd is not None and cwd != self._cwd:
            self._cwd = cwd
            try:
                os.makedirs(cwd, exist_ok=True)
                os.chdir(cwd)
            except OSError as error:
                print(f"cannot use {cwd!r} as working directory: {error}", file=sys.stderr)
        if entropy is not None:
            fresh.reseed(entropy)


@contextlib.contextmanager
def _environment(env: Mapping[str, str]) -> Iterator[None]:
    """These variables for one run."""
    if not env:
        yield
        return
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _no_input(prompt: object = "", /) -> str:
    raise RuntimeError("input() does not work here: nobody can answer. Put the values into the code.")
