"""The composition root: the only module that knows every part. Builds them, starts them, stops them."""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import anyio
import anyio.abc
import anyio.to_thread
import structlog
import uvicorn
import uvloop

from skerry.agentlink import Listener
from skerry.config import Settings
from skerry.core import Core
from skerry.core.builds import Builds
from skerry.core.core import DEFAULT_TENANT
from skerry.core.making import Workshop
from skerry.core.quota import Storage
from skerry.core.templates import Templates
from skerry.core.tokens import Tokens
from skerry.core.uploads import Uploads
from skerry.core.volume_files import VolumeFiles
from skerry.core.volumes import Volumes
from skerry.drivers.gvisor import Gvisor
from skerry.errors import Conflict, Error, InvalidRequest
from skerry.facades import e2b
from skerry.facades.connections import LOOK_EVERY_S, Http, cut_stalled
from skerry.facades.native import create_app
from skerry.facades.native.metrics import Metrics
from skerry.host import datadir, mounts
from skerry.host.cgroups import ControlGroups
from skerry.host.disks import Disks
from skerry.host.images import Images, mounted
from skerry.host.network import Network, enable_forwarding
from skerry.host.registry import Puller, registry_of
from skerry.host.runtime import prepare_runtime
from skerry.host.tls import Tls, private_tls, write_private
from skerry.host.volume_files import VolumeFiles as HostVolumeFiles
from skerry.host.volumes import Volumes as VolumeDisks
from skerry.models import Isolation, KeySpec
from skerry.node import Node, PoolSettings
from skerry.node.builder import Host
from skerry.node.records import Records
from skerry.node.states import States
from skerry.store.builds import SqlBuilds
from skerry.store.snapshots import SqlSnapshots
from skerry.store.sql import SqlStore
from skerry.store.volumes import SqlVolumes

logger = logging.getLogger(__name__)

IMAGES_UNUSED_S = 7 * 24 * 3600.0
"""How long layers that belong to no template are kept: a build may want them again."""
_DAY_S = 24 * 3600.0
_STOP_GRACE_S = 5
"""How long requests under way may go on when the server stops."""


def main(settings: Settings, *, json_line: bool = False, keep: bool = False) -> int:
    """Run a server until SIGTERM or SIGINT; the process's exit status.

    Args:
        json_line: print one line of JSON when ready, and nothing else, on standard output.
        keep: on stopping, leave sandboxes running for the next server on this data directory.
    """
    _configure_logging(settings.log_level)
    try:
        if os.geteuid() != 0:
            raise InvalidRequest("cannot start: the server needs root, to isolate what it runs; use sudo")
        if settings.is_remote and not settings.allow_remote:
            raise InvalidRequest(
                f"cannot listen on {settings.host}: other machines reach it; set --allow-remote if that is meant"
            )
        with _only_server(settings.data_dir):
            datadir.prepare(settings.data_dir)
            _enter_host()
            uvloop.run(_serve(settings, json_line=json_line, keep=keep))
    except Error as error:
        print(f"skerry: {error.message}", file=sys.stderr)
        return 1
    return 0


def _enter_host() -> None:
    """What must happen once, before there are threads."""
    assert threading.active_count() == 1
    if enable_forwarding():
        logger.info("switched on net.ipv4.ip_forward: sandboxes reach the internet through this host")
    mounts.enter_private_namespace()


async def _serve(settings: Settings, *, json_line: bool, keep: bool) -> None:
    doors = _Doors(settings)
    stopping = anyio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        # For good: a second signal must not cut short what the first one began.
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with running(settings, keep=keep) as (core, node, api_key):
        metrics = Metrics(node.pool_sizes)
        async with anyio.create_task_group() as group:
            app = _application(settings, core, metrics, doors.domain, group)
            servers = [_Uvicorn(app, settings.log_level, listener, tls) for listener, tls in doors.listeners]
            for server in servers:
                group.start_soon(server.run_until_told, group.cancel_scope)
            for server in servers:
                await server.ready.wait()
            doors.announce(settings, api_key, json_line)
            await stopping.wait()
            for server in servers:
                server.should_exit = True


def _application(
    settings: Settings, core: Core, metrics: Metrics, domain: str | None, group: anyio.abc.TaskGroup
) -> e2b.Front:
    tokens = Tokens(_secret(settings.data_dir))
    limit = settings.body_limit_mib << 20
    return e2b.Front(
        core, tokens, settings.domain, settings.own_names, native=create_app(core, metrics, body_limit=limit),
        control=e2b.create_app(core, tokens, domain, body_limit=limit),
        envd=e2b.create_envd(group), interpreter=e2b.create_interpreter(),
    )  # fmt: skip


def _secret(data_dir: Path) -> bytes:
    """32 random bytes that only this server knows, made at the first start."""
    path = data_dir / "secret"
    with suppress(FileNotFoundError):
        return path.read_bytes()
    secret = secrets.token_bytes(32)
    write_private(path, secret)
    return secret


