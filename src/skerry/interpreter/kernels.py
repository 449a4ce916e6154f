"""The interpreter protocol in front of a Jupyter kernel: `main.py --kernel LANGUAGE`.

The kernel is a child with a session of its own, so that an interrupt reaches it only when it is passed on, and it ends
with this process however that ends. Requests of ours become `execute_request`s; what it publishes for them becomes our
events (https://jupyter-client.readthedocs.io/en/stable/messaging.html).
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import queue
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from . import fresh
from .bundles import portable
from .channel import Channel
from .interrupts import Interrupts
from .languages import LANGUAGES, Language

_START_S = 100.0
_LOOK_S = 0.5
"""How often the kernel is looked at while it says nothing."""
_FENCE_S = 2.0
_SYNTAX_S = 10.0
_PR_SET_PDEATHSIG = 1
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class Unavailable(Exception):
    """The image has no kernel for the language."""


def main(language: str) -> NoReturn:
    """Serve until the end of input or of the kernel."""
    channel = Channel(Interrupts())
    try:
        adaptor = Adaptor(language, channel)
    except Unavailable as error:
        channel.send_plain("unavailable", reason=str(error))
        sys.exit(1)
    began = time.monotonic()
    adaptor.start()
    channel.send_plain("ready", language=language, version=adaptor.version, seconds=round(time.monotonic() - began, 3))
    with contextlib.suppress(BrokenPipeError):
        for request in channel.requests():
            adaptor.handle(request)
    adaptor.stop()
    os._exit(0)


class Adaptor:
    """One kernel and the conversation about it. Raises Unavailable."""

    def __init__(self, language: str, channel: Channel) -> None:
        if importlib.util.find_spec("jupyter_client") is None:
            raise Unavailable(f"this template has no Jupyter kernels, and {language!r} needs one")
        self._channel = channel
        self._language = LANGUAGES.get(language, Language(kernels=(language,)))
        self._argv, self._env, self._by_message = _specification(language, self._language)
        self._globals: dict[str, str] = {}
        self._cwd: str | None = None
        self._count = 0
        self._running = self._interrupted = False
        self.version = ""

    # --- the kernel -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the kernel and wait until it answers."""
        from jupyter_client.blocking.client import BlockingKernelClient
        from jupyter_client.connect import write_connection_file

        directory = tempfile.mkdtemp(prefix="skerry-kernel-")
        file, _ = write_connection_file(os.path.join(directory, "connection.json"), key=secrets.token_hex(32).encode())
        signal.signal(signal.SIGINT, lambda *_: self._interrupt())
        null = os.open(os.devnull, os.O_RDWR)
        argv = _from_file(self._argv, directory) if self._language.scripts else self._argv
        self._process = subprocess.Popen(
            [part.replace("{connection_file}", file) for part in argv], env={**os.environ, **self._env},
            stdin=null, stdout=null, stderr=2, start_new_session=True, preexec_fn=_die_with_parent,
        )  # fmt: skip
        os.close(null)
        self._client = BlockingKernelClient(connection_file=file)
        self._client.load_connection_file()
        self._client.context.rcvhwm = 0  # what the kernel says is never dropped
        self._client.start_channels(hb=False)
        self._greet()
        if self._language.first:
            self._quietly(self._language.first)

    def _greet(self) -> None:
        """Until it has answered, and until what it publishes arrives here too."""
        answered = published = False
        deadline = time.monotonic() + _START_S
        while not (answered and published):
            if time.monotonic() > deadline:
                self._give_up("the kernel does not answer")
            self._look()
            self._client.kernel_info()
            with contextlib.suppress(queue.Empty):
                self._client.get_shell_msg(timeout=_LOOK_S)
                answered = True
                self._client.get_iopub_msg(timeout=_LOOK_S)
                published = True

    def _look(self) -> None:
        """End when the kernel has ended."""
        if self._process.poll() is not None:
            self._give_up(f"the kernel ended with {self._process.returncode}")

    def _give_up(self, why: str) -> NoReturn:
        print(why, file=sys.stderr, flush=True)
        self.stop()
        os._exit(1)

    def stop(self) -> None:
        """End the kernel and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _interrupt(self) -> None:
        if not self._running:
            return
        self._interrupted = True
        if self._by_message:
            self._client.control_channel.send(self._client.session.msg("interrupt_request", {}))
        else:
            self._process.send_signal(signal.SIGINT)

    # --- requests ---------------------------------------------------------------------------------------------------

    def handle(self, request: Mapping[str, Any]) -> None:
        """Answer one request."""
        operation = request.get("op")
        if operation == "run":
            self._run(request["id"], request["code"], request.get("env") or {})
        elif operation == "configure":
            self._configure(request.get("env") or {}, request.get("cwd"))
            if (entropy := request.get("entropy")) and (snippet := self._language.reseed):
                self._quietly(snippet(fresh.number(entropy)))
            self._channel.send_plain("configured")
        elif operation == "ping":
            self._channel.send_plain("pong")

    def _configure(self, env: Mapping[str, str], cwd: str | None) -> None:
        # What a program has changed since stays changed when the same is said again, to a copy.
        self._set({name: value for name, value in env.items() if self._globals.get(name) != value})
        self._globals.update(env)
        if cwd is None or cwd == self._cwd:
            return
        self._cwd = cwd
        if change := self._language.change_directory:
            try:
                os.makedirs(cwd, exist_ok=True)
                self._quietly(change(cwd))
            except OSError as error:
                print(f"cannot use {cwd!r} as working directory: {error}", file=sys.stderr)

    def _set(self, env: Mapping[str, str]) -> None:
        if (snippet := self._language.set_variable) and env:
            self._quietly("\n".join(snippet(name, value) for name, value in env.items()))

    def _unset(self, names: list[str]) -> None:
        if (snippet := self._language.unset_variable) and names:
            self._quietly("\n".join(map(snippet, names)))

    def _run(self, run_id: str, code: str, env: Mapping[str, str]) -> None:
        self._channel.begin(run_id)
        self._set(env)
        self._interrupted, self._running = False, True
        self._execute(code, silent=False)
        self._running = False
        self._unset([name for name in env if name not in self._globals])
        self._set({name: self._globals[name] for name in env if name in self._globals})
        self._channel.end(self._count)

    def _quietly(self, code: str) -> None:
        self._execute(code, silent=True)

    def _execute(self, code: str, *, silent: bool) -> None:
        """Run code and, unless it is silent, send what it shows."""
        cell = _Cell(self._channel, silent, self._language.displays_values)
        cell.ids.add(self._client.execute(code, silent=silent, store_history=not silent, allow_stdin=False))
        while not cell.idle:
            self._take(cell)
        if self._language.fence is not None and not silent:
            word = f"--{secrets.token_hex(8)}--"
            cell.ids.add(self._client.execute(self._language.fence(word), silent=True, store_history=False))
            cell.fence(word)
            deadline = time.monotonic() + _FENCE_S
            while cell.fenced and time.monotonic() < deadline:
                self._take(cell)
        self._finish(cell, code, silent)

    def _take(self, cell: _Cell) -> None:
        try:
            cell.take(self._client.get_iopub_msg(timeout=_LOOK_S))
        except queue.Empty:
            self._look()

    def _finish(self, cell: _Cell, code: str, silent: bool) -> None:
        """What only the reply says: how many cells there were, and errors that were not published."""
        with contextlib.suppress(queue.Empty):
            while (reply := self._client.get_shell_msg(timeout=_LOOK_S))["parent_header"].get("msg_id") not in cell.ids:
                pass
            content = reply["content"]
            if silent:
                return
            self._count = content.get("execution_count") or self._count + 1
            if content.get("status") == "error" and not cell.failed:
                name, value = content.get("ename") or "Error", content.get("evalue") or "the code failed"
                traceback = content.get("traceback") or []
                if self._interrupted:
                    name, value = "KeyboardInterrupt", "the code was interrupted"
                elif (said := self._syntax(code)) is not None:
                    name, value, traceback = said
                cell.fail(name, value, traceback)

    def _syntax(self, code: str) -> tuple[str, str, list[str]] | None:
        """Name, message and place of what is wrong with the code's syntax."""
        if not self._language.syntax:
            return None
        try:
            done = subprocess.run(
                self._language.syntax, env={**os.environ, **self._env}, input=code, capture_output=True, text=True,
                timeout=_SYNTAX_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return None
        said = _plain(done.stderr).strip()
        found = re.match(r"error: (\w+): (.*)", said)
        if done.returncode == 0 or found is None:
            return None
        place = re.sub(r"file://\S*?(?=:\d+:\d+$)", "<anonymous>", said.removeprefix("error: "), flags=re.MULTILINE)
        return found[1], found[2], place.splitlines()


class _Cell:
    """What the kernel publishes for one cell."""

    def __init__(self, channel: Channel, silent: bool, displays_values: bool) -> None:
        self._channel, self._silent, self._displays_values = channel, silent, displays_values
        self.ids: set[str] = set()
        self.idle = self.failed = False
        self.fenced: set[str] = set()
        self._word = ""

    def fence(self, word: str) -> None:
        """The word comes once on each of the ways that output takes."""
        self._word, self.fenced = word, {"stream", "display_data"}

    def take(self, message: Mapping[str, Any]) -> None:
        kind, content = message["msg_type"], message["content"]
        if message["parent_header"].get("msg_id") not in self.ids:
            return
        if kind == "status":
            self.idle |= content["execution_state"] == "idle"
        elif self._word and self._word in str(content):
            self.fenced.discard(kind)
        elif self._silent:
            pass
        elif kind == "stream":
            self._channel.send_text("stderr" if content["name"] == "stderr" else "stdout", content["text"])
        elif kind in ("execute_result", "display_data"):
            data = portable(content["data"])
            value = self._displays_values and not any(mime.startswith("image/") for mime in data)
            self._channel.send("result", data=data, main=value or kind == "execute_result")
        elif kind == "error":
            self.fail(content["ename"], content["evalue"], content["traceback"])

    def fail(self, name: str, value: str, traceback: list[str]) -> None:
        self.failed = True
        lines = "\n".join(traceback) or f"{name or 'Error'}: {value}"
        self._channel.send("error", name=_plain(name) or "Error", value=_plain(value), traceback=_plain(lines))


def _from_file(argv: list[str], directory: str) -> list[str]:
    """The command with its expression in a file."""
    if "-e" not in argv:
        return argv
    at, script = argv.index("-e"), os.path.join(directory, "kernel")
    with open(script, "w") as file:
        file.write(argv[at + 1] + "\n")
    return [*argv[:at], "-f", script, *argv[at + 2 :]]


def _plain(text: str) -> str:
    return _ESCAPES.sub("", text)


def _specification(name: str, language: Language) -> tuple[list[str], dict[str, str], bool]:
    """The command of a kernel, its environment, and whether it is interrupted by a message. Raises Unavailable."""
    import shutil

    from jupyter_client.kernelspec import KernelSpecManager

    if language.command:
        if shutil.which(language.command[0]) is None:
            raise Unavailable(f"this template has no {language.command[0]}, which runs {name}")
        return list(language.command), dict(language.env or {}), True
    known = KernelSpecManager().find_kernel_specs()
    found = sorted(kernel for kernel in known if kernel.startswith(language.kernels))
    if not found:
        raise Unavailable(f"this template has no kernel for {name!r}; it has {', '.join(sorted(known)) or 'none'}")
    spec = KernelSpecManager().get_kernel_spec(name if name in found else found[-1])
    argv = [part.replace("{resource_dir}", spec.resource_dir) for part in spec.argv]
    if argv[0] in ("python", "python3"):
        argv[0] = sys.executable
    return argv, dict(spec.env), spec.interrupt_mode == "message"


_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
