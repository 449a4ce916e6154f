"""What goes over the wire, without sending it: where the server is, what its errors mean, how streams are cut. Pure."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

from skerry.errors import Error, InvalidRequest, Unauthenticated

DEFAULT_URL = "http://127.0.0.1:7070"
KEY_FILE = Path("/var/lib/skerry/data/api_key")
"""Where a server with the default data directory keeps its first key; readable by root."""
SILENCE_S = 45.0
"""A stream without even a heartbeat for that long is broken: the server sends one every 15 s."""
CONNECT_S = 10.0
_LINE_MAX = 64 * 1024 * 1024


class Unset(Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"


UNSET: Final = Unset.UNSET
"""Of an argument that was left out, where None means something."""


def resolve(api_url: str | None, api_key: str | None) -> tuple[str, str]:
    """The server and the key: arguments, then SKERRY_API_URL and SKERRY_API_KEY, then this machine's own server.

    Raises:
        Unauthenticated: there is no key anywhere.
    """
    url = (api_url or os.environ.get("SKERRY_API_URL") or DEFAULT_URL).rstrip("/")
    key = api_key or os.environ.get("SKERRY_API_KEY") or _own_key()
    if not key:
        raise Unauthenticated(
            f"cannot find an API key: set SKERRY_API_KEY, pass api_key=…, or let this user read {KEY_FILE}"
        )
    return url, key


def _own_key() -> str | None:
    try:
        return KEY_FILE.read_text().strip()
    except OSError:
        return None


def path_of(*parts: str, **query: Any) -> str:
    """A path below `/v1`, each part quoted; query parameters that are None are left out, lists repeated."""
    path = "/v1/" + "/".join(quote(part, safe="") for part in parts)
    given = {name: _text(value) for name, value in query.items() if value is not None}
    return path + ("?" + urlencode(given, doseq=True) if given else "")


def _text(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def error_of(status: int, content: bytes) -> Error:
    """The error that a reply of status ≥ 400 is."""
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    return Error.from_wire(body, f"the server answered with status {status}: {content[:200].decode(errors='replace')}")


def given(**fields: Any) -> dict[str, Any]:
    """A request body of the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def told(**fields: Any) -> dict[str, Any]:
    """A request body of the fields that were not left out."""
    return {name: value for name, value in fields.items() if value is not UNSET}


_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


def metadata_headers(metadata: Mapping[str, str]) -> dict[str, str]:
    """A file's metadata as headers of its upload. Raises InvalidRequest."""
    for key, value in metadata.items():
        if not _HEADER_NAME.fullmatch(key) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidRequest(
                f"cannot note {key!r}: a key is made of letters, digits and !#$%&'*+.^_`|~-, a value of printable ASCII"
            )
    return {f"X-Metadata-{key}": value for key, value in metadata.items()}


class Lines:
    """Cuts an NDJSON stream into events; drops heartbeats; raises the server's failure."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[Mapping[str, Any]]:
        """The events that `data` completes. Raises Error: the stream's failure."""
        *lines, rest = (bytes(self._held) + data).split(b"\n") if self._held else data.split(b"\n")
        self._held = bytearray(rest)
        if len(self._held) > _LINE_MAX:
            raise Error(f"the server sent a line of more than {_LINE_MAX} bytes")
        for line in lines:
            event = json.loads(line)
            if event["type"] == "heartbeat":
                continue
            if event["type"] == "failure":
                raise Error.from_wire(event)
            yield event
