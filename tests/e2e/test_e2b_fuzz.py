"""Every field of every request of E2B's clients, and of the native API, with values that nobody would send: no fault."""

from __future__ import annotations

import copy
import json
import struct
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .conftest import Server

VALUES: list[Any] = [
    None, True, 1, 1.5, -1, 10**30, 10**400, "", "x", "\ud800", "a\0b", [], {}, [[]], [1], [None], ["\ud800"], {"a": 1}, {"a": None},
    {"": ""}, {"\ud800": "x"}, {"a": "\ud800"}, "x" * 70_000,
]  # fmt: skip
GONE = {"process": {"pid": 999_999, "tag": None}}
UNARY: dict[str, dict[str, Any]] = {
    "process.Process/SendInput": {**GONE, "input": {"stdin": "aGk=", "pty": None}},
    "process.Process/SendSignal": {**GONE, "signal": "SIGNAL_SIGTERM"},
    "process.Process/Update": {**GONE, "pty": {"size": {"cols": 1, "rows": 1}}},
    "process.Process/CloseStdin": GONE,
    "process.Process/List": {"more": 1},
    "filesystem.Filesystem/Stat": {"path": "/etc"},
    "filesystem.Filesystem/MakeDir": {"path": "/tmp/made"},
    "filesystem.Filesystem/Move": {"source": "/tmp/none", "destination": "/tmp/other"},
    "filesystem.Filesystem/ListDir": {"path": "/tmp", "depth": 1},
    "filesystem.Filesystem/Remove": {"path": "/tmp/nothing/here"},
    "filesystem.Filesystem/CreateWatcher": {"path": "/tmp/none", "recursive": True, "includeEntry": True},
    "filesystem.Filesystem/GetWatcherEvents": {"watcherId": "x"},
    "filesystem.Filesystem/RemoveWatcher": {"watcherId": "x"},
}
STREAMS: dict[str, dict[str, Any]] = {
    "process.Process/Start": {
        "process": {"cmd": "/none", "args": ["x"], "envs": {"A": "b"}, "cwd": "/tmp"}, "pty": None, "tag": "a", "stdin": False,
    },
    "process.Process/Connect": GONE,
    "process.Process/StreamInput": {"start": GONE, "data": {"input": {"stdin": "x"}}, "keepalive": {}},
    "filesystem.Filesystem/WatchDir": {"path": "/none", "recursive": True, "includeEntry": True},
}  # fmt: skip
INTERPRETER: dict[str, dict[str, Any]] = {
    "execute": {"code": "1", "context_id": "none", "language": None, "env_vars": {"A": "b"}},
    "contexts": {"language": "none", "cwd": "/tmp"},
}
CONTROL: dict[str, dict[str, Any]] = {
    "POST v2/sandboxes": {
        "templateID": "none", "timeout": 5, "metadata": {"a": "b"}, "envVars": {"a": "b"}, "secure": True, "allow_internet_access": True,
        "network": {"allowPublicTraffic": True, "maskRequestHost": "a"}, "volumeMounts": [], "autoPause": False, "iam": None,
    },
    "POST sandboxes": {"templateID": "none", "timeout": 5},
    "POST sandboxes/{id}/timeout": {"timeout": 500},
    "POST sandboxes/{id}/connect": {"timeout": 500},
    "POST v2/sandboxes/{id}/connect": {"timeout": 500},
    "POST sandboxes/{id}/refreshes": {"duration": 50},
    "POST v3/templates": {"name": "fuzzed", "tags": ["a"], "cpuCount": 1, "memoryMB": 512, "minFreeDiskMb": 1, "alias": "x"},
    "POST v2/templates/none/builds/none": {
        "fromTemplate": "none", "fromImage": None, "fromImageRegistry": {"type": "registry", "username": "a", "password": "b"},
        "steps": [], "startCmd": "x", "readyCmd": "y", "force": False,
    },
    "POST templates/tags": {"target": "none:x", "tags": ["a"]},
    "DELETE templates/tags": {"name": "none", "tags": ["a"]},
}  # fmt: skip
NATIVE: dict[str, dict[str, Any]] = {
    "POST v1/sandboxes": {"template": "none", "timeout_s": 5, "metadata": {"a": "b"}, "env": {"a": "b"}, "internet": True, "cpu": 1},
    "PATCH v1/sandboxes/{id}": {"timeout_s": 500, "metadata": {"a": "b"}},
    "POST v1/sandboxes/{id}/processes/run": {"command": ["/none"], "env": {"A": "b"}, "cwd": "/tmp", "user": "user", "timeout_s": 1},
    "POST v1/sandboxes/{id}/contexts": {"language": "none", "cwd": "/tmp"},
    "POST v1/sandboxes/{id}/code/run": {"code": "1", "context_id": "none", "env": {"A": "b"}},
    "POST v1/sandboxes/{id}/files/directories": {"path": "/tmp/x"},
}  # fmt: skip
REQUESTS = [
    *((f"POST {name}", "envd", content) for name, content in UNARY.items()),
    *((f"POST {name}", "stream", content) for name, content in STREAMS.items()),
    *((f"POST {name}", "interpreter", content) for name, content in INTERPRETER.items()),
    *((name, "control", content) for name, content in {**CONTROL, **NATIVE}.items()),
]


