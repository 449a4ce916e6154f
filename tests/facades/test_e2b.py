"""The E2B façade without a sandbox: who is asked for, and what is no message."""

from __future__ import annotations

import gzip
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection, Request

from skerry.core.tokens import Tokens
from skerry.errors import HostFull
from skerry.facades.e2b.connect import _messages, _only_message, envelope
from skerry.facades.e2b.encodings import chosen, gzipped, inflated
from skerry.facades.e2b.errors import ConnectError
from skerry.facades.e2b.files import _parts, signature
from skerry.facades.e2b.front import _address, _preflight
from skerry.facades.e2b.lifecycle import _forked
from skerry.facades.e2b.read import json_object
from skerry.facades.e2b.sandbox import Facts
from skerry.models import Fork

pytestmark = pytest.mark.anyio


NAMES = frozenset({"vm.lan"})


def request(body: bytes, pieces: int = 7, **headers: str) -> Request:
    """A POST whose body comes in pieces."""
    left = [body[at : at + pieces] for at in range(0, len(body), pieces)]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0) if left else b"", "more_body": bool(left)}

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": raw}, receive)


@pytest.mark.parametrize(
    ("host", "path", "asked", "service"),
    [
        ("127.0.0.1:7070", "/v2/sandboxes", "x-api-key", "control"), ("127.0.0.1:7070", "/v1/sandboxes", "x-api-key", None),
        ("localhost:7070", "/files", "e2b-sandbox-id,e2b-sandbox-port", "envd"),
        ("evil.example", "/files", "e2b-sandbox-id,e2b-sandbox-port", None),
        ("vm.lan:7070", "/files", "e2b-sandbox-id,e2b-sandbox-port", "envd"),
        ("49983-sb1.sbx.localhost", "/files", "", "envd"), ("49999-sb1.sbx.localhost", "/execute", "", "interpreter"),
        ("3000-sb1.sbx.localhost", "/sandboxes", "", None), ("api.sbx.localhost", "/sandboxes", "", "control"),
    ],
)  # fmt: skip
async def test_which_service_answers_a_browsers_question(host: str, path: str, asked: str, service: str | None) -> None:
    headers = {"host": host, "origin": "http://page", "access-control-request-method": "POST"}
    if asked:
        headers["access-control-request-headers"] = asked
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "OPTIONS", "path": path, "headers": raw}
    assert _preflight(scope, "sbx.localhost", NAMES) == service
    assert _preflight({**scope, "method": "GET"}, "sbx.localhost", NAMES) is None
    assert _preflight({**scope, "headers": raw[:1]}, "sbx.localhost", NAMES) is None


@pytest.mark.parametrize(
    ("host", "headers", "found"),
    [
        ("49983-sb12.sbx.localhost:8443", {}, ("sb12", 49983)),
        ("49983-SB12.SBX.localhost", {}, ("sb12", 49983)),
        ("8080-sb12-client.sbx.localhost", {}, ("sb12", 8080)),
        ("api.sbx.localhost", {}, None),
        ("sbx.localhost", {}, None),
        ("8080-sb12.elsewhere.example", {}, None),
        ("8080-sb12.x.sbx.localhost", {}, None),
        ("127.0.0.1:7070", {"e2b-sandbox-id": "sb12", "e2b-sandbox-port": "49999"}, ("sb12", 49999)),
        ("[::1]:7070", {"e2b-sandbox-id": "sb12", "e2b-sandbox-port": "49999"}, ("sb12", 49999)),
        ("localhost", {"e2b-sandbox-id": "sb12-client", "e2b-sandbox-port": "1"}, ("sb12", 1)),
        ("sandbox.sbx.localhost", {"e2b-sandbox-id": "sb12", "e2b-sandbox-port": "1"}, ("sb12", 1)),
        # A name decides before a header does, and a foreign name never lets a header decide.
        ("8080-sb12.sbx.localhost", {"e2b-sandbox-id": "sb99", "e2b-sandbox-port": "1"}, ("sb12", 8080)),
        ("evil.example", {"e2b-sandbox-id": "sb12", "e2b-sandbox-port": "1"}, None),
        ("VM.lan:7070", {"e2b-sandbox-id": "sb12", "e2b-sandbox-port": "1"}, ("sb12", 1)),
        ("x.vm.lan", {"e2b-sandbox-id": "sb12", "e2b-sandbox-port": "1"}, None),
        ("localhost", {"e2b-sandbox-id": "sb12", "e2b-sandbox-port": "x"}, None),
    ],
)
async def test_which_sandbox_a_request_is_for(host: str, headers: dict[str, str], found: object) -> None:
    raw = [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in headers.items())]
    assert _address(HTTPConnection({"type": "http", "headers": raw}), "sbx.localhost", NAMES) == found


