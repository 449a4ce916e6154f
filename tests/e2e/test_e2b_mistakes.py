"""What E2B's clients would never send, and what others might: an answer in E2B's words each, never a 500, never a hang."""

from __future__ import annotations

import gzip
import json
import socket
import struct
from datetime import datetime
from typing import Any

import pytest

from skerry import Sandbox

from .conftest import Server


class Envd:
    """A sandbox's envd and ports, spoken to without a client."""

    def __init__(self, server: Server, sandbox_id: str, token: str | None) -> None:
        self.server, self.id, self.token = server, sandbox_id, token

    def __call__(
        self, method: str, path: str, body: bytes = b"", *headers: str, port: str = "49983", kind: str = "application/json",
    ) -> tuple[int, Any]:  # fmt: skip
        token = [] if self.token is None else [f"x-access-token: {self.token}"]
        return self.server.request(
            method, path, body, f"e2b-sandbox-id: {self.id}", f"e2b-sandbox-port: {port}", f"content-type: {kind}",
            *token, *headers,
        )  # fmt: skip


@pytest.fixture(scope="module")
def created(server: Server) -> Any:
    status, created = server.request("POST", "/v2/sandboxes", b'{"templateID": "base", "timeout": 300}')
    assert status == 201
    yield created
    server.request("DELETE", f"/sandboxes/{created['sandboxID']}")


@pytest.fixture
def envd(server: Server, created: Any) -> Envd:
    return Envd(server, created["sandboxID"], created["envdAccessToken"])


@pytest.mark.parametrize(
    ("path", "content", "code"),
    [
        ("/process.Process/SendInput", {"process": {"pid": 999999}, "input": {"stdin": "aGk="}}, "not_found"),
        ("/process.Process/SendInput", {"process": "x"}, "invalid_argument"),
        ("/process.Process/SendSignal", {"process": {"pid": 1.5}, "signal": "SIGNAL_SIGKILL"}, "invalid_argument"),
        ("/filesystem.Filesystem/Stat", {"path": "/nowhere"}, "not_found"),
        ("/filesystem.Filesystem/Stat", {"path": 5}, "invalid_argument"),
        ("/filesystem.Filesystem/Stat", {"path": "a\0b"}, "invalid_argument"),
        ("/filesystem.Filesystem/ListDir", {"path": "/etc/hostname"}, "invalid_argument"),
        ("/filesystem.Filesystem/ListDir", {"path": "/etc", "depth": "x"}, "invalid_argument"),
        ("/filesystem.Filesystem/MakeDir", {"path": "/etc"}, "already_exists"),
        ("/filesystem.Filesystem/MakeDir", {"path": "/root/x"}, "permission_denied"),
        ("/filesystem.Filesystem/GetWatcherEvents", {"watcherId": "none"}, "not_found"),
    ],
)
def test_unary_mistakes(envd: Envd, path: str, content: Any, code: str) -> None:
    status, reply = envd("POST", path, json.dumps(content).encode())
    assert 400 <= status < 500
    assert reply["code"] == code


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"process": {"cmd": "/no/such"}}, "invalid_argument"),
        ({"process": {"cmd": "true", "envs": {"A=B": "x"}}}, "invalid_argument"),
        ({"process": {"cmd": "true", "args": "x"}}, "invalid_argument"),
        ({"process": {"cmd": "true", "args": ["x" * 300_000]}}, "resource_exhausted"),
        ({"process": {"cmd": "true"}, "pty": {"size": {"cols": 0, "rows": -1}}}, "invalid_argument"),
        ({"process": {"cmd": "true"}, "tag": "x" * 300}, "invalid_argument"),
        ({}, "invalid_argument"),
    ],
)
def test_stream_mistakes_are_told_at_the_end_of_the_stream(server: Server, envd: Envd, content: Any, code: str) -> None:
    body = json.dumps(content).encode()
    request = (
        f"POST /process.Process/Start HTTP/1.1\r\nhost: localhost\r\ne2b-sandbox-id: {envd.id}\r\ne2b-sandbox-port: 49983\r\n"
        f"x-access-token: {envd.token}\r\ncontent-type: application/connect+json\r\ncontent-length: {len(body) + 5}\r\n"
        "connection: close\r\n\r\n"
    ).encode()
    with server.open_socket() as connection:
        connection.sendall(request + b"\0" + struct.pack(">I", len(body)) + body)
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert f'"code":"{code}"'.encode() in reply


