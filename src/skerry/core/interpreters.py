"""One interpreter process: what is written to it, and its events line by line (docs/reference/interpreter-protocol.md).

The interpreter runs beside hostile code, as the same user: whatever it says is checked, and nonsense is its death.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from skerry.models import ExecutionError, Result, Stderr, Stdout

LINE_MAX = 16 * 1024 * 1024

RunEvent = Stdout | Stderr | Result | ExecutionError


class Nonsense(Exception):
    """The interpreter did not speak its protocol."""


class Lines:
    """Cuts a stream of bytes into lines."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0
        self._skipping = False

    def skip_to_next(self) -> None:
        """Bytes are missing: what is left of the present line means nothing."""
        self._parts, self._held, self._skipping = [], 0, True

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes. Raises Nonsense for one beyond LINE_MAX."""
        *complete, rest = data.split(b"\n")
        lines = []
        for part in complete:
            if self._skipping:
                self._skipping = False
                continue
            self._parts.append(part)
            lines.append(b"".join(self._parts))
            self._parts, self._held = [], 0
        if rest and not self._skipping:
            self._parts.append(rest)
            self._held += len(rest)
            if self._held > LINE_MAX:
                raise Nonsense(f"its interpreter wrote a line of more than {LINE_MAX} bytes")
        return lines


def request(op: str, **fields: Any) -> bytes:
    """A line for the interpreter."""
    return json.dumps({"op": op, **fields}).encode() + b"\n"


def parse(line: bytes) -> dict[str, Any]:
    """Raises Nonsense for what is no event."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict) or not isinstance(event.get("event"), str):
        raise Nonsense("its interpreter wrote something that is no event")
    return event


def run_event(event: dict[str, Any]) -> RunEvent | None:
    """What an event of a run means to its caller; None for those that mean nothing to it. Raises Nonsense."""
    made = _RUN_EVENTS.get(event["event"])
    if made is None:
        return None
    try:
        return made(event)
    except (KeyError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        raise Nonsense(f"its interpreter wrote a wrong {event['event'][:20]} event") from error


_RUN_EVENTS: dict[str, Callable[[dict[str, Any]], RunEvent]] = {
    "stdout": lambda event: Stdout(text=event["text"]),
    "stderr": lambda event: Stderr(text=event["text"]),
    "result": lambda event: Result(data=event["data"], main=event["main"]),
    "error": lambda event: ExecutionError(name=event["name"], value=event["value"], traceback=event["traceback"]),
}