@asynccontextmanager
async def running(settings: Settings, *, keep: bool = False) -> AsyncIterator[tuple[Core, Node, str]]:
    """All parts but HTTP, started; stopped on leaving.

    Yields:
        The core, the node, and the key made at the first start.

    Raises:
        IsolationUnavailable: this machine lacks something; the message says what to do.
    """
    images = Images(settings.images_dir)
    store = SqlStore(settings.data_dir / "skerry.db")
    cgroups = ControlGroups(f"skerry/{settings.instance}")
    cgroups.protect_server()
    volumes = VolumeDisks(settings.data_dir / "volumes", settings.data_dir / "volume-mounts")
    node = _node(settings, images, cgroups, volumes)
    core = _core(settings, node, store, images, volumes)
    try:
        await node.check()
        async with node, anyio.create_task_group() as group:
            await core.start(group)
            group.start_soon(_tidy_daily, core, images, name="daily tidying")
            api_key = await _first_key(core, settings.data_dir)
            with suppress(Error):
                node.keep_ready(images.template(settings.pool_template))
            try:
                yield core, node, api_key
            finally:
                node.keep = keep
                with anyio.CancelScope(shield=True):
                    await core.stop(keep=keep)
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await core.volumes.stop(keep=keep)
            await store.aclose()
        if not keep:
            cgroups.remove_root()
            shutil.rmtree(settings.run_dir / settings.instance, ignore_errors=True)
            shutil.rmtree(settings.data_dir / "mounts", ignore_errors=True)


async def _tidy_daily(core: Core, images: Images) -> None:
    """Forget old uploads, and old builds that nothing names; remove what no template is made of, some days after its
    last use."""
    while True:
        try:
            await core.uploads.tidy()
            await core.builds.tidy()
        except Exception:
            logger.exception("cannot forget old uploads and builds")
        try:
            removed = await anyio.to_thread.run_sync(lambda: images.collect(mounted(), IMAGES_UNUSED_S))
            if removed:
                logger.info("removed %d layers of images that nothing uses", len(removed))
        except Exception:
            logger.exception("cannot collect unused images")
        await anyio.sleep(_DAY_S)


def _core(settings: Settings, node: Node, store: SqlStore, images: Images, disks: VolumeDisks) -> Core:
    build_store = SqlBuilds(store)
    templates = Templates(images, build_store)
    uploads = Uploads(settings.data_dir / "build-files")
    workshop = Workshop(
        node, templates, images, _puller(settings, images), uploads, settings.image_aliases, settings.image_stand_ins
    )
    builds = Builds(build_store, templates, images, workshop)
    volumes = Volumes(
        disks, SqlVolumes(store), store, Storage(settings.storage_quota_mib), size_mib=settings.volume_size_mib,
        size_max_mib=settings.volume_size_max_mib,
    )  # fmt: skip
    return Core(
        node, store, templates, builds, uploads, SqlSnapshots(store), volumes,
        VolumeFiles(volumes, HostVolumeFiles(disks)), frozen_s=settings.paused_in_memory_s,
        reserve_mib=settings.paused_reserve_mib,
    )  # fmt: skip


def _puller(settings: Settings, images: Images) -> Puller:
    # Where an alias leads, whoever runs the server has said so.
    aliased = (registry_of(target) or registry_of(f"{target}/") for target in settings.image_aliases.values())
    private = frozenset(filter(None, aliased)) | frozenset(settings.private_registries)
    return Puller(images, frozenset(settings.insecure_registries), private)


def _node(settings: Settings, images: Images, cgroups: ControlGroups, volumes: VolumeDisks) -> Node:
    instance = settings.instance
    host = Host(
        drivers={Isolation.GVISOR: Gvisor(settings.run_dir / instance / "gvisor", cgroups.entry_files)},
        cgroups=cgroups,
        disks=Disks(settings.data_dir, settings.data_dir / "mounts"),
        volumes=volumes,
        network=Network(instance, settings.subnet, allowed=_proxies()),
        images=images,
        listener=lambda directory, token, on_lost: Listener(directory, token, on_lost),
        records=Records(settings.run_dir / instance / "sandboxes"),
        runtime_directory=prepare_runtime(settings.data_dir),
    )
    pools = PoolSettings(minimum=settings.pool_min, maximum=max(settings.pool_min, settings.pool_max))
    warm = settings.images_dir / "warm" if settings.warm_restore else None
    return Node(host, States(settings.data_dir / "states"), pools=pools, warm_directory=warm)


def _proxies() -> list[tuple[IPv4Address, int]]:
    """The host's HTTP proxies, which sandboxes may reach although their addresses are not public."""
    found = []
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        url = urlsplit(os.environ.get(name, ""))
        with suppress(OSError, ValueError):
            if url.hostname and url.port:
                found.append((IPv4Address(socket.gethostbyname(url.hostname)), url.port))
    return sorted(set(found))


