"""E2B's control plane: sandboxes and templates, in the shapes of both generations of its SDKs."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from skerry import __version__
from skerry.core import Core
from skerry.core.templates import DEFAULT_TAG, parse
from skerry.core.tokens import Tokens
from skerry.errors import Error, SandboxNotFound, SandboxNotRunning
from skerry.facades.e2b import lifecycle, logs, snapshots, templates, volumes
from skerry.facades.e2b.browsers import PAGES
from skerry.facades.e2b.errors import first_problem, plain_error, rest_error
from skerry.facades.e2b.lifecycle import V1_TIMEOUT_S, V2_TIMEOUT_S, Seconds
from skerry.facades.e2b.rest import RESTING, Body, Caller, CallerOf, cut, listed, moment, opened, record_of
from skerry.facades.e2b.sandbox import ENVD, FACTS, Facts, Use, facts_of, measured
from skerry.facades.limits import BodyLimit, BodyRefused
from skerry.facades.requests import FAULT, Route, left
from skerry.models import OnTimeout, Sandbox, SandboxSpec, SandboxState

_STATES = {"running": (SandboxState.RUNNING,), "paused": RESTING}
_MEASURED_MAX = 100
"""E2B's buckets of time."""
_STREAMED = re.compile(f"{templates.STREAMED.pattern}|{volumes.STREAMED.pattern}")


class Network(Body):
    """Of its rules, those that this server knows; what else is asked for is in `model_extra`."""

    model_config = ConfigDict(extra="allow")

    allowPublicTraffic: bool | None = None
    maskRequestHost: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_${}-]{1,253}$")] | None = None


class AutoResume(Body):
    enabled: bool | None = None


class NewSandbox(Body):
    templateID: Annotated[str, Field(min_length=1, max_length=256)]
    timeout: Seconds | None = None
    secure: bool | None = None
    allow_internet_access: bool | None = None
    metadata: dict[str, str] | None = None
    envVars: dict[str, str] | None = None
    autoPause: bool | None = None
    autoPauseMemory: bool | None = None
    autoResume: AutoResume | None = None
    network: Network = Network()
    volumeMounts: Annotated[list[volumes.NewMount], Field(max_length=32)] | None = None
    iam: dict[str, Any] | None = None

    @property
    def wakes(self) -> bool:
        """Whether a request resumes it."""
        return self.autoResume is not None and self.autoResume.enabled is True

    def refused(self) -> str | None:
        """What is asked for and not there, or contradicts itself: it must not be left out silently."""
        if self.autoPauseMemory is False and not self.autoPause:
            return "autoPauseMemory=false only applies when autoPause is true"
        if self.autoPauseMemory is False and self.wakes:
            return "autoPauseMemory=false cannot be combined with autoResume: without memory it is resumed explicitly"
        missing = {
            "iam": self.iam,
            **{f"network.{name}": value for name, value in (self.network.model_extra or {}).items()},
        }  # fmt: skip
        asked = [name for name, value in missing.items() if value]
        return f"not supported by this server yet: {', '.join(asked)}" if asked else None


def create_app(core: Core, tokens: Tokens, domain: str | None, *, body_limit: int = 16 * 1024 * 1024) -> FastAPI:
    """The control plane.

    Args:
        domain: below which sandboxes are reached, with its port; None: only through the server's own address.
        body_limit: bytes of a JSON body.
    """
    app = FastAPI(
        title="Skerry: E2B", version=__version__, docs_url=None, redoc_url=None, strict_content_type=False,
        redirect_slashes=False, middleware=[PAGES],
    )  # fmt: skip
    app.router.route_class = Route
    app.state.core, app.state.tokens, app.state.domain = core, tokens, domain
    app.add_exception_handler(Error, _error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(ValidationError, _invalid)
    app.add_middleware(BodyLimit, limit=body_limit, render=rest_error, streamed=_STREAMED)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, left)
    app.add_exception_handler(Exception, _fault)
    app.post("/sandboxes", status_code=201)(create_v1)
    app.post("/v2/sandboxes", status_code=201)(create_v2)
    app.get("/sandboxes")(listing_v1)
    app.get("/sandboxes/metrics")(metrics_of_many)
    app.get("/v2/sandboxes")(listing)
    app.get("/sandboxes/{sandbox_id}")(detail)
    app.delete("/sandboxes/{sandbox_id}", status_code=204, response_class=Response)(kill)
    app.get("/sandboxes/{sandbox_id}/metrics")(metrics)
    app.put("/sandboxes/{sandbox_id}/network")(set_network)
    lifecycle.add_routes(app)
    snapshots.add_routes(app)
    logs.add_routes(app)
    templates.add_routes(app)
    volumes.add_routes(app)
    return app


