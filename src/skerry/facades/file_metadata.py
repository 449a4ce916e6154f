"""A file's metadata in the headers of an upload: `X-Metadata-<key>: <value>`, as E2B's clients send it."""

from __future__ import annotations

from collections.abc import Mapping

_PREFIX = "x-metadata-"


def file_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """By key; names of headers, and so keys, are in lower case."""
    return {
        name.lower()[len(_PREFIX) :]: value
        for name, value in headers.items()
        if name.lower().startswith(_PREFIX) and len(name) > len(_PREFIX)
    }