async def _first_key(core: Core, data_dir: Path) -> str:
    """The key in `api_key` of the data directory, made when there is none."""
    path = data_dir / "api_key"
    with suppress(FileNotFoundError):
        return path.read_text().strip()
    key = await core.keys.create(DEFAULT_TENANT, KeySpec(name="first"))
    write_private(path, key.secret.encode() + b"\n")
    return key.secret


@contextmanager
def _only_server(data_dir: Path) -> Iterator[None]:
    """Hold the data directory. Raises Conflict when another server does."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (data_dir / "lock").open("a+") as lock:
        _lock(lock, data_dir)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _lock(lock: IO[str], data_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().strip() or "another process"
        raise Conflict(
            f"cannot use {data_dir}: the server with pid {holder} uses it; stop that, or name another --data-dir"
        ) from None


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Conflict(f"cannot listen on {host} port {port}: {error.strerror}; name another --port") from None
    return listener


class _Doors:
    """Where the server listens: plainly, and with TLS when that is wanted. Raises Conflict, InvalidRequest."""

    def __init__(self, settings: Settings) -> None:
        plain = _listen(settings.host, settings.port)
        self.url = f"http://{_bracketed(settings.host)}:{plain.getsockname()[1]}"
        self.listeners: list[tuple[socket.socket, Tls | None]] = [(plain, None)]
        self.domain = settings.domain
        """With the port that clients need."""
        self.tls = _tls(settings)
        if self.tls is not None:
            port = settings.tls_port
            secured = _listen(settings.host, port if port is not None else (8443 if settings.port else 0))
            self.listeners.append((secured, self.tls))
            number = secured.getsockname()[1]
            if self.domain is not None and number != 443:
                self.domain = f"{self.domain}:{number}"

    def announce(self, settings: Settings, api_key: str, json_line: bool) -> None:
        """Say that the server is ready, and how it is reached."""
        if not json_line:
            print(f"Skerry is ready at {self.url}\nThe API key is kept in {settings.data_dir / 'api_key'}", flush=True)
            if self.domain:
                print(f"For E2B's clients: E2B_DOMAIN={self.domain}", flush=True)
            if self.tls and self.tls.authority:
                print(f"They must trust {self.tls.authority} (SSL_CERT_FILE, NODE_EXTRA_CA_CERTS)", flush=True)
            return
        # E2B's clients need no other address: for them this one is both the API's and the sandboxes'.
        authority = self.tls.authority if self.tls else None
        e2b_urls = {
            "api_url": self.url, "sandbox_url": self.url, "domain": self.domain,
            "ca_file": None if authority is None else str(authority),
        }  # fmt: skip
        print(json.dumps({"api_url": self.url, "api_key": api_key, "pid": os.getpid(), "e2b": e2b_urls}), flush=True)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _tls(settings: Settings) -> Tls | None:
    if settings.tls == "private-ca":
        assert settings.domain is not None
        return private_tls(settings.data_dir / "tls", settings.domain)
    if settings.tls == "files":
        assert settings.tls_cert is not None
        assert settings.tls_key is not None
        for path in (settings.tls_cert, settings.tls_key):
            if not path.is_file():
                raise InvalidRequest(f"cannot start: there is no file {path}")
        return Tls(settings.tls_cert, settings.tls_key, None)
    return None


class _Uvicorn(uvicorn.Server):
    """uvicorn without its own signal handling, with a word when it listens, and an eye on its connections."""

    def __init__(self, app: Callable[..., object], log_level: str, listener: socket.socket, tls: Tls | None) -> None:
        super().__init__(
            uvicorn.Config(
                app, http=Http, ws="websockets-sansio", lifespan="off", access_log=False, log_config=None,
                log_level=log_level, timeout_graceful_shutdown=_STOP_GRACE_S, timeout_keep_alive=75,
                server_header=False, backlog=4096, ws_max_size=16 << 20,
                ssl_certfile=None if tls is None else tls.certificate, ssl_keyfile=None if tls is None else tls.key,
            )
        )  # fmt: skip
        self._listener = listener
        self._looked_at = 0.0
        self.ready = anyio.Event()

    async def run_until_told(self, scope: anyio.CancelScope) -> None:
        """Until `should_exit`; the end of one door is the end of all."""
        await self.serve([self._listener])
        scope.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def on_tick(self, counter: int) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._looked_at > LOOK_EVERY_S:
            self._looked_at = now
            cut_stalled(self.server_state.connections, now)
        return await super().on_tick(counter)


def _configure_logging(level: str) -> None:
    """Everything goes to standard error, one line of key=value pairs an event."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
            ],
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.processors.format_exc_info],
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_a_fault)


def _is_a_fault(record: logging.LogRecord) -> bool:
    """Not the replies that are left unfinished on purpose, so that the connection breaks, nor refused WebSockets."""
    return not record.getMessage().startswith("ASGI callable returned without completing")