async def _error(_: Request, error: Exception) -> Response:
    assert isinstance(error, Error)
    return rest_error(error)


async def _invalid(_: Request, error: Exception) -> Response:
    if isinstance(error, ValidationError):
        return plain_error(400, f"error validating the request: {first_problem(error)}")
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "body"
    return plain_error(400, f"error validating the request: {where}: {first['msg']}")


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, BodyRefused):
        return rest_error(error.error, error.headers)
    return plain_error(error.status_code, f"{request.method} {request.url.path}: {error.detail}")


async def _fault(request: Request, error: Exception) -> Response:
    return plain_error(500, FAULT)


# --- sandboxes ------------------------------------------------------------------------------------------------------


async def create_v1(caller: CallerOf, wanted: NewSandbox) -> Response:
    """`POST /sandboxes`: of SDKs up to 2.45."""
    return await _create(caller, wanted, V1_TIMEOUT_S, secure=wanted.secure is True, key=None)


async def create_v2(
    caller: CallerOf, wanted: NewSandbox,
    idempotency_key: Annotated[str | None, Header(pattern="^[A-Za-z0-9_-]{1,255}$")] = None,
) -> Response:  # fmt: skip
    """`POST /v2/sandboxes`: always secured."""
    return await _create(caller, wanted, V2_TIMEOUT_S, secure=True, key=idempotency_key)


async def _create(caller: Caller, wanted: NewSandbox, default_s: int, *, secure: bool, key: str | None) -> Response:
    timeout_s = default_s if wanted.timeout is None else wanted.timeout
    if timeout_s <= 0:
        return plain_error(400, "Timeout must be greater than 0")
    if refusal := wanted.refused():
        return plain_error(400, refusal)
    public = wanted.network.allowPublicTraffic is not False
    if not public and not secure:
        return plain_error(400, "allowPublicTraffic=false needs a secure sandbox")
    facts = Facts(secure, public, wanted.network.maskRequestHost)
    spec = SandboxSpec(
        template=wanted.templateID, snapshot=await snapshots.meant(caller, wanted.templateID),
        timeout_s=float(timeout_s), metadata=wanted.metadata or {},
        env=wanted.envVars or {}, internet=wanted.allow_internet_access is not False,
        on_timeout=OnTimeout.PAUSE if wanted.autoPause else OnTimeout.KILL,
        keep_memory=wanted.autoPauseMemory is not False, auto_resume=wanted.wakes,
        volumes=[mount.wanted() for mount in wanted.volumeMounts or []],
    )  # fmt: skip
    sandbox = await caller.core.create(caller.tenant_id, spec, key, internal={FACTS: asdict(facts)})
    return JSONResponse(opened(caller, sandbox, facts), 201)


def _template_name(reference: str) -> str:
    """`[namespace/]alias[:tag]`, in any case, to the name that sandboxes of it have."""
    name, tag = parse(reference)
    return name if tag == DEFAULT_TAG else f"{name}:{tag}"


async def detail(caller: CallerOf, sandbox_id: str) -> Response:
    """`GET /sandboxes/{id}`."""
    record = await record_of(caller, sandbox_id)
    shown = {
        **listed(record.sandbox), "domain": caller.domain, "allowInternetAccess": record.sandbox.internet,
    }  # fmt: skip
    if facts_of(record).secure:
        shown["envdAccessToken"] = caller.tokens.of(record.sandbox.id, ENVD)
    return JSONResponse(shown)