class Target:
    """A server with a sandbox in it."""

    def __init__(self, server: Server, connection: HTTPConnection) -> None:
        self._server, self._connection = server, connection
        self._new()

    def _new(self) -> None:
        made = json.loads(self._request("POST", "v2/sandboxes", b'{"templateID": "base", "timeout": 600}')[1])
        self._id, self._token = made["sandboxID"], made["envdAccessToken"]

    def _request(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
        ours = {"host": "localhost", "x-api-key": self._server.api_key, "content-type": "application/json"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, f"/{path}", body, ours | named)
        reply = self._connection.getresponse()
        return reply.status, reply.read()

    def send(self, name: str, kind: str, content: Any) -> None:
        """It must be answered, and not with a fault."""
        method, path = name.split(" ")
        body, headers = json.dumps(content).encode(), {}
        if kind != "control":
            port = "49999" if kind == "interpreter" else "49983"
            headers = {"e2b_sandbox_id": self._id, "e2b_sandbox_port": port, "x_access_token": self._token}
        if kind == "stream":
            headers["content_type"] = "application/connect+json"
            body = b"\0" + struct.pack(">I", len(body)) + body
        status, reply = self._request(method, path.format(id=self._id), body, **headers)
        assert status < 500 or (status, b"cannot run" in reply) == (500, True), (name, content, reply)
        assert b'"internal"' not in reply, (name, content, reply)
        if status == 201 and b"sandboxID" in reply:
            self._request("DELETE", f"sandboxes/{json.loads(reply)['sandboxID']}")


@pytest.fixture(scope="module")
def target(server: Server) -> Iterator[Target]:
    address, logged = urlsplit(server.api_url), server.log.stat().st_size
    with closing(HTTPConnection(address.hostname, address.port, timeout=20)) as connection:  # type: ignore[arg-type]
        yield Target(server, connection)
    with server.log.open("rb") as log:
        log.seek(logged)
        assert b"Traceback" not in log.read()


def mutations(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """It with each of its fields, at any depth, replaced by each value."""
    for name, there in content.items():
        for value in VALUES:
            yield {**content, name: value}
        if isinstance(there, dict):
            for changed in mutations(there):
                yield {**content, name: changed}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "kind", "content"), REQUESTS, ids=[name for name, _, _ in REQUESTS])
def test_no_value_of_any_field_is_a_fault(target: Target, name: str, kind: str, content: dict[str, Any]) -> None:
    for changed in mutations(content):
        target.send(name, kind, copy.deepcopy(changed))


STEP = {"type": "RUN", "args": ["x"], "filesHash": None, "force": False}


def test_no_value_in_a_step_is_a_fault(target: Target) -> None:
    for step in [*mutations(STEP), *VALUES]:
        target.send("POST v2/templates/none/builds/none", "control", {"fromTemplate": "none", "steps": [step]})


characters = st.characters(categories=None)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(characters, max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(characters, max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.timeout(300)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(request=st.sampled_from(REQUESTS), data=st.data())
def test_no_content_at_all_is_a_fault(
    target: Target, request: tuple[str, str, dict[str, Any]], data: st.DataObject
) -> None:
    name, kind, content = request
    fields = data.draw(st.fixed_dictionaries({field: st.just(value) | anything for field, value in content.items()}))
    target.send(name, kind, data.draw(st.just(fields) | anything))