def test_codecs_tokens_and_addresses(server: Server, envd: Envd) -> None:
    stat = b'{"path": "/etc"}'
    status, text = envd("POST", "/filesystem.Filesystem/Stat", stat, kind="application/proto")
    assert status == 415
    assert "application/json" in text
    assert Envd(server, envd.id, None)("POST", "/filesystem.Filesystem/Stat", stat)[1]["code"] == "unauthenticated"
    assert Envd(server, envd.id, "wrong")("POST", "/filesystem.Filesystem/Stat", stat)[0] == 401
    assert Envd(server, envd.id, "wrong")("GET", "/files?path=/etc/hostname")[0] == 401
    assert (
        Envd(server, envd.id, None)("GET", "/files?path=/etc/hostname&signature=v1_x")[1]["message"]
        == "invalid signature"
    )
    for path in ("/filesystem.Filesystem/Nope", "/foo.Bar/Nope"):
        status, reply = envd("POST", path, b"{}")
        assert (status, reply["code"]) == (404, "unimplemented")
    assert envd("GET", "/files?path=/etc/passwd", b"", f"range: bytes={'9' * 20}-")[0] == 416
    for path in ("/init", "/freeze", "/nothing"):
        assert envd("POST", path)[0] == 404
    assert Envd(server, "sbnothere", None)("GET", "/health") == (
        502, {"sandboxId": "sbnothere", "message": "The sandbox was not found", "code": 502},
    )  # fmt: skip
    for port in ("1", "70000"):
        status, reply = envd("GET", "/", port=port)
        assert (status, reply["message"]) == (502, "The sandbox is running but port is not open")
    assert envd("GET", "/", port="x")[0] == 404


def test_files(envd: Envd) -> None:
    assert envd("GET", "/files?path=/nowhere")[0] == 404
    assert envd("GET", "/files?path=/etc")[0] == 400
    assert envd("GET", "/files")[0] == 400
    assert envd("POST", "/files?path=/proc/x", b"x", kind="application/octet-stream")[0] == 403
    assert envd("POST", "/files?path=/tmp/x", b"x", "content-encoding: br", kind="application/octet-stream")[0] == 400
    assert envd("POST", "/files?path=/tmp/x", b"x", "content-encoding: gzip", kind="application/octet-stream")[0] == 400
    assert envd("POST", "/files?path=/tmp/x", b"x", kind="multipart/form-data")[0] == 400
    assert envd("POST", "/files?path=/tmp/x", b"x", kind="multipart/form-data; boundary=b")[0] == 400
    assert envd("POST", "/files?path=/tmp/x&username=nobody-here", b"x", kind="application/octet-stream")[0] == 401
    assert envd("GET", "/files?path=/tmp/x")[0] == 404, "nothing was left of any of them"
    assert envd("GET", "/files?path=/etc/hostname", b"", "accept-encoding: identity;q=0")[0] == 406
    packed = gzip.compress(b"x")
    for junk in (b"junk", b"\x1f"):
        assert (
            envd(
                "POST", "/files?path=/tmp/x", packed + junk, "content-encoding: gzip", kind="application/octet-stream"
            )[0]
            == 400
        )
    assert envd("GET", "/files?path=/tmp/x")[0] == 404
    assert (
        envd("POST", "/files?path=/tmp/two", packed * 2, "content-encoding: gzip", kind="application/octet-stream")[0]
        == 200
    )
    assert envd("GET", "/files?path=/tmp/two") == (200, "xx")
    stat = gzip.compress(b'{"path": "/tmp/two"}')
    assert envd("POST", "/filesystem.Filesystem/Stat", stat, "content-encoding: gzip")[1]["entry"]["size"] == "2"
    assert envd("POST", "/filesystem.Filesystem/Stat", stat, "content-encoding: br")[1]["code"] == "unimplemented"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400), (b"[]", 400), (b"{}", 400), (b'{"templateID": "base", "timeout": "x"}', 400),
        (b'{"templateID": "base", "timeout": 0}', 400), (b'{"templateID": "base", "timeout": 99999999999}', 400),
        (b'{"templateID": "none"}', 404), (b'{"templateID": "base", "envVars": {"A=B": "c"}}', 400),
        (b'{"templateID": "base", "metadata": {"": "c"}}', 400), (b'{"templateID": "base", "autoPauseMemory": false}', 400),
        (b'{"templateID": "base", "network": {"denyOut": ["0.0.0.0/0"]}}', 400),
        (b'{"templateID": "base", "network": {"maskRequestHost": "a\\r\\nb"}}', 400),
        (b'{"templateID": "base", "envVars": {"A": "' + b"x" * (20 << 20) + b'"}}', 413),
    ],
)  # fmt: skip
def test_the_control_plane(server: Server, body: bytes, status: int) -> None:
    answered, reply = server.request("POST", "/v2/sandboxes", body)
    assert answered == status, reply
    assert reply["code"] == status
    assert reply["message"]


