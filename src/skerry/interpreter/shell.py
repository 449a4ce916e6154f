"""IPython, with its values, displays and errors going to events instead of the screen."""

from __future__ import annotations

import asyncio
import codeop
import contextlib
import importlib
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.profiledir import ProfileDir
from traitlets import Type, observe
from traitlets.config import Config

from . import structure
from .reports import CELL_PREFIX, describe

Show = Callable[[Mapping[str, Any], bool], None]
"""Takes a MIME bundle, and whether it is the value of the last expression."""
Report = Callable[[str, str, str], None]
"""Takes an exception's name, value and traceback."""

_SHELL_GRACE_S = 1.0
_PLAIN = frozenset({bool, int, float, complex, str, bytes, list, tuple, dict, set})
"""Types without a rich representation of their own."""
_ALLOW_INCOMPLETE_INPUT = getattr(codeop, "PyCF_ALLOW_INCOMPLETE_INPUT", 0)


class _Profile(ProfileDir):
    """IPython's profile directory, which nothing is made in until somebody stores something there."""

    def __init__(self, location: Path) -> None:
        super().__init__()
        self.set_trait("location", str(location))

    @observe("location")  # type: ignore[untyped-decorator]
    def _location_changed(self, change: Any) -> None:
        pass


class _Compiler(CachingCompiler):
    def __init__(self) -> None:
        super().__init__()
        self.flags &= ~_ALLOW_INCOMPLETE_INPUT  # it hides what is wrong behind "incomplete input"

    def get_code_name(self, raw_code: str, transformed_code: str, number: int) -> str:
        return f"{CELL_PREFIX}{number}>"


