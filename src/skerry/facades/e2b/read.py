"""Reads a request's JSON and its fields, whose types nobody has checked. Every function raises ConnectError."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from skerry.facades.e2b.encodings import inflated
from skerry.facades.e2b.errors import ConnectError
from skerry.facades.requests import parse_json

Content = dict[str, Any]

MESSAGE_MAX = 16 * 1024 * 1024


async def json_object(request: Request) -> Content:
    """The whole body, without its compression."""
    data = bytearray()
    async for chunk in inflated(request, "unimplemented"):
        data += chunk
        if len(data) > MESSAGE_MAX:
            raise ConnectError("resource_exhausted", f"a request is larger than the limit of {MESSAGE_MAX} bytes")
    return object_of(data)


def object_of(data: bytes | bytearray) -> Content:
    """JSON that must be an object; empty when there is nothing."""
    try:
        content = parse_json(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise ConnectError("invalid_argument", f"the request is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ConnectError("invalid_argument", "the request is not a JSON object")
    return content


def mapping(content: Content, name: str) -> Content:
    """An object; empty when it is not there."""
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(name, "an object")
    return value


def text(content: Content, name: str) -> str:
    """A string; empty when it is not there."""
    return optional_text(content, name) or ""


def optional_text(content: Content, name: str) -> str | None:
    value = content.get(name)
    if value is not None and not isinstance(value, str):
        raise _wrong(name, "a string")
    if value and "\0" in value:
        raise _wrong(name, "a string without NUL characters")
    return value


def texts(content: Content, name: str) -> list[str]:
    """A list of strings; empty when it is not there."""
    value = content.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) and "\0" not in item for item in value):
        raise _wrong(name, "a list of strings without NUL characters")
    return value


def integer(content: Content, name: str, default: int = 0) -> int:
    """A number, which protobuf's JSON may write as a string."""
    value = content.get(name, default)
    try:
        if isinstance(value, bool | float):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise _wrong(name, "an integer") from None


def flag(content: Content, *names: str) -> bool:
    """Whether a field is true; protobuf's JSON takes both of its spellings."""
    return any(content.get(name) is True for name in names)


def _wrong(name: str, wanted: str) -> ConnectError:
    return ConnectError("invalid_argument", f"{name} must be {wanted}")
