"""`skerry shell`: an interactive terminal."""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import threading
import tty
from typing import Annotated

import typer

from skerry import Sandbox
from skerry.cli.embedded import reachable_server
from skerry.errors import InvalidRequest
from skerry.sdk._sync.pty import Terminal


def shell(
    sandbox: Annotated[
        str | None, typer.Argument(help="The sandbox's id; default: a new one, destroyed at the end.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="User to be; default: the template's.")] = None,
    template: Annotated[str, typer.Option(help="What a new sandbox is made from.")] = "base",
) -> int:
    """Open a shell in a sandbox. The exit status is the shell's."""
    if not sys.stdin.isatty():
        raise InvalidRequest("cannot open a shell: standard input is no terminal; use `skerry exec` or `skerry run`")
    if sandbox is not None:
        return _interact(Sandbox.connect(sandbox), user)
    with reachable_server() as server, Sandbox.create(template=template, timeout=None, **server) as fresh:
        return _interact(fresh, user)


def _interact(sandbox: Sandbox, user: str | None) -> int:
    size = shutil.get_terminal_size()
    with sandbox.pty.open(size.columns, size.lines, user=user) as terminal:
        before = termios.tcgetattr(sys.stdin)
        wake_read, wake_write = os.pipe()
        signal.signal(signal.SIGWINCH, lambda *_: os.write(wake_write, b"r"))
        done = threading.Thread(target=_print, args=(terminal, wake_write), daemon=True)
        try:
            tty.setraw(sys.stdin)
            done.start()
            _type(terminal, wake_read)
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
            signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        done.join(5)
        return terminal.exit.exit_code if terminal.exit else 1


def _print(terminal: Terminal, wake: int) -> None:
    """Output to the screen, until the program ends."""
    try:
        while data := terminal.receive():
            os.write(1, data)
    finally:
        os.write(wake, b"q")


def _type(terminal: Terminal, wake: int) -> None:
    """Keys to the program, and the window's size, until the program ends."""
    while True:
        ready, _, _ = select.select([sys.stdin, wake], [], [])
        if wake in ready:
            if b"q" in os.read(wake, 64):
                return
            size = shutil.get_terminal_size()
            terminal.resize(size.columns, size.lines)
        if sys.stdin in ready:
            terminal.send(os.read(sys.stdin.fileno(), 4096))