class _Hook(DisplayHook):
    """The value of the last expression."""

    shell: Any
    value: Any = None
    """While it is shown."""

    def quiet(self) -> bool:
        return ";" in self.shell.history_manager.input_hist_parsed[-1] and super().quiet()

    def write_output_prompt(self) -> None:
        pass

    def compute_format_data(self, result: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What plain values look like needs no dozen formatters to be asked, unless the user has registered one."""
        formatter = self.shell.display_formatter
        kind = type(result)
        if kind in _PLAIN and not any(_knows(other, kind) for other in _rich(formatter)):
            return {"text/plain": formatter.formatters["text/plain"](result)}, {}
        return super().compute_format_data(result)  # type: ignore[no-any-return]

    def fill_exec_result(self, result: Any) -> None:
        self.value = result
        super().fill_exec_result(result)

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        self.shell.show(format_dict, True)

    def log_output(self, format_dict: dict[str, Any]) -> None:
        pass  # the base class keeps every bundle for ever

    def finish_displayhook(self) -> None:
        self.value = None
        self._is_active = False


def _rich(formatter: Any) -> Iterator[Any]:
    yield formatter.ipython_display_formatter
    yield formatter.mimebundle_formatter
    for mime, other in formatter.formatters.items():
        if mime != "text/plain":
            yield other


def _knows(formatter: Any, kind: type) -> bool:
    return any(
        base in formatter.type_printers or (base.__module__, base.__name__) in formatter.deferred_printers
        for base in kind.__mro__
    )


class _Publisher(DisplayPublisher):
    """What `display()` shows."""

    def publish(self, data: dict[str, Any], metadata: dict[str, Any] | None = None, *_: Any, **__: Any) -> None:
        self.shell.show(data, False)

    def clear_output(self, wait: bool = False) -> None:
        pass


class Shell(InteractiveShell):
    """Made by `make_shell`."""

    displayhook_class = Type(_Hook)
    display_pub_class = Type(_Publisher)
    compiler_class = Type(_Compiler)

    execution_count: int
    history_manager: Any
    show: Show
    report: Report
    _cancelled = False
    _loop: asyncio.AbstractEventLoop | None = None

    def init_ipython_dir(self, ipython_dir: str | None) -> None:
        self.ipython_dir = os.path.expanduser("~/.ipython")

    @observe("ipython_dir")  # type: ignore[untyped-decorator]
    def _ipython_dir_changed(self, change: Any) -> None:
        pass  # the base class makes the directory

    def init_profile_dir(self, profile_dir: Any) -> None:
        self.profile_dir = _Profile(Path(self.ipython_dir) / "profile_default")

    def init_virtualenv(self) -> None:
        pass  # it adds directories to sys.path and warns about them

    @contextlib.contextmanager
    def _tee(self, channel: str) -> Iterator[None]:
        """The base class keeps a copy of all output in memory."""
        yield

    # --- errors -----------------------------------------------------------------------------------------------------

    def showtraceback(self, exc_tuple: Any = None, *_: Any, **__: Any) -> None:
        _, error, _ = self._get_exc_info(exc_tuple)
        if self._cancelled and isinstance(error, asyncio.CancelledError):
            error = KeyboardInterrupt().with_traceback(error.__traceback__)
        self.report(*describe(error))

    def showsyntaxerror(self, *_: Any, **__: Any) -> None:
        self.showtraceback()

    def showindentationerror(self) -> None:
        self.showtraceback()

    def _format_exception_for_storage(self, exception: BaseException, *_: Any, **__: Any) -> dict[str, Any]:
        return {"ename": type(exception).__name__, "evalue": "", "traceback": []}

    def ask_exit(self) -> None:
        """`exit` and `quit`: reported, as sys.exit is; the interpreter goes on."""
        raise SystemExit

    # --- commands ---------------------------------------------------------------------------------------------------

    def system(self, cmd: str) -> None:
        """`!cmd`: its output comes as it is written; its exit code is in `_exit_code`, negative after a signal."""
        command = self.var_expand(cmd, depth=1)
        process = subprocess.Popen(command, shell=True, executable=os.environ.get("SHELL"))  # noqa: S602
        try:
            self.user_ns["_exit_code"] = _as_ipython(process.wait())
            importlib.invalidate_caches()  # it may have been pip
        except BaseException:
            self.user_ns["_exit_code"] = -signal.SIGINT
            _end(process)
            raise

    system_raw = system_piped = system

    # --- top-level await --------------------------------------------------------------------------------------------

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a cell that awaits something. All of them share one event loop: tasks they leave go on in the next."""
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        self._cancelled = False
        try:
            while True:
                try:
                    return self._loop.run_until_complete(task)
                except KeyboardInterrupt:
                    if task.done():
                        raise
                    self._cancelled = True
                    task.cancel()
        finally:
            self._cancelled = False

    # --- figures ----------------------------------------------------------------------------------------------------

    def enable_matplotlib(self, gui: str | None = None) -> tuple[str, str]:
        """`%matplotlib …`: figures are always shown; there is no window to show them in."""
        return "inline", "inline"

    # --- starting anew ----------------------------------------------------------------------------------------------

    def begin_anew(self) -> None:
        """Forget the cells run so far, which were to warm up: numbers, inputs and outputs, not variables."""
        history = self.history_manager
        for number in range(self.execution_count + 1):
            for name in (f"_{number}", f"_i{number}"):
                self.user_ns.pop(name, None)
        self.user_ns["_oh"].clear()
        history.input_hist_parsed[:] = history.input_hist_raw[:] = [""]
        history.output_hist_reprs.clear()
        history.outputs.clear()
        history.exceptions.clear()
        history._i00 = history._i = history._ii = history._iii = ""
        hook = self.displayhook
        hook._ = hook.__ = hook.___ = ""
        self.user_ns.update(dict.fromkeys(("_", "__", "___", "_i", "_ii", "_iii"), ""))
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            if hasattr(sys, name):
                delattr(sys, name)
        self.execution_count = 1


def make_shell(show: Show, report: Report) -> Shell:
    """The interpreter's only shell. `sys.modules["__main__"]` is its user's module from now on."""
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.autoindent = False
    shell: Shell = Shell.instance(config=config)
    shell.show, shell.report = show, report
    shell.loop_runner = shell.run_coroutine
    structure.register(shell.display_formatter)
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")
    # The other thread is ours: it reads output, and a child has nothing of it to wait for.
    warnings.filterwarnings("ignore", message=".*is multi-threaded, use of fork", category=DeprecationWarning)
    return shell


def _as_ipython(code: int) -> int:
    return code if code <= 128 else -(code - 128)


def _end(process: subprocess.Popen[Any]) -> None:
    """After an interrupt: the shell has mostly got it too."""
    with contextlib.suppress(OSError):
        process.send_signal(signal.SIGINT)
    try:
        process.wait(_SHELL_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