def test_foreign_and_dead_sandboxes_are_missing(server: Server, sandbox_of_native_api: Sandbox) -> None:
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/timeout"), ("POST", "/connect"), ("GET", "/metrics"), ("POST", "/refreshes"),
    ):  # fmt: skip
        body = b'{"timeout": 5}' if method == "POST" else b""
        status, reply = server.request(method, f"/sandboxes/sbnothere{path}", body)
        assert (status, reply["message"]) == (404, "Sandbox \"sbnothere\" doesn't exist or you don't have access to it")
    assert server.request("GET", "/v2/sandboxes", key="e2b_" + "0" * 40)[0] == 401
    assert server.request("GET", f"/sandboxes/{sandbox_of_native_api.id}")[0] == 200, "one sandbox, whatever made it"


@pytest.fixture
def sandbox_of_native_api(server: Server) -> Any:
    with server.sandbox() as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "order=up", "startedAfter=x", "nextToken=garbage", "state=destroyed"]
)
def test_wrong_queries(server: Server, query: str) -> None:
    assert server.request("GET", f"/v2/sandboxes?{query}")[0] == 400


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/execute", b"{", 400, "not JSON"),
        ("POST", "/execute", b"[]", 400, "not a JSON object"),
        ("POST", "/execute", b'{"code": 5}', 400, "code must be a string"),
        ("POST", "/execute", b'{"code": "1", "language": "cobol"}', 500, "cobol"),
        ("POST", "/execute", b'{"code": "1", "context_id": "none"}', 404, "not found"),
        ("POST", "/execute", b'{"code": "1", "context_id": "x", "language": "python"}', 400, "Only one of"),
        ("DELETE", "/contexts/none", b"", 404, "not found"),
        ("POST", "/contexts/none/restart", b"", 404, "not found"),
    ],
)
def test_the_code_interpreter(envd: Envd, method: str, path: str, body: bytes, status: int, words: str) -> None:
    answered, text = envd(method, path, body, port="49999")
    assert answered == status, "500 for an unknown language is E2B's own answer"
    assert words in text


def test_code_wants_the_sandboxs_token(server: Server, envd: Envd) -> None:
    assert Envd(server, envd.id, "wrong")("POST", "/execute", b'{"code": "1"}', port="49999")[0] == 401
    assert Envd(server, envd.id, None)("POST", "/execute", b'{"code": "1"}', port="49999")[0] == 401
    assert envd("POST", "/execute", b'{"code": "1"}', port="49999")[0] == 200


def test_sandboxes_of_the_native_api_are_not_public(server: Server, sandbox_of_native_api: Sandbox) -> None:
    """Their ports want a key there, so they want a token here."""
    stranger = Envd(server, sandbox_of_native_api.id, None)
    assert stranger("GET", "/", port="8080")[0] == 403
    assert stranger("GET", "/contexts", port="49999")[0] == 403
    _, opened = server.request("POST", f"/v2/sandboxes/{sandbox_of_native_api.id}/connect", b"{}")
    token = f"e2b-traffic-access-token: {opened['trafficAccessToken']}"
    assert stranger("GET", "/contexts", b"", token, port="49999")[0] == 200