async def test_without_a_domain_names_lead_nowhere() -> None:
    connection = HTTPConnection({"type": "http", "headers": [(b"host", b"8080-sb12.sbx.localhost")]})
    assert _address(connection, None, NAMES) is None


async def test_a_fork_that_there_is_not_has_its_error() -> None:
    fork = Fork(error=HostFull("no room for it").to_wire()["error"])
    caller: Any = None
    assert _forked(caller, fork, Facts()) == {"error": {"code": 503, "message": "no room for it"}}


async def messages(body: bytes, pieces: int = 7) -> list[dict[str, Any]]:
    return [message async for message in _messages(request(body, pieces))]


async def test_messages_come_in_any_pieces() -> None:
    body = envelope({"a": 1}) + envelope({"b": "ü" * 100}) + envelope({}, 2) + b"ignored after the end"
    for pieces in (1, 5, 1000):
        assert await messages(body, pieces) == [{"a": 1}, {"b": "ü" * 100}]


@pytest.mark.parametrize(
    "body",
    [
        envelope({"a": 1})[:-1], b"\0\0\0", b"\0" + struct.pack(">I", 2**31) + b"x", b"\0" + struct.pack(">I", 3) + b"[1]",
        b"\0" + struct.pack(">I", 1) + b"{", b"\1" + struct.pack(">I", 2) + b"{}", b"\0" + struct.pack(">I", 4) + b"\xff" * 4,
    ],
)  # fmt: skip
async def test_what_is_no_message_is_told(body: bytes) -> None:
    with pytest.raises(ConnectError):
        await messages(body)


@pytest.mark.parametrize("body", [b"", envelope({}, 2), envelope({"a": 1}) * 2])
async def test_a_stream_that_must_have_one_message(body: bytes) -> None:
    with pytest.raises(ConnectError):
        await _only_message(request(body))


async def test_what_comes_after_the_one_message_is_not_gathered() -> None:
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        assert sent < 10, "it reads on and on"
        return {"type": "http.request", "body": envelope({"a": "x" * 1000}), "more_body": True}

    with pytest.raises(ConnectError):
        await _only_message(Request({"type": "http", "method": "POST", "headers": []}, receive))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    async def read() -> None:
        with suppress(ConnectError):
            await messages(body)

    anyio.run(read)


async def form(body: bytes, boundary: bytes = b"b", pieces: int = 7) -> list[tuple[str, str, bytes]]:
    async def source() -> AsyncIterator[bytes]:
        for at in range(0, len(body), pieces):
            yield body[at : at + pieces]

    return [
        (part.name, part.filename, b"".join([chunk async for chunk in part.chunks()]))
        async for part in _parts(source(), boundary)
    ]


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="/tmp/a"\r\n\r\none\r\n--\r\n--b\r\n'
    b'content-disposition: form-data; name="file"; filename="b"\r\nContent-Type: x/y\r\n\r\n\r\n--b--\r\n'
)


@pytest.mark.parametrize("pieces", [1, 3, 10, 1000])
async def test_forms_come_in_any_pieces(pieces: int) -> None:
    assert await form(FORM, pieces=pieces) == [("file", "/tmp/a", b"one\r\n--"), ("file", "b", b"")]


@pytest.mark.parametrize("body", [FORM[:60], FORM[:80], b"nonsense" * 10, b"--c\r\n\r\n--c--"])
async def test_broken_forms_are_told(body: bytes) -> None:
    with pytest.raises(ConnectError):
        await form(body)


async def test_headers_of_parts_are_bounded() -> None:
    for header in (b"x" * 100_000 + b": y", b"x: " + b"y" * 100_000):
        with pytest.raises(ConnectError, match="header"):
            await form(b"--b\r\n" + header + b"\r\n\r\n\r\n--b--\r\n", pieces=4096)