async def listing(
    caller: CallerOf, metadata: str | None = None, state: str | None = None, template: str | None = None,
    order: Annotated[str, Query(pattern="^(asc|desc)$")] = "desc",
    started_after: Annotated[datetime | None, Query(alias="startedAfter")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 100,
    next_token: Annotated[str | None, Query(alias="nextToken")] = None,
) -> Response:  # fmt: skip
    """`GET /v2/sandboxes`: newest first unless told otherwise, by pages."""
    names = (state or "running,paused").split(",")
    if not _STATES.keys() >= set(names):
        return plain_error(400, f"state must be running, paused or both, not {state}")
    page = await caller.core.sandboxes.page(
        caller.tenant_id, states=[state for name in names for state in _STATES[name]], metadata=_filter(metadata),
        limit=limit, cursor=next_token or None, template=None if template is None else _template_name(template),
        created_since=None if started_after is None else _in_utc(started_after), oldest_first=order == "asc",
    )  # fmt: skip
    headers = {"X-Next-Token": page.next_cursor} if page.next_cursor else {}
    return JSONResponse([listed(sandbox) for sandbox in page.items], headers=headers)


def _in_utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


async def listing_v1(caller: CallerOf, metadata: str | None = None) -> Response:
    """`GET /sandboxes`: all that run, in one answer."""
    found: list[Sandbox] = []
    cursor = None
    while True:
        page = await caller.core.sandboxes.page(
            caller.tenant_id, states=[SandboxState.RUNNING], metadata=_filter(metadata), limit=1000, cursor=cursor
        )
        found += page.items
        if (cursor := page.next_cursor) is None:
            return JSONResponse([listed(sandbox) for sandbox in found])


def _filter(metadata: str | None) -> dict[str, str]:
    """The pairs all of which a sandbox must have: encoded as a whole, and each name and value once more."""
    pairs = {}
    for pair in unquote(metadata or "").split("&"):
        name, equals, value = pair.partition("=")
        if equals:
            pairs[unquote(name)] = unquote(value)
    return pairs


async def kill(caller: CallerOf, sandbox_id: str) -> None:
    """`DELETE /sandboxes/{id}`."""
    record = await record_of(caller, sandbox_id)
    await caller.core.sandboxes.destroy(caller.tenant_id, record.sandbox.id)


async def set_network(caller: CallerOf, sandbox_id: str) -> Response:
    """`PUT /sandboxes/{id}/network`."""
    await record_of(caller, sandbox_id)
    return plain_error(501, "network rules are not supported by this server yet")


async def metrics(caller: CallerOf, sandbox_id: str, start: int | None = None, end: int | None = None) -> Response:
    """`GET /sandboxes/{id}/metrics`: its life so far, or the part of it in the range of Unix seconds."""
    record = await record_of(caller, sandbox_id)
    if record.sandbox.state in RESTING:
        return JSONResponse([])
    uses = await measured(caller.core, caller.tenant_id, record.sandbox.id)
    first, last = start or 0, end if end is not None else float("inf")
    return JSONResponse([_metric(use) for use in uses if first - 1 < use.at.timestamp() < last + 1])


async def metrics_of_many(caller: CallerOf, sandbox_ids: Annotated[str, Query(max_length=10_000)]) -> Response:
    """`GET /sandboxes/metrics`: the present of those that run, of a hundred at most."""
    wanted = {cut(part.strip()) for part in sandbox_ids.split(",") if part.strip()}
    if len(wanted) > _MEASURED_MAX:
        return plain_error(400, f"sandbox_ids: {len(wanted)} were named, and {_MEASURED_MAX} are possible")
    found = {}
    for sandbox_id in wanted:
        with suppress(SandboxNotFound, SandboxNotRunning):
            found[sandbox_id] = _metric((await measured(caller.core, caller.tenant_id, sandbox_id))[-1])
    return JSONResponse({"sandboxes": found})


def _metric(use: Use) -> dict[str, Any]:
    return {
        "timestamp": moment(use.at), "timestampUnix": int(use.at.timestamp()), "cpuCount": use.cpu_count,
        "cpuUsedPct": use.cpu_used_pct, "memUsed": use.mem_used, "memTotal": use.mem_total, "memCache": 0,
        "diskUsed": use.disk_used, "diskTotal": use.disk_total,
    }  # fmt: skip