def test_metrics_are_measured(server: Server, envd: Envd) -> None:
    assert envd("POST", "/execute", b'{"code": "sum(range(30_000_000))"}', port="49999")[0] == 200
    _, metrics = server.request("GET", f"/sandboxes/{envd.id}/metrics")
    assert 0 < max(metric["cpuUsedPct"] for metric in metrics) <= 100
    assert all(0 < metric["memUsed"] < metric["memTotal"] for metric in metrics)
    assert 0 <= envd("GET", "/metrics")[1]["cpu_used_pct"] <= 100


def test_pages_of_other_origins_may_ask(server: Server, envd: Envd) -> None:
    asked = ("origin: http://page.example", "access-control-request-method: POST")
    preflight = b"OPTIONS %b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n%b\r\n\r\n"
    for path, more, allowed in (
        (b"/sandboxes", "access-control-request-headers: x-api-key", True),
        (b"/files", "access-control-request-headers: e2b-sandbox-id, x-access-token", True),
        (b"/v1/sandboxes", "access-control-request-headers: authorization", False),
    ):
        reply = server.send_raw(preflight % (path, "\r\n".join((*asked, more)).encode())).decode().lower()
        assert ("access-control-allow-origin: *" in reply) == allowed, reply
        assert reply.startswith("http/1.1 200") == allowed, reply


def test_logs_and_metrics(server: Server) -> None:
    with server.sandbox(timeout=60) as sandbox:
        _, reply = server.request("GET", f"/v2/sandboxes/{sandbox.id}/logs", b"", f"x-api-key: {server.api_key}")
        [entry] = reply["logs"]
        assert (entry["message"], entry["level"]) == ("sandbox.running", "info")
        at = int(datetime.fromisoformat(entry["timestamp"]).timestamp() * 1000)
        for query, count in (
            ("level=error", 0), ("search=running", 1), ("search=xyz", 0), (f"cursor={at + 2000}", 0), (f"cursor={at}", 1),
            (f"cursor={at - 2000}&direction=backward", 0), ("direction=backward", 1), ("limit=0", 0),
        ):  # fmt: skip
            _, reply = server.request(
                "GET", f"/v2/sandboxes/{sandbox.id}/logs?{query}", b"", f"x-api-key: {server.api_key}"
            )
            assert len(reply["logs"]) == count, query
        _, old = server.request("GET", f"/sandboxes/{sandbox.id}/logs", b"", f"x-api-key: {server.api_key}")
        assert old["logEntries"] == [entry]
        assert json.loads(old["logs"][0]["line"]) == entry
        _, many = server.request(
            "GET", f"/sandboxes/metrics?sandbox_ids={sandbox.id},sbnothere", b"", f"x-api-key: {server.api_key}"
        )
        assert list(many["sandboxes"]) == [sandbox.id]
        assert many["sandboxes"][sandbox.id]["memUsed"] > 0
    status, _ = server.request("GET", "/sandboxes/sbnothere/logs", b"", f"x-api-key: {server.api_key}")
    assert status == 404
    names = ",".join(f"sb{number}" for number in range(101))
    status, _ = server.request("GET", f"/sandboxes/metrics?sandbox_ids={names}", b"", f"x-api-key: {server.api_key}")
    assert status == 400


@pytest.mark.parametrize(
    ("path", "kind", "port"),
    [
        ("/process.Process/Start", "application/connect+json", "49983"),
        ("/process.Process/StreamInput", "application/connect+json", "49983"),
        ("/filesystem.Filesystem/Stat", "application/json", "49983"),
        ("/files?path=/tmp/cut", "application/octet-stream", "49983"),
        ("/execute", "application/json", "49999"),
        ("/v2/sandboxes", "application/json", ""),
        ("/v1/sandboxes", "application/json", ""),
        ("/v1/sandboxes/{id}/files?path=/tmp/cut", "application/octet-stream", ""),
    ],
)
def test_leaving_in_the_middle_of_a_request_is_no_fault(
    server: Server, envd: Envd, path: str, kind: str, port: str
) -> None:
    method = "PUT" if "/v1/sandboxes/" in path else "POST"
    logged = server.log.stat().st_size
    to_sandbox = f"e2b-sandbox-id: {envd.id}\r\ne2b-sandbox-port: {port}\r\n" if port else ""
    request = (
        f"{method} {path.format(id=envd.id)} HTTP/1.1\r\nhost: localhost\r\n{to_sandbox}x-access-token: {envd.token}\r\n"
        f"x-api-key: {server.api_key}\r\ncontent-type: {kind}\r\ncontent-length: 100\r\n\r\n"
    )
    server.send_raw(request.encode() + b"\0\0")
    with server.open_socket() as connection:
        connection.sendall(request.encode() + b"\0\0")
    assert envd("GET", "/health")[0] == 204
    assert envd("GET", "/files?path=/tmp/cut")[0] == 404
    assert "Traceback" not in server.log.read_text()[logged:]


