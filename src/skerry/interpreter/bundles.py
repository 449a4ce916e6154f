"""MIME bundles as the protocol carries them: text, base64 and JSON."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from .channel import LINE_MAX

_ROOM = LINE_MAX - 64 * 1024  # for the rest of the line
_PER_CHARACTER = 6  # bytes at most: an escaped control character


def portable(bundle: Mapping[str, Any]) -> dict[str, Any]:
    """The same bundle, able to be sent: bytes as base64, everything else as JSON, and not too large."""
    data = {str(mime): _content(content) for mime, content in bundle.items()}
    if all(isinstance(content, str) and len(content) < _ROOM // _PER_CHARACTER // 16 for content in data.values()):
        return data
    if sum(map(_size, data.values())) > _ROOM:
        return {"text/plain": _too_large(data)}
    return data


def _content(content: Any) -> Any:
    if isinstance(content, str):
        return content
    if isinstance(content, bytes):
        return b64encode(content).decode()
    try:
        return json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return repr(content)


def _size(content: Any) -> int:
    return len(json.dumps(content, ensure_ascii=False).encode(errors="replace"))


def _too_large(data: Mapping[str, Any]) -> str:
    text = data.get("text/plain")
    begin = text[:10_000] + "\n" if isinstance(text, str) else ""
    kinds = ", ".join(data)
    return f"{begin}[a result of more than {LINE_MAX // 2**20} MiB was left out: {kinds}; write it to a file instead]"
