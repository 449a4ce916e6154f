"""Requests that are wrong, too large, cut short or never read: a clear answer each, never a 500, and nothing is left behind."""

import json
import time
from contextlib import suppress

import pytest

from .conftest import Server, eventually


def error(reply: tuple[int, dict]) -> tuple[int, str]:
    status, body = reply
    assert set(body["error"]) == {"code", "message", "retryable", "details"}
    return status, body["error"]["code"]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b"null", b'{"tempalte": "base"}', b'{"timeout_s": "soon"}', b'{"timeout_s": -1}',
        b'{"timeout_s": NaN}', b'{"timeout_s": 1e400}', b'{"env": {"A=B": "x"}}', b'{"env": {"A": 1}}', b'{"env": {"A": "x\\u0000"}}',
        b'{"cpu": 0}', b'{"memory_mib": 1.5}', b'{"memory_mib": true}', b'{"metadata": {"k": null}}',
        b'{"isolation": "none"}', b"\xff\xfe", b'{"template": ""}', b'{"tenant_id": "other"}',
    ],
)  # fmt: skip
def test_a_wrong_body_is_refused(server: Server, body: bytes) -> None:
    assert error(server.request("POST", "/v1/sandboxes", body, "content-type: application/json")) == (
        400,
        "request.invalid",
    )


def test_the_place_of_the_mistake_is_named(server: Server) -> None:
    _, body = server.request("POST", "/v1/sandboxes", b'{"cpu": "two"}', "content-type: application/json")
    assert "cpu" in json.dumps(body["error"])


def test_unknown_things_are_not_found(server: Server) -> None:
    assert error(server.request("GET", "/v1/sandboxes/none")) == (404, "sandbox.not_found")
    assert error(server.request("POST", "/v1/sandboxes", b'{"template": "no such"}')) == (404, "template.not_found")
    assert error(server.request("GET", "/v2/nothing")) == (404, "not_found")
    assert server.request("PUT", "/v1/sandboxes")[0] == 405


def test_isolation_that_is_not_there_is_refused_not_weakened(server: Server) -> None:
    assert error(server.request("POST", "/v1/sandboxes", b'{"isolation": "microvm"}')) == (422, "isolation.unavailable")


def test_ten_megabytes_of_json_get_an_answer(server: Server) -> None:
    body = json.dumps({"metadata": {str(n): "x" * 4000 for n in range(2500)}}).encode()
    assert error(server.request("POST", "/v1/sandboxes", body))[0] in (400, 413)
    assert error(server.request("POST", "/v1/sandboxes", b'{"env": {"A": "' + b"x" * (40 << 20) + b'"}}')) == (
        413, "request.too_large",
    )  # fmt: skip


def test_a_body_of_unannounced_size_is_bounded_too(server: Server) -> None:
    body = b'{"env": {"A": "' + b"x" * (20 << 20) + b'"}}'
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    reply = server.send_raw(
        f"POST /v1/sandboxes HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.api_key}\r\n"
        "transfer-encoding: chunked\r\n\r\n".encode()
        + chunked
    )
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"request.too_large" in reply


def test_a_command_too_long_is_refused_by_its_limit(server: Server) -> None:
    with server.sandbox() as sandbox:
        for argument, limit in (("x" * 300_000, "262144"), ("x" * 200_000, "131071")):
            body = json.dumps({"command": ["echo", argument]}).encode()
            status, reply = server.request("POST", f"/v1/sandboxes/{sandbox.id}/processes/run", body)
            assert status in (400, 413)
            assert limit in reply["error"]["message"]
        body = json.dumps({"command": ["true"], "env": {"A": "x" * 131_000}}).encode()
        assert server.request("POST", f"/v1/sandboxes/{sandbox.id}/processes/run", body)[0] == 200


def test_an_environment_too_large_is_refused(server: Server) -> None:
    status, body = server.request("POST", "/v1/sandboxes", json.dumps({"env": {"A": "x" * 140_000}}).encode())
    assert error((status, body)) == (400, "request.invalid")
    assert "131072" in body["error"]["message"]


def test_deep_json_is_refused(server: Server) -> None:
    assert error(server.request("POST", "/v1/sandboxes", b"[" * 100_000))[0] == 400


@pytest.mark.parametrize("key", ["", "wrong", "sk_" + "0" * 40])
def test_a_wrong_key_is_refused(server: Server, key: str) -> None:
    assert error(server.request("GET", "/v1/sandboxes", key=key)) == (401, "auth.invalid")


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "cursor=garbage", "state=dead", "metadata=novalue", "limit=1&limit=x"]
)
def test_a_wrong_query_is_refused(server: Server, query: str) -> None:
    assert error(server.request("GET", f"/v1/sandboxes?{query}")) == (400, "request.invalid")


def test_headers_without_end_cost_nothing_and_nobody_waits(server: Server) -> None:
    before = server.memory_mib()
    for _ in range(4):
        with server.open_socket() as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nx-a: ")
            with suppress(ConnectionError):
                for _ in range(100):
                    connection.sendall(b"a" * (1 << 20))
            assert server.request("GET", "/v2/sandboxes")[0] == 200, "others are answered meanwhile"
    assert server.memory_mib() - before < 30
    reply = server.send_raw(b"GET / HTTP/1.1\r\nhost: x\r\nx-a: " + b"a" * (1 << 20) + b"\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 431 ")


def test_a_client_that_leaves_kills_what_it_was_waiting_for(server: Server) -> None:
    with server.sandbox() as sandbox:
        body = json.dumps({"command": ["sleep", "987"]}).encode()
        with server.open_socket() as connection:
            connection.sendall(
                f"POST /v1/sandboxes/{sandbox.id}/processes/run HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.api_key}\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            eventually(lambda: "987" in sandbox.exec("pgrep -af 'sleep 98[7]' || true").stdout)
        eventually(lambda: "987" not in sandbox.exec("pgrep -af 'sleep 98[7]' || true").stdout)


def test_a_client_that_leaves_interrupts_its_code(server: Server) -> None:
    with server.sandbox() as sandbox:
        sandbox.run_code("import time; finished = False")
        body = json.dumps({"code": "time.sleep(600)\nfinished = True"}).encode()
        with server.open_socket() as connection:
            connection.sendall(
                f"POST /v1/sandboxes/{sandbox.id}/code/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.api_key}\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            time.sleep(0.5)
        assert sandbox.run_code("finished", timeout=30).text == "False"


def test_a_client_that_never_reads_costs_a_bounded_amount(server: Server) -> None:
    with server.sandbox() as sandbox, server.open_socket() as connection:
        before = server.memory_mib()
        body = json.dumps({"command": "yes"}).encode()
        connection.sendall(
            f"POST /v1/sandboxes/{sandbox.id}/processes/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.api_key}\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        time.sleep(3)
        assert server.memory_mib() - before < 60
        assert sandbox.exec(["echo", "served meanwhile"]).stdout == "served meanwhile\n"


def test_the_same_idempotency_key_makes_one_sandbox(server: Server) -> None:
    body = b'{"metadata": {"test": "idempotent"}}'
    first = server.request("POST", "/v1/sandboxes", body, "idempotency-key: test-1")
    again = server.request("POST", "/v1/sandboxes", body, "idempotency-key: test-1")
    other = server.request("POST", "/v1/sandboxes", b"{}", "idempotency-key: test-1")
    assert first[0] == again[0] == 201
    assert first[1]["id"] == again[1]["id"]
    assert error(other) == (409, "conflict")
    assert server.request("DELETE", f"/v1/sandboxes/{first[1]['id']}")[0] == 204
