"""The door: decides from host name, headers and path which application answers.

A request for a sandbox is known by its host, `<port>-<sandbox>.<domain>`, or, where the host is the server itself, by
the headers `E2b-Sandbox-Id` and `E2b-Sandbox-Port`. Everything else is for a control plane: ours below `/v1` and what
else it serves, E2B's on the paths that it knows.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from skerry.core import Core
from skerry.core.records import template_of
from skerry.core.tokens import Tokens
from skerry.errors import Error, SandboxNotFound, SandboxNotRunning
from skerry.facades.e2b.errors import NOT_FOUND, NOT_OPEN, no_port, plain_error, rest_error, unavailable
from skerry.facades.e2b.rest import keeps_memory
from skerry.facades.e2b.sandbox import ENVD, TRAFFIC, SandboxCall, facts_of
from skerry.facades.proxy import Destination, Proxied, proxy_websocket, query_of
from skerry.models import ResumeSpec, Sandbox, SandboxState

ENVD_PORT, INTERPRETER_PORT = 49983, 49999
_NAME = re.compile(r"(\d{1,5})-([a-z0-9]+)(?:-[a-z0-9]+)?")
_E2B_PATH = re.compile(
    r"/(v[23]/(sandboxes|templates)|sandboxes|templates|snapshots|volumes|volumecontent|secrets)(/.*)?"
)

_AWAKE_S = 300.0
"""What a sandbox that a request has resumed gets at least."""
_OURS = frozenset({b"e2b-sandbox-id", b"e2b-sandbox-port", b"e2b-traffic-access-token"})


@dataclass(frozen=True)
class Front:
    """An ASGI application in front of all others."""

    core: Core
    tokens: Tokens
    domain: str | None
    """Below which names lead to sandboxes; None: only headers do."""
    names: frozenset[str]
    """Of the server itself, beside those that `_is_server` knows."""
    native: ASGIApp
    control: ASGIApp
    envd: ASGIApp
    interpreter: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.native(scope, receive, send)
        elif (asked := _preflight(scope, self.domain, self.names)) is not None:
            await getattr(self, asked)(scope, receive, send)
        elif (address := _address(connection := HTTPConnection(scope), self.domain, self.names)) is not None:
            await self._sandbox(*address, scope, receive, send)
        elif scope["type"] == "http" and _asks_by_header(connection):
            await _misdirected(connection)(scope, receive, send)
        elif scope["type"] == "http" and _E2B_PATH.fullmatch(scope["path"]):
            await self.control(scope, receive, send)
        else:
            await self.native(scope, receive, send)

    async def _sandbox(self, sandbox_id: str, port: int, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        try:
            record = await self.core.sandboxes.usable(sandbox_id)
        except SandboxNotRunning:
            await unavailable(connection, sandbox_id, NOT_FOUND)(scope, receive, send)
            return
        if record.sandbox.state is SandboxState.PAUSED and not keeps_memory(record.sandbox):
            await unavailable(connection, sandbox_id, NOT_FOUND)(scope, receive, send)  # a request boots nothing
            return
        call = SandboxCall(
            self.core, self.tokens, record.tenant_id, sandbox_id, facts_of(record), template_of(record).user
        )
        scope["skerry.sandbox"] = call
        token = connection.headers.get("e2b-traffic-access-token", "")
        if scope["type"] == "websocket" and port in (ENVD_PORT, INTERPRETER_PORT):
            await plain_error(404, "this service of the sandbox speaks no WebSocket")(scope, receive, send)
        elif port != ENVD_PORT and not call.facts.public and not call.tokens.fits(token, call.id, TRAFFIC):
            shown = {"sandboxId": call.id, "message": "The traffic access token is missing or wrong", "code": 403}
            await JSONResponse(shown, 403)(scope, receive, send)
        elif record.sandbox.state is SandboxState.PAUSED and (
            refusal := await _not_awake(call, record.sandbox, port, connection)
        ):
            await refusal(scope, receive, send)
        elif port == ENVD_PORT:  # has a token of its own
            await self.envd(scope, receive, send)
        elif port == INTERPRETER_PORT:
            await self.interpreter(scope, receive, send)
        elif 1 <= port <= 65535:
            await _pass_on(call, port, scope, receive, send)
        else:
            await unavailable(connection, sandbox_id, NOT_OPEN, port)(scope, receive, send)


def _host(connection: HTTPConnection) -> str:
    """The name in the URL, without its port."""
    return re.sub(r":\d+$", "", connection.headers.get("host", "").lower())


def _asks_by_header(connection: HTTPConnection) -> bool:
    headers = connection.headers
    return "e2b-sandbox-id" in headers and re.fullmatch("[0-9]{1,5}", headers.get("e2b-sandbox-port", "")) is not None


def _address(connection: HTTPConnection, domain: str | None, names: frozenset[str]) -> tuple[str, int] | None:
    """Sandbox and port that a request is for."""
    name = _host(connection)
    below = name.removesuffix(f".{domain}") if domain is not None and name.endswith(f".{domain}") else ""
    if found := _NAME.fullmatch(below):
        return found[2], int(found[1])
    if _asks_by_header(connection) and _is_server(name, domain, names):
        headers = connection.headers
        return headers["e2b-sandbox-id"].partition("-")[0], int(headers["e2b-sandbox-port"])
    return None


def _misdirected(connection: HTTPConnection) -> Response:
    """To one that reaches us by a name that might be anybody's: a page of a sandbox's, or one whose name was made to
    lead here, must not say by header which sandbox a browser talks to."""
    name = _host(connection)
    message = f"{name!r} is not known to be this server: add it to the setting SKERRY_SERVER_NAMES"
    return JSONResponse({"code": "failed_precondition", "message": message}, 421)


def _preflight(scope: Scope, domain: str | None, names: frozenset[str]) -> str | None:
    """Which service a browser's question is for, whether a page may call it; None: it is no such question to us.

    Where headers say which sandbox is meant, the question only names them.
    """
    if scope["type"] != "http" or scope["method"] != "OPTIONS":
        return None
    connection = HTTPConnection(scope)
    name, headers = _host(connection), connection.headers
    if "origin" not in headers or "access-control-request-method" not in headers:
        return None
    if domain is not None and name.endswith(f".{domain}"):
        found = _NAME.fullmatch(name.removesuffix(f".{domain}"))
        if found is not None:
            return {ENVD_PORT: "envd", INTERPRETER_PORT: "interpreter"}.get(int(found[1]))
    asked = headers.get("access-control-request-headers", "").lower()
    if "e2b-sandbox-id" in asked and _is_server(name, domain, names):
        return "envd"
    return "control" if _E2B_PATH.fullmatch(scope["path"]) else None


def _is_server(name: str, domain: str | None, names: frozenset[str]) -> bool:
    """Whether this names the server itself: then headers may say which sandbox is meant."""
    if name == "localhost" or name in names or (domain is not None and name in (domain, f"sandbox.{domain}")):
        return True
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


async def _not_awake(call: SandboxCall, sandbox: Sandbox, port: int, connection: HTTPConnection) -> Response | None:
    """Resume a paused one, for who may use it. Returns what to answer when that did not work."""
    if port == ENVD_PORT and call.facts.secure:
        token = connection.headers.get("x-access-token", "")
        if not call.tokens.fits(token, call.id, ENVD):  # a signed address may be as good, as envd will see
            return unavailable(connection, call.id, NOT_FOUND) if connection.scope["path"] == "/health" else None
    spec = ResumeSpec(timeout_s=None if sandbox.timeout_s is None else max(sandbox.timeout_s, _AWAKE_S))
    try:
        await call.core.lifecycle.resume(*call.where, spec)
    except (SandboxNotRunning, SandboxNotFound):
        return unavailable(connection, call.id, NOT_FOUND)
    except Error as error:
        return rest_error(error)
    return None


async def _pass_on(call: SandboxCall, port: int, scope: Scope, receive: Receive, send: Send) -> None:
    """To the program that listens on that port."""
    connection = HTTPConnection(scope)
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    host = (
        call.facts.mask_host.replace("${PORT}", str(port))
        if call.facts.mask_host
        else connection.headers.get("host", "")
    )
    to = Destination(
        call.core,
        call.tenant_id,
        call.id,
        port,
        target=raw + query_of(scope),
        host=host.encode("latin-1"),
        hidden=_OURS,
    )

    def refusal(error: Error) -> Response:
        return no_port(connection, call.id, port, error)

    if scope["type"] == "websocket":
        await proxy_websocket(WebSocket(scope, receive, send), to, refusal)
        return
    try:
        await Proxied(Request(scope, receive), to)(scope, receive, send)
    except Error as error:
        await refusal(error)(scope, receive, send)
