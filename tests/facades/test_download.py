"""Which part of a file is asked for."""

from __future__ import annotations

import pytest

from skerry.facades.download import parse_range


@pytest.mark.parametrize(
    ("header", "found"),
    [(None, None), ("bytes=0-9", (0, 9)), ("bytes=5-", (5, None)), ("bytes=-5", (None, 5)), ("bytes=9-0", None), ("bytes=-", None),
     ("lines=1-2", None), ("bytes=0-1,3-4", None)],
)  # fmt: skip
def test_ranges(header: str | None, found: object) -> None:
    assert parse_range(header) == found