async def test_bodies_are_inflated_in_bounded_pieces() -> None:
    content = b"x" * 5_000_000
    pieces = [piece async for piece in inflated(request(gzip.compress(content), 1000, content_encoding="gzip"))]
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 256 * 1024


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"no gzip", "gzip"),
        (gzip.compress(b"x" * 1000)[:-9], "gzip"),
        (b"x", "br"),
        (b"", "gzip"),
        (gzip.compress(b"x") + b"junk", "gzip"),
        (gzip.compress(b"x") + b"\0", "gzip"),
        (gzip.compress(b"x") * 2 + b"\x1f", "gzip"),
    ],
)
async def test_what_is_not_compressed_as_it_says_is_told(body: bytes, encoding: str) -> None:
    with pytest.raises(ConnectError):
        async for _ in inflated(request(body, content_encoding=encoding)):
            pass


async def test_members_of_gzip_are_one_content() -> None:
    body = gzip.compress(b"one, ") + gzip.compress(b"") + gzip.compress(b"two")
    for pieces in (1, 7, 10_000):
        found = [piece async for piece in inflated(request(body, pieces, content_encoding="gzip"))]
        assert b"".join(found) == b"one, two"


async def test_a_compressed_message() -> None:
    assert await json_object(request(gzip.compress(b'{"a": 1}'), content_encoding="gzip")) == {"a": 1}
    data = gzip.compress(b'{"a": 1}')
    body = b"\1" + struct.pack(">I", len(data)) + data
    assert [found async for found in _messages(request(body, connect_content_encoding="gzip"))] == [{"a": 1}]
    with pytest.raises(ConnectError, match="known here"):
        await messages(body)
    with pytest.raises(ConnectError, match="larger than the limit"):
        await json_object(request(gzip.compress(b" " * 20_000_000), content_encoding="gzip"))


@pytest.mark.parametrize(
    ("header", "ranged", "encoding"),
    [
        ("", False, "identity"),
        ("gzip", False, "gzip"),
        ("gzip", True, "identity"),
        ("gzip, deflate", False, "identity"),
        ("gzip;q=1, identity;q=0", False, "gzip"),
        ("gzip;q=1, identity;q=0", True, None),
        ("gzip;q=0", False, "identity"),
        ("*;q=0", False, None),
        ("*;q=0, identity", False, "identity"),
        ("identity;q=0", False, None),
    ],
)
def test_encodings(header: str, ranged: bool, encoding: str | None) -> None:
    assert chosen(header, ranged=ranged) == encoding


async def test_content_is_compressed_on_its_way() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    packing = gzipped(send)
    head = [(b"content-length", b"6"), (b"x", b"y")]
    await packing({"type": "http.response.start", "status": 200, "headers": head})
    for piece in (b"abc", b"def"):
        await packing({"type": "http.response.body", "body": piece, "more_body": True})
    await packing({"type": "http.response.body", "body": b"", "more_body": False})
    assert sent[0]["headers"] == [(b"x", b"y"), (b"content-encoding", b"gzip")]
    assert gzip.decompress(b"".join(message["body"] for message in sent[1:])) == b"abcdef"
    assert [message["more_body"] for message in sent[1:]].count(False) == 1


def test_signatures_are_those_of_the_clients() -> None:
    # Made by `e2b.sandbox.signature.get_signature` of e2b 2.63.0.
    assert signature("a", "read", "user", "token", None) == "v1_T/XAVfj5I+0plvAXVNjlomTObAIze666YtC45Fe9NFY"
    assert signature("a", "write", "", "token", 1795922428) == "v1_rQt4K/yZHO2G3wJLqJiCvBS2eKsNw1gnXSe+Ydt0tWE"


def test_tokens_are_each_sandboxes_own() -> None:
    tokens = Tokens(b"secret")
    token = tokens.of("a", "p")
    assert tokens.fits(token, "a", "p")
    assert not tokens.fits(token, "b", "p")
    assert not tokens.fits(token, "a", "q")
    assert not Tokens(b"other").fits(token, "a", "p")
    assert not tokens.fits("é", "a", "p")
