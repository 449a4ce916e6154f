"""The one shape of every error, both ways."""

import pytest

from skerry import errors
from skerry.errors import Error


@pytest.mark.parametrize("code", sorted(errors.registered()))
def test_every_error_survives_the_wire(code: str) -> None:
    made = errors.registered()[code]("cannot do it: why", limit=3)
    read = Error.from_wire(made.to_wire())
    assert type(read) is type(made)
    assert (read.message, read.details) == (made.message, made.details)
    assert 400 <= made.status < 600


def test_an_unknown_code_becomes_a_plain_error() -> None:
    read = Error.from_wire({"error": {"code": "from.the.future", "message": "m", "details": []}})
    assert type(read) is Error
    assert (read.message, read.details) == ("m", {})
    assert Error.from_wire("nonsense", "fallback").message == "fallback"


def test_a_code_is_taken_once() -> None:
    with pytest.raises(TypeError, match="already taken"):
        type("Again", (Error,), {}, code="internal", status=500)