@pytest.mark.parametrize("signal", [[], {}, 1.5, None, True, "SIGNAL_UNSPECIFIED", "15"])
def test_what_is_no_signal_is_refused(envd: Envd, server: Server, signal: Any) -> None:
    sandbox = server.connect(envd.id)
    process = sandbox.exec(["sleep", "60"], background=True)
    content = {"process": {"pid": process.pid}, "signal": signal}
    status, reply = envd("POST", "/process.Process/SendSignal", json.dumps(content).encode())
    assert (status, reply["code"]) == (400, "invalid_argument")
    process.kill()


def test_a_server_under_a_name_that_it_does_not_know_says_what_to_do(server: Server, envd: Envd) -> None:
    request = (
        f"GET /health HTTP/1.1\r\nhost: %s:7070\r\ne2b-sandbox-id: {envd.id}\r\ne2b-sandbox-port: 49983\r\n"
        "connection: close\r\n\r\n"
    )
    reply = server.send_raw((request % "elsewhere.example").encode())
    assert reply.startswith(b"HTTP/1.1 421 ")
    assert b"SKERRY_SERVER_NAMES" in reply
    assert server.send_raw((request % socket.gethostname()).encode()).startswith(b"HTTP/1.1 204 ")


GARBAGE = """
import socket, threading
listener = socket.create_server(("", 7777))
def speak():
    while True:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b"garbage\\r\\n\\r\\n")
        connection.close()
threading.Thread(target=speak, daemon=True).start()
"""
UPGRADE = (
    "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


def test_a_port_that_answers_nonsense_and_one_that_nobody_listens_on(server: Server, envd: Envd) -> None:
    assert envd("POST", "/execute", json.dumps({"code": GARBAGE}).encode(), port="49999")[0] == 200
    not_understood = "The sandbox is running but what listens on the port cannot be understood"
    not_open = "The sandbox is running but port is not open"
    for port, message in (("7777", not_understood), ("7778", not_open)):
        shown = {"sandboxId": envd.id, "message": message, "code": 502, "port": int(port)}
        assert envd("GET", "/", port=port) == (502, shown)
        # The same, asked for a WebSocket.
        head = f"GET / HTTP/1.1\r\nhost: localhost\r\ne2b-sandbox-id: {envd.id}\r\ne2b-sandbox-port: {port}\r\n{UPGRADE}\r\n"
        with server.open_socket() as connection:
            connection.sendall(head.encode())
            reply = b"".join(iter(lambda: connection.recv(65536), b""))
        assert reply.startswith(b"HTTP/1.1 502 ")
        assert json.loads(reply.partition(b"\r\n\r\n")[2]) == shown
        head = (
            f"GET /v1/sandboxes/{envd.id}/ports/{port}/ HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.api_key}\r\n"
            f"{UPGRADE}\r\n"
        )
        with server.open_socket() as connection:
            connection.sendall(head.encode())
            reply = b"".join(iter(lambda: connection.recv(65536), b""))
        assert reply.startswith(b"HTTP/1.1 502 ")
        assert b"port.not_" in reply


@pytest.mark.parametrize("port", ["49983", "49999", "70000"])
def test_a_websocket_to_what_speaks_none_is_told_so(server: Server, envd: Envd, port: str) -> None:
    head = (
        f"GET / HTTP/1.1\r\nhost: localhost\r\ne2b-sandbox-id: {envd.id}\r\ne2b-sandbox-port: {port}\r\n{UPGRADE}\r\n"
    )
    with server.open_socket() as connection:
        connection.sendall(head.encode())
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    content = json.loads(reply.partition(b"\r\n\r\n")[2])
    assert int(reply.split()[1]) == content["code"] == (502 if port == "70000" else 404)
