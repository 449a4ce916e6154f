"""The seams: what the core asks of the machine, of a sandbox's agent and of the store, and the node of its drivers.

No I/O; imports only the vocabulary. Who implements what:

    Engine   node.Node            sandboxes on this machine: claim, destroy, deaths
    Agent    agentlink.Link       one sandbox's agent: processes, files, ports
    Driver   drivers.gvisor       one isolation technology: boot, freeze, destroy
    Store    store.sql            what must survive the server
    Templates  host.images        recipes for sandboxes, and how they are built
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from skerry.models import (
    Build,
    End,
    Event,
    Exit,
    FileInfo,
    Image,
    Isolation,
    Key,
    Limits,
    MountedVolume,
    Output,
    Process,
    Registry,
    Sandbox,
    SandboxState,
    SandboxStats,
    Snapshot,
    Started,
    Tag,
    Template,
    TerminalSize,
    UsageSample,
    Volume,
    VolumeEntry,
    VolumeSnapshot,
    WatchEvent,
)  # fmt: skip

VOLUMES_MOUNT = "/run/skerry/volumes"
"""Where root inside sees the volumes that are attached to the sandbox, under their ids."""
_INTERPRETERS = "/opt/skerry/interpreter/"
_JAVA_OPENED = ("java.lang", "java.util", "java.util.concurrent")
"""Where Java keeps the random state that a copy of an interpreter must not share."""
WARM_LANGUAGES = ("python",)
"""Those whose interpreter runs already when a sandbox is claimed; others start with their first context."""


def interpreter_command(language: str) -> tuple[str, ...]:
    """What starts the interpreter of `language` inside; it speaks docs/reference/interpreter-protocol.md.

    Languages without one of ours have the name of a Jupyter kernel, which the image has or has not.
    """
    python = ("python3", "-u", f"{_INTERPRETERS}main.py")
    if language == "python":
        return python
    if language == "java":
        return (
            "java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx512m",
            *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _JAVA_OPENED),
            f"{_INTERPRETERS}java/JavaShell.java",
        )  # fmt: skip
    return (*python, "--kernel", language)


def is_interpreter(command: Sequence[str]) -> bool:
    """Whether a process is an interpreter of `run_code`."""
    return any(part.startswith(_INTERPRETERS) for part in command)


# --- the agent inside a sandbox -------------------------------------------------------------------------------------


class ByteStream(Protocol):
    """A connection to a port or Unix socket inside a sandbox."""

    async def receive(self) -> bytes:
        """The next piece; empty at the end of the stream."""
        ...

    async def send(self, data: bytes) -> None:
        """Send all of `data`; waits while the other side does not read."""
        ...

    async def send_eof(self) -> None:
        """Close the sending half."""
        ...

    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True)
class FileContent:
    """An opened file: what it is, and its bytes (of the range asked for)."""

    info: FileInfo
    chunks: AsyncIterator[bytes]


class Agent(Protocol):
    """One sandbox's agent. Every call raises the agent's typed error, or `SandboxLost` when the sandbox is gone.

    Streams are context managers: leaving one detaches from it and ends nothing inside the sandbox. Processes are held
    back while an attached reader does not read, as a pipe would; with no reader their output goes on into a ring.
    """

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str = "user",
        timeout_s: float | None = None,
        stdin: bool = False,
        terminal: TerminalSize | None = None,
        tag: str | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[Started | Output | Exit]]:
        """Start a process and follow it: `Started`, then output, last `Exit`."""
        ...  # fmt: skip

    def attach(
        self, pid: int, *, stdout_offset: int | None = None, stderr_offset: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Started | Output | Exit]]:
        """Follow a process that runs or has ended, from an offset of each stream (default: all that is still held)."""
        ...

    async def processes(self) -> list[Process]: ...
    async def signal(self, pid: int, signal: int, *, group: bool = True) -> None: ...
    async def resize(self, pid: int, size: TerminalSize) -> None: ...

    async def write_stdin(self, pid: int, chunks: AsyncIterable[bytes] | bytes, *, eof: bool = False) -> None:
        """Write to a process's standard input (or terminal); returns when the pipe has taken all of it."""
        ...

    def read_file(
        self, path: str, *, user: str = "user", offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[FileContent]: ...
    async def write_file(
        self,
        path: str,
        chunks: AsyncIterable[bytes] | bytes,
        *,
        user: str = "user",
        mode: int | None = None,
        parents: bool = True,
        metadata: Mapping[str, str] | None = None,
    ) -> FileInfo:
        """Replace a file atomically: it has its old or its new content, whatever happens. `mode`: default 0o644 for a
        new file, kept for an old one. `parents`: make missing directories. `metadata`: noted on the new content, in
        place of what was noted on the old one."""
        ...  # fmt: skip

    async def unpack(
        self,
        path: str,
        chunks: AsyncIterable[bytes] | bytes,
        *,
        source: str = ".",
        owner: str | None = None,
        mode: int | None = None,
        user: str = "user",
    ) -> int:
        """Unpack a tar (also one compressed by gzip) as COPY of a Dockerfile puts files.

        Args:
            path: where to; it is a directory when it ends with a slash, is one already, or `source` is a pattern.
            source: which of the archive's paths, with `*`, `?` and `[…]` within a component; of directories, the
                content.
            owner: `user` or `user:group` of all that is made; default: `user`.
            mode: of all files; default: as in the archive.

        Returns:
            How many entries there were. Raises the file errors, and InvalidRequest for what is no such archive.
        """
        ...  # fmt: skip

    def pack(self, path: str, *, user: str = "user") -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A tar of all that matches a pattern, and what is below, under their whole paths; nothing of other mounts. A
        symbolic link that matches stands for what it leads to."""
        ...

    async def stat(self, path: str, *, user: str = "user") -> FileInfo: ...
    async def list_files(
        self, path: str, *, user: str = "user", depth: int = 1, limit: int = 100_000
    ) -> tuple[list[FileInfo], bool]:
        """Entries below a directory in lexical order, `depth` levels deep; and whether `limit` cut the list."""
        ...

    async def make_directory(
        self, path: str, *, user: str = "user", parents: bool = True, mode: int = 0o755
    ) -> FileInfo: ...
    async def rename(self, source: str, target: str, *, user: str = "user") -> FileInfo: ...
    async def remove(self, path: str, *, user: str = "user", recursive: bool = False) -> None: ...
    async def set_attributes(
        self, path: str, *, user: str = "user", mode: int | None = None, owner: str | None = None,
        group: str | None = None,
    ) -> FileInfo: ...  # fmt: skip
    def watch(
        self, path: str, *, user: str = "user", recursive: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """Changes below a directory; events begin when the context is entered."""
        ...

    async def dial(self, address: str | int) -> ByteStream:
        """Connect to a TCP port on the sandbox's loopback (int) or to a Unix socket (absolute path)."""
        ...

    async def configure(
        self, *, env: Mapping[str, str] | None = None, hostname: str | None = None, pids: int | None = None
    ) -> None:
        """Set the environment that every later process starts with, the sandbox's host name, and how many processes
        and threads there may be."""
        ...

    async def ping(self) -> None: ...
    async def quiesce(self) -> None:
        """Prepare for a checkpoint: flush, and close the connection once told to; the agent dials again afterwards."""
        ...


# --- this machine ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Placement:
    """What the engine needs to know to provide a sandbox."""

    sandbox_id: str
    template: Template
    isolation: Isolation
    limits: Limits
    internet: bool
    env: Mapping[str, str]
    incarnation: int = 1
    """Which start of the sandbox this is."""
    state: State | None = None
    """What to start from; None: the template."""
    is_durable: bool = False
    """Keep its files should it die."""
    volumes: Sequence[MountedVolume] = ()
    """In the order in which they are mounted. A state's memory has those that its sandbox had."""


@dataclass(frozen=True, slots=True)
class Provided:
    """A sandbox the engine has provided: its agent answers and its limits hold."""

    sandbox_id: str
    agent: Agent
    origin: str
    """`pool`, `cold` or `snapshot`."""
    warm: Mapping[str, int]
    """Language → pid of the interpreter that is already running, for the default context."""


@dataclass(frozen=True, slots=True)
class State:
    """What was kept of a sandbox that stood still: its disk, and perhaps its memory. The machine has it by its id."""

    id: str
    memory: bool
    size_bytes: int
    """On the disk, beyond the image."""
    seal: str | None = None
    """A digest of all of it; None: not taken yet."""


@dataclass(frozen=True, slots=True)
class Death:
    sandbox_id: str
    end: End
    state: State | None = None
    """Its files, of one that was placed as durable."""


class Held(Protocol):
    """A sandbox that stands still: nothing in it runs, and all that it has written is in its files."""

    async def save(self, state_id: str, *, memory: bool, last: bool = False) -> State:
        """Keep it. It goes on standing still.

        Args:
            state_id: a new one.
            last: it is destroyed afterwards, and never goes on: its disk itself is kept, not a copy.

        Raises:
            CannotSnapshot: its memory cannot be written. HostFull: no room. Nothing is kept.
        """
        ...

    async def commit(self) -> str:
        """Keep what it has changed in its image as a layer; returns its digest. Raises TemplateBuildFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sandbox that a server expects to find alive."""

    incarnation: int
    frozen: bool = False


class Workbench(Protocol):
    """A sandbox that a step of a build runs in."""

    @property
    def agent(self) -> Agent: ...
    async def commit(self) -> str:
        """End it and keep what it has changed as a layer; returns its digest. Raises TemplateBuildFailed."""
        ...


class Engine(Protocol):
    """Provides sandboxes. `node.Node` on this machine."""

    async def provide(self, placement: Placement) -> Provided:
        """Claim from the warm pool, or start cold, or from a state, which stays.

        Raises:
            HostFull, SandboxStartFailed, IsolationUnavailable, SnapshotDamaged, SnapshotIncompatible: nothing of the
                sandbox is left behind.
        """
        ...

    async def adopt(self, wanted: Mapping[str, Wanted], states: Collection[str]) -> Sequence[Provided]:
        """After a restart of the server: take over those of `wanted` that still live, and remove every other sandbox of
        this data directory, all that was left of dead ones, and all states but `states`."""
        ...

    async def freeze(self, sandbox_id: str) -> None:
        """Nothing in it runs from now on; it keeps its memory. Raises SandboxLost."""
        ...

    async def thaw(self, sandbox_id: str) -> None:
        """It goes on. Raises SandboxLost."""
        ...

    def hold(self, sandbox_id: str) -> AbstractAsyncContextManager[Held]:
        """Let it stand still; on leaving it goes on, unless it was destroyed meanwhile. Raises SandboxLost."""
        ...

    async def seal(self, state: State) -> State:
        """With the digest by which a later start knows that nothing has changed; as it is when it has that already.
        Raises SnapshotDamaged."""
        ...

    async def verify(self, state: State) -> None:
        """Raises SnapshotDamaged when it is not what was sealed."""
        ...

    async def copy_state(self, state: State, copy_id: str) -> State:
        """Another one with the same content, and so the same seal. Raises HostFull, SnapshotDamaged."""
        ...

    async def remove_state(self, state_id: str) -> None:
        """No-op when there is none."""
        ...

    def available_mib(self) -> int:
        """Memory that this machine has left."""
        ...

    def agent(self, sandbox_id: str) -> Agent:
        """Raises SandboxLost when the sandbox does not live here (any more)."""
        ...

    async def set_internet(self, sandbox_id: str, allowed: bool) -> None: ...
    async def stats(self, sandbox_id: str) -> SandboxStats: ...
    def history(self, sandbox_id: str) -> list[UsageSample]:
        """Samples of what it has used, the oldest first: one every five seconds, fewer of a long life. Raises
        SandboxLost."""
        ...

    async def destroy(self, sandbox_id: str) -> None:
        """End it now and remove everything it had; no-op when it is gone."""
        ...

    def workbench(self, image: str, limits: Limits) -> AbstractAsyncContextManager[Workbench]:
        """A sandbox for a step of a build, on an image; removed on leaving. Raises as `provide` does."""
        ...

    async def prepare(self, template: Template) -> None:
        """Make what its sandboxes are started from, with its start command running. Raises SandboxStartFailed."""
        ...

    def deaths(self) -> AsyncIterator[Death]:
        """Sandboxes that died without being asked to. One consumer."""
        ...


class Templates(Protocol):
    """The templates on this machine. `host.images.Images`."""

    def templates(self) -> list[Template]: ...
    def template(self, name: str) -> Template:
        """Raises TemplateNotFound."""
        ...

    def build(self, name: str) -> AsyncIterator[str]:
        """Build a template that ships, unless it is built already; yields log lines.

        Raises:
            TemplateNotFound: no such definition. TemplateBuildFailed: details hold the end of the log.
        """
        ...


@dataclass(frozen=True, slots=True)
class TemplateRecord:
    """A template that a user builds."""

    id: str
    name: str


class BuildStore(Protocol):
    """Templates that users build, their builds and tags. `store.builds.SqlBuilds`."""

    async def template(self, tenant_id: str, reference: str, *, make: str | None = None) -> TemplateRecord | None:
        """The tenant's template of that name or id; made, with the id `make` and that name, when there is none."""
        ...

    async def templates(self, tenant_id: str) -> list[TemplateRecord]: ...
    async def remove(self, template_id: str) -> list[str]:
        """With its builds and tags; returns the ids of the builds."""
        ...

    async def save(self, build: Build) -> None: ...
    async def build(self, build_id: str) -> Build | None: ...
    async def unfinished(self) -> list[Build]:
        """Of all tenants: those that an earlier server did not finish."""
        ...

    async def remove_unnamed(self, before: datetime) -> list[str]:
        """Of all tenants: builds of before that moment that no tag means. Returns their ids."""
        ...

    async def tag(self, template_id: str, tag: str, build_id: str) -> None:
        """Let a tag mean this build from now on."""
        ...

    async def untag(self, template_id: str, tag: str) -> bool: ...
    async def tags(self, template_id: str) -> list[Tag]: ...


class Images(Protocol):
    """The images on this machine, as builds need them. `host.images.Images`."""

    def image(self, digest: str) -> Image:
        """Raises TemplateNotFound."""
        ...

    def add(self, image: Image) -> str:
        """Keep an image whose layers are here; returns its digest. Raises TemplateBuildFailed."""
        ...

    def size_mib(self, image: Image) -> float: ...
    def keep(self, build_id: str, digest: str) -> None:
        """This build's image stays until it is let go."""
        ...

    def let_go(self, build_id: str) -> None: ...
    def known_layer(self, key: str) -> str | None:
        """The layer that a step of that key made before."""
        ...

    def remember_layer(self, key: str, layer: str) -> None: ...


class Puller(Protocol):
    """Brings images from elsewhere. `host.registry.Puller`."""

    async def pull(self, reference: str, credentials: Registry | None, log: Callable[[str], None]) -> Image:
        """From a registry. Raises ImageUnreachable, TemplateBuildFailed, InvalidRequest."""
        ...

    async def load(self, archive: Path, log: Callable[[str], None]) -> Image:
        """From a tar of a root file system or of an image. Raises as `pull`."""
        ...


# --- volumes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class VolumeUsage:
    """What a volume may hold, and what it holds."""

    size_mib: int
    used_bytes: int
    stored_bytes: int
    """On the host's disk."""
    inodes: int
    inodes_used: int


class VolumeDisks(Protocol):
    """The files that volumes and their snapshots are. `host.volumes.Volumes`.

    Every change is whole or has not happened, also when the server or the machine dies meanwhile.
    """

    async def start(self) -> None:
        """Prepare; undo what a dead server has left half done."""
        ...

    async def stop(self, *, keep: bool = False) -> None:
        """Unmount everything. `keep`: sandboxes go on, and keep what they see."""
        ...

    def names(self) -> set[str]:
        """Of all files there are."""
        ...

    async def create(self, name: str, size_mib: int, inodes: int) -> None:
        """Raises HostFull."""
        ...

    async def copy(self, source: str, name: str, *, live: bool) -> None:
        """`live`: the source is a volume, which may be in use meanwhile. Raises HostFull."""
        ...

    async def resize(self, name: str, size_mib: int) -> None:
        """Raises VolumeInUse, VolumeTooSmall, HostFull."""
        ...

    async def replace(self, name: str, source: str) -> None:
        """Give a volume a snapshot's content. Raises VolumeInUse, HostFull."""
        ...

    async def remove(self, name: str) -> None:
        """No-op when it is gone. Raises VolumeInUse."""
        ...

    async def usage(self, name: str) -> VolumeUsage: ...


class VolumeFiles(Protocol):
    """Files of volumes, without a sandbox. `host.volume_files.VolumeFiles`.

    A path begins at the volume's root; no link is followed. Raises the file errors.
    """

    def read(
        self, volume: str, path: str, *, offset: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[FileContent]: ...
    async def write(
        self,
        volume: str,
        path: str,
        chunks: AsyncIterable[bytes] | bytes,
        *,
        mode: int | None = None,
        parents: bool = True,
        uid: int | None = None,
        gid: int | None = None,
        replace: bool = True,
    ) -> VolumeEntry:
        """The file has its old or its new content, whatever happens, and the new one is on the disk on return. `mode`
        and owner: 0o644 and `user` for a new file, kept for an old one. `replace` False: FileExists for an old one."""
        ...  # fmt: skip

    async def stat(self, volume: str, path: str) -> VolumeEntry: ...
    async def list(self, volume: str, path: str, *, depth: int = 1, limit: int) -> tuple[list[VolumeEntry], bool]:
        """Entries below a directory in lexical order, `depth` levels deep; and whether `limit` cut the list."""
        ...

    async def make_directory(
        self, volume: str, path: str, *, parents: bool = True, mode: int = 0o755, uid: int | None = None,
        gid: int | None = None,
    ) -> VolumeEntry: ...  # fmt: skip
    async def rename(self, volume: str, source: str, target: str) -> VolumeEntry: ...
    async def remove(self, volume: str, path: str, *, recursive: bool = False) -> None: ...
    async def set_attributes(
        self, volume: str, path: str, *, mode: int | None = None, uid: int | None = None, gid: int | None = None
    ) -> VolumeEntry: ...


class VolumeStore(Protocol):
    """Which volumes there are, and their snapshots. `store.volumes.SqlVolumes`."""

    async def add(self, tenant_id: str, volume: Volume) -> None:
        """Raises Conflict: the tenant has one of that name."""
        ...

    async def save(self, volume: Volume) -> None: ...
    async def remove(self, volume_id: str) -> None:
        """With its snapshots."""
        ...

    async def volume(self, tenant_id: str, reference: str) -> Volume | None:
        """By id or name."""
        ...

    async def owner(self, volume_id: str) -> str | None:
        """The tenant whose it is."""
        ...

    async def volumes(self, tenant_id: str | None) -> list[Volume]:
        """By name; None: of all tenants."""
        ...

    async def add_snapshot(self, tenant_id: str, snapshot: VolumeSnapshot) -> None:
        """Raises Conflict: the volume has one of that name."""
        ...

    async def remove_snapshot(self, snapshot_id: str) -> None: ...
    async def snapshots(self, tenant_id: str | None) -> list[VolumeSnapshot]:
        """The oldest first; None: of all tenants."""
        ...


# --- isolation technologies -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Boot:
    """What a driver needs to boot one sandbox. Everything named here exists and is prepared by the node."""

    sandbox_id: str
    rootfs: Path
    """Writable root file system: the image below, the sandbox's own size-limited layer above."""
    network_namespace: str
    """Path of its prepared network namespace."""
    cgroup: str
    """Name of its control group; limits are already set."""
    link_directory: Path
    """Holds `link.sock` (the agent dials it) and `token`; seen read-only, by root only, at /run/skerry/link."""
    volumes_directory: Path
    """What is mounted below it, also later, is seen at VOLUMES_MOUNT; read-only itself."""
    runtime_directory: Path
    """The agent and the interpreters; seen read-only at /opt/skerry."""
    limits: Limits
    hostname: str


class Driver(Protocol):
    """One isolation technology. Stateless between calls but for the state directory: it can be asked about a sandbox
    that another server process booted."""

    isolation: Isolation

    async def check(self) -> None:
        """Raises IsolationUnavailable with what is missing and the command that mends it."""
        ...

    async def version(self) -> str:
        """Of the technology: checkpoints of one version are not restored by another."""
        ...

    def traits(self) -> str:
        """What else a checkpoint depends on: it is restored only where this is the same text as where it was made."""
        ...

    async def tidy(self) -> None:
        """Called every few seconds: keep its own files small."""
        ...

    def set_idle(self, pid: int, idle: bool) -> None:
        """A hint: little has happened in the sandbox whose main host process is `pid` for some time, so let it cost
        less; or something is about to happen. It must go on running, and answer, as before."""
        ...

    async def boot(self, boot: Boot) -> int:
        """Start it; returns the pid of its main host process (its end is the sandbox's end) as soon as that is known,
        without waiting for the agent. Undoes its own half-done work when it fails or is cancelled."""
        ...

    async def checkpoint(self, sandbox_id: str, directory: Path, *, keep_running: bool) -> None:
        """Write memory and process state to `directory`. Raises CannotSnapshot, HostFull; it goes on then."""
        ...

    async def pause(self, sandbox_id: str) -> None:
        """Stop everything in it; the technology itself goes on, and can write a checkpoint. Raises SandboxLost."""
        ...

    async def resume(self, sandbox_id: str) -> None:
        """Undo `pause`. Raises SandboxLost."""
        ...

    async def restore(self, boot: Boot, directory: Path) -> int:
        """As `boot`, from a checkpoint whose root file system `boot.rootfs` holds a copy of."""
        ...

    async def destroy(self, sandbox_id: str) -> None:
        """Kill every process of it and remove the driver's own files; no-op when there are none. The control group
        must be thawed."""
        ...


# --- the store ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """A sandbox as stored: what the API shows, and what only the server needs."""

    sandbox: Sandbox
    tenant_id: str
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    internal: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """JSON-able facts of the core, such as the contexts' processes: needed to go on after a restart."""


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """A snapshot as stored."""

    snapshot: Snapshot
    tenant_id: str
    env: Mapping[str, str]
    internal: Mapping[str, Any]
    """As of the sandbox whose copy it is."""
    state: State


class SnapshotStore(Protocol):
    """Snapshots of sandboxes. `store.snapshots.SqlSnapshots`."""

    async def add(self, record: SnapshotRecord) -> None:
        """Another one of its tenant that has its name loses the name."""
        ...

    async def get(self, tenant_id: str, reference: str) -> SnapshotRecord | None:
        """By id or name."""
        ...

    async def page(
        self, tenant_id: str, *, sandbox_id: str | None = None, name: str | None = None, limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[list[SnapshotRecord], str | None]:  # fmt: skip
        """Newest first, with the cursor of the next page; of a name without a tag, those with one too.

        Raises:
            InvalidRequest: a cursor that is none of ours.
        """
        ...

    async def remove(self, tenant_id: str, snapshot_id: str) -> bool: ...
    async def stored_mib(self, tenant_id: str) -> float:
        """What all snapshots of the tenant take."""
        ...

    async def states(self) -> list[str]:
        """Ids of the states that snapshots of all tenants keep."""
        ...


@dataclass(frozen=True, slots=True)
class KeyRecord:
    key: Key
    tenant_id: str
    hash: bytes


class Store(Protocol):
    """What survives the server. Every call is one transaction: wholly done when it returns, or not at all."""

    async def create_sandbox(
        self, record: SandboxRecord, idempotency: tuple[str, bytes] | None = None
    ) -> SandboxRecord:
        """Insert. `idempotency` is the caller's key and the hash of its request: the same pair again returns the record
        of the first call; the same key with another hash raises Conflict."""
        ...

    async def update_sandbox(self, record: SandboxRecord) -> None: ...
    async def forget_idempotency(self, sandbox_id: str) -> None:
        """The sandbox was never provided: the same key may be used again."""
        ...

    async def sandbox(self, tenant_id: str | None, sandbox_id: str) -> SandboxRecord | None:
        """`tenant_id` None: of any tenant (for the server itself)."""
        ...

    async def sandboxes(
        self,
        tenant_id: str | None,
        *,
        states: Sequence[SandboxState] = (),
        template: str | None = None,
        metadata: Mapping[str, str] | None = None,
        created_since: datetime | None = None,
        oldest_first: bool = False,
        limit: int = 100,
        cursor: str | None = None,
    ) -> tuple[list[SandboxRecord], str | None]:
        """Newest first unless told otherwise, with the cursor of the next page. `tenant_id` None: of all tenants (for
        the server itself)."""
        ...  # fmt: skip

    async def add_event(self, sandbox_id: str, type: str, data: Mapping[str, Any], at: datetime) -> Event: ...
    async def events(self, tenant_id: str, sandbox_id: str | None, *, after: int, limit: int) -> list[Event]: ...
    async def add_key(self, record: KeyRecord) -> None: ...
    async def key_by_hash(self, hash: bytes) -> KeyRecord | None: ...
    async def keys(self, tenant_id: str) -> list[Key]: ...
    async def touch_key(self, key_id: str, at: datetime) -> None: ...
    async def revoke_key(self, tenant_id: str, key_id: str, at: datetime) -> bool: ...
    async def aclose(self) -> None: ...
