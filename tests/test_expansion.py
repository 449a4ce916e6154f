"""Words of a Dockerfile, by the examples of its reference and beyond."""

from __future__ import annotations

import pytest

from skerry.errors import InvalidRequest
from skerry.expansion import expand

VARIABLES = {"A": "1", "EMPTY": "", "PATH": "/bin:/usr/bin"}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("plain", "plain"), ("$A", "1"), ("${A}b", "1b"), ("$Ab", ""), ("x$A/y", "x1/y"), ("$NONE", ""), ("a$", "a$"),
        (r"\$A", "$A"), (r"\\$A", r"\1"), ("'$A'", "$A"), ('"$A b"', "1 b"), (r'"\$A \" \x"', r'$A " \x'),
        ("/opt:$PATH", "/opt:/bin:/usr/bin"), ("${NONE:-d}", "d"), ("${EMPTY:-d}", "d"), ("${EMPTY-d}", ""),
        ("${A:+y}", "y"), ("${NONE:+y}", ""), ("${EMPTY+y}", "y"), ("${EMPTY:+y}", ""),
        ("${NONE:-${A:-x}}", "1"), ("${NONE:-'a b'}c", "a bc"), ("two\\ words", "two words"), ("back\\", "back\\"),
    ],
)  # fmt: skip
def test_words(word: str, expected: str) -> None:
    assert expand(word, VARIABLES) == expected


@pytest.mark.parametrize("word", ["'open", '"open', "${A", "${}", "${A%x}", "${NONE:?is needed}", "${NONE:-" * 50])
def test_what_cannot_be_understood(word: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot understand"):
        expand(word, VARIABLES)


def test_what_would_be_too_long_is_refused_at_once() -> None:
    large = {"A": "x" * 100_000}
    assert len(expand("$A", large)) == 100_000
    for word in ("$A$A", '"$A$A"', "$A$A$A", '"$A$A$A"', "${NONE:-$A$A$A}", "y" * 200_000, "$A" * 60_000):
        with pytest.raises(InvalidRequest, match="longer than"):
            expand(word, large)


def test_a_deep_word_is_refused_and_does_no_harm() -> None:
    with pytest.raises(InvalidRequest, match="nested too deeply"):
        expand("${NONE:-" * 50 + "x" + "}" * 50, VARIABLES)
