"""What the agent's JSON means, checked field by field. Anything off is a violation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from skerry.errors import AgentViolation, Error
from skerry.models import Exit, FileInfo, Process, WatchEvent

T = TypeVar("T")

ALLOWED_ERRORS = frozenset(
    {"request.invalid", "process.cannot_start", "process.not_found", "user.not_found", "port.not_open", "internal"}
)
_MAX_MESSAGE = 4096


def error(content: dict[str, Any]) -> Error:
    """The error that the agent reports, of those it may."""
    code, message = content.get("code"), content.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        raise AgentViolation("the agent reported an error without code or message")
    if code not in ALLOWED_ERRORS and not (code.startswith("file.") and Error.lookup(code) is not Error):
        raise AgentViolation(f"the agent reported an error of code {code[:100]!r}")
    return Error.lookup(code)(message[:_MAX_MESSAGE])


def process(content: Any) -> Process:
    return _decoded("process", _process, content)


def offsets(content: Any) -> tuple[int, int]:
    """Offsets of standard output and error of what follows on this channel."""
    return _decoded("offsets", _offsets, content)


def exit_(content: Any) -> Exit:
    return _decoded("exit", _exit, content)


def file_info(content: Any) -> FileInfo:
    return _decoded("file", _file_info, content)


def watch_event(content: Any) -> WatchEvent:
    return _decoded("watch event", WatchEvent.model_validate, content)


def items(content: dict[str, Any], name: str) -> list[Any]:
    """The list under `name`."""
    found = content.get(name)
    if not isinstance(found, list):
        raise AgentViolation(f"the agent sent no list of {name}")
    return found


def dropped(content: dict[str, Any]) -> tuple[int, int] | None:
    """The stream and the number of bytes that were lost; None when the item says something else."""
    found = content.get("dropped")
    if not isinstance(found, dict):
        return None
    stream, count = found.get("stream"), found.get("bytes")
    if stream not in (1, 2) or type(count) is not int or not 0 < count < 2**62:
        raise AgentViolation("the agent reported lost output in a wrong form")
    return int(stream), count


def _decoded(what: str, decode: Callable[[Any], T], content: Any) -> T:
    try:
        return decode(content)
    except (ValidationError, KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise AgentViolation(f"the agent sent a {what} in a wrong form: {type(error).__name__}") from error


def _process(content: dict[str, Any]) -> Process:
    return Process(
        pid=_count(content["pid"]),
        command=content["argv"],
        cwd=content["cwd"],
        user=content["user"],
        tag=content["tag"],
        terminal=content["pty"],
        started_at=_moment(content["started_unix_ns"]),
        exit=None if content["exit"] is None else _exit(content["exit"]),
    )


def _offsets(content: dict[str, Any]) -> tuple[int, int]:
    return _count(content["stdout_offset"]), _count(content["stderr_offset"])


def _exit(content: dict[str, Any]) -> Exit:
    return Exit(
        exit_code=content["exit_code"],
        signal=content["signal"],
        reason=content["reason"],
        duration_s=_count(content["duration_ms"]) / 1000,
    )


def _file_info(content: dict[str, Any]) -> FileInfo:
    return FileInfo(
        name=content["name"],
        path=content["path"],
        type=content["type"],
        size=_count(content["size"]),
        mode=_count(content["mode"]),
        uid=_count(content["uid"]),
        gid=_count(content["gid"]),
        owner=content["owner"],
        group=content["group"],
        modified_at=_moment(content["modified_unix_ns"], clamp=True),
        target=content["target"],
        target_type=content["target_type"],
        metadata=content.get("metadata") or {},
    )


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("not a count")
    return value


_EPOCH_MAX = 253_402_300_799  # end of the year 9999, which is as far as datetime goes


def _moment(nanoseconds: Any, clamp: bool = False) -> datetime:
    """`clamp`: a file's time is its owner's to set, so an absurd one is no violation."""
    if type(nanoseconds) is not int:
        raise ValueError("not a time")
    seconds = nanoseconds / 1e9
    if clamp:
        seconds = min(max(seconds, 0), _EPOCH_MAX)
    return datetime.fromtimestamp(seconds, UTC)
