"""The vocabulary: what the core, the native API and the SDK exchange. No I/O; imports nothing else of ours.

Units are in the names or here: memory and disk in MiB, CPU in cores, times in seconds, moments in UTC.
Unknown fields are refused in requests (`Request`) and ignored in replies (`Reply`), so old clients survive new servers.
"""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Base64Bytes, BaseModel, ConfigDict, Field

# --- building blocks ------------------------------------------------------------------------------------------------


class Request(BaseModel):
    """Something a caller sends. Unknown fields and implicit conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Reply(BaseModel):
    """Something the server answers. Unknown fields are ignored by the reader."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _environment_name(value: str) -> str:
    if not value or "=" in value or "\0" in value:
        raise ValueError("an environment variable's name must not be empty and must not contain '=' or NUL")
    return value


ENVIRONMENT_MAX = 131_072
"""Bytes of an environment as JSON: half of what one request to a sandbox may hold."""


def _bounded(value: dict[str, str]) -> dict[str, str]:
    size = len(json.dumps(value, separators=(",", ":")))
    if size > ENVIRONMENT_MAX:
        raise ValueError(
            f"an environment of {size} bytes exceeds the limit of {ENVIRONMENT_MAX}; put large values into a file"
        )
    return value


Text = Annotated[str, AfterValidator(_no_nul)]
Environment = Annotated[dict[Annotated[str, AfterValidator(_environment_name)], Text], AfterValidator(_bounded)]
Metadata = Annotated[dict[Annotated[str, Field(min_length=1, max_length=128)], Annotated[str, Field(max_length=4096)]],
                     Field(max_length=64)]  # fmt: skip
Seconds = Annotated[float, Field(strict=False, gt=0, le=10 * 365 * 86400)]


class Isolation(StrEnum):
    """What stands between a sandbox and the host. Asked for, reported, never silently weakened."""

    GVISOR = "gvisor"
    JAIL = "jail"
    MICROVM = "microvm"


# --- sandboxes ------------------------------------------------------------------------------------------------------


class Limits(Reply):
    """What one sandbox may use at most."""

    cpu: float
    """Cores."""
    memory_mib: int
    disk_mib: int
    """Bytes that may be written, beyond the template."""
    pids: int
    """Processes and threads."""


class SandboxState(StrEnum):
    """See docs/reference/states.md; `core.states` holds the only transitions there are."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    DESTROYED = "destroyed"
    FAILED = "failed"


class EndCode(StrEnum):
    """Why a sandbox ended."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    IDLE_TIMEOUT = "idle_timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    AGENT_VIOLATION = "agent_violation"
    AGENT_UNREACHABLE = "agent_unreachable"
    START_FAILED = "start_failed"
    SERVER_STOPPED = "server_stopped"
    NODE_LOST = "node_lost"


class End(Reply):
    """Why, how and when a sandbox ended; kept after its death."""

    code: EndCode
    message: str
    at: datetime


class OnTimeout(StrEnum):
    """What happens to a sandbox whose time, or idle time, is over."""

    KILL = "kill"
    PAUSE = "pause"


class PauseGrade(StrEnum):
    """Where a paused sandbox waits."""

    FROZEN = "frozen"
    """In memory: it goes on within milliseconds."""
    DISK = "disk"
    """In files: it holds no memory, and outlives the server."""


class Rest(Reply):
    """What is kept of a sandbox that is paused or stopped."""

    grade: PauseGrade
    memory: bool
    """Whether its processes go on; otherwise it boots again from its files."""
    size_mib: float
    """On this machine's disk, beyond its image."""
    since: datetime


class RestartWhen(StrEnum):
    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"


class Restart(Request):
    """Whether a sandbox starts again after its command has ended, or after its own death."""

    when: Annotated[RestartWhen, Field(strict=False)] = RestartWhen.NO
    retries: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """How often at most, one after the other; null: without end. A command that ran for ten minutes sets it back."""
    backoff_s: Annotated[float, Field(strict=False, ge=0.1, le=3600)] = 1.0
    """Before the first restart; doubled with each, up to five minutes."""


class LastExit(Reply):
    """How a sandbox's command ended, the last time."""

    exit_code: int
    at: datetime


VolumeName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$")]
_RESERVED = ("/dev", "/opt/skerry", "/proc", "/run/skerry", "/sys")
"""What a sandbox needs to work: nothing is mounted there, below, or above."""


def _mount_path(value: str) -> str:
    parts = [part for part in value.split("/") if part not in ("", ".")]
    path = "/" + "/".join(parts)
    if not value.startswith("/") or ".." in parts or not parts:
        raise ValueError("a volume is mounted at an absolute path without '..', which is not '/'")
    for taken in _RESERVED:
        if path == taken or path.startswith(f"{taken}/") or taken.startswith(f"{path}/"):
            raise ValueError(f"no volume can be mounted at {path}: a sandbox needs {taken} to work")
    return path


class VolumeMount(Request):
    """A volume at a path of a sandbox."""

    volume: Annotated[str, Field(min_length=1, max_length=128)]
    """Name or id."""
    path: Annotated[Text, Field(max_length=1024), AfterValidator(_mount_path)]
    """Absolute; directories that are missing are made, what is there already is hidden."""
    read_only: bool = False
    """Nobody in the sandbox can write to it, root included."""


class MountedVolume(Reply):
    """A volume at a path of a sandbox."""

    id: str
    name: str
    """When the sandbox was made."""
    path: str
    read_only: bool = False


class SandboxSpec(Request):
    """What a new sandbox shall be. Limits left out come from the template, or from the snapshot."""

    template: Annotated[str, Field(min_length=1, max_length=256)] = "base"
    snapshot: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Start from this snapshot, by id or name, in place of a template."""
    isolation: Annotated[Isolation, Field(strict=False)] = Isolation.GVISOR
    timeout_s: Seconds | None = 300.0
    """Seconds until its time is over; null means never. Can be changed while it runs."""
    idle_timeout_s: Seconds | None = None
    """Seconds without a request for the sandbox and without an open stream until its time is over; null: never."""
    on_timeout: Annotated[OnTimeout, Field(strict=False)] = OnTimeout.KILL
    """What happens then."""
    keep_memory: bool = True
    """Whether a pause at a timeout keeps its processes; otherwise its files only."""
    auto_resume: bool = True
    """A request for it, or a connection to one of its ports, resumes it when it is paused."""
    command: Annotated[list[Text], Field(min_length=1, max_length=65536)] | Text | None = None
    """A program that runs in it from its start on, a list as it is, a string by a shell; its end stops the sandbox."""
    restart: Restart = Restart()
    env: Environment = {}
    """Environment of every process and interpreter in the sandbox."""
    metadata: Metadata = {}
    """The caller's own labels; sandboxes can be listed by them."""
    cpu: Annotated[float, Field(strict=False, ge=0.05, le=512)] | None = None
    memory_mib: Annotated[int, Field(ge=64, le=4 * 1024 * 1024)] | None = None
    disk_mib: Annotated[int, Field(ge=16, le=64 * 1024 * 1024)] | None = None
    pids: Annotated[int, Field(ge=16, le=1_000_000)] | None = None
    internet: bool = True
    volumes: Annotated[list[VolumeMount], Field(max_length=32)] = []
    """Each at most once."""


class SandboxUpdate(Request):
    """Changes to a running sandbox; fields left out stay as they are."""

    timeout_s: Seconds | None = None
    """Seconds from now; explicit null: no timeout."""
    idle_timeout_s: Seconds | None = None
    on_timeout: Annotated[OnTimeout, Field(strict=False)] | None = None
    metadata: Metadata | None = None
    internet: bool | None = None


class Sandbox(Reply):
    """A sandbox as the API shows it."""

    id: str
    template: str
    isolation: Isolation
    state: SandboxState
    limits: Limits
    internet: bool
    metadata: dict[str, str]
    created_at: datetime
    expires_at: datetime | None
    timeout_s: float | None = 300.0
    """What it was last given; a resume without one gives as much again."""
    idle_timeout_s: float | None
    on_timeout: OnTimeout = OnTimeout.KILL
    keep_memory: bool = True
    auto_resume: bool = True
    origin: Literal["pool", "cold", "snapshot"] | None = None
    """Whether it was claimed ready from the warm pool, started for this request, or started from what was kept."""
    snapshot: str | None = None
    """Id of the snapshot that it was started from, or rolled back to."""
    rest: Rest | None = None
    """While it is paused or stopped."""
    command: list[str] | str | None = None
    restart: Restart = Restart()
    started_at: datetime | None = None
    """When it was last started, or resumed from the disk."""
    restarts: int = 0
    """Starts that the policy has made since the last that was asked for, or that lasted for ten minutes."""
    restart_at: datetime | None = None
    """When the policy starts it again."""
    last_exit: LastExit | None = None
    end: End | None = None
    volumes: list[MountedVolume] = []


class SandboxPage(Reply):
    items: list[Sandbox]
    next_cursor: str | None = None


class PauseSpec(Request):
    """How to pause."""

    keep_memory: bool = True
    """Keep its processes; otherwise its files only, and it boots again."""
    to_disk: bool = False
    """Write its memory to the disk now. Otherwise it waits in memory, and is written after some time, or when memory is
    short."""


class ResumeSpec(Request):
    """How to go on."""

    timeout_s: Seconds | None = None
    """Seconds from now; left out: as it had before; explicit null: no timeout."""
    keep_memory: bool = True
    """False: boot it again from its files although its memory was kept."""


class StopSpec(Request):
    """How to stop."""

    reset: bool = False
    """Forget its files too: it starts as its template, or snapshot, was."""
    grace_s: Annotated[float, Field(strict=False, ge=0, le=300)] = 5.0
    """Between SIGTERM and the end."""


class SnapshotSpec(Request):
    """A snapshot to take."""

    name: Annotated[
        str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}(:[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127})?$", max_length=256)
    ] | None = None  # fmt: skip
    """Unique among the tenant's snapshots; the newest with it takes it. A tag may follow, behind a colon."""
    memory: bool = True
    """With its processes; otherwise its files only."""


class Snapshot(Reply):
    """An immutable copy of a sandbox. Any number of sandboxes can be started from it."""

    id: str
    name: str | None
    sandbox_id: str
    """Whose copy it is."""
    template: str
    memory: bool
    limits: Limits
    size_mib: float
    """What it takes on this machine's disk, beyond the image that it shares."""
    pause_s: float
    """How long the sandbox stood still for it."""
    created_at: datetime
    volumes: list[MountedVolume] = []
    """What the sandbox had mounted. They are no part of the snapshot: who starts from it sees them as they are then."""


class SnapshotPage(Reply):
    items: list[Snapshot]
    next_cursor: str | None = None


class ForkSpec(Request):
    """Copies to make."""

    count: Annotated[int, Field(ge=1, le=100)] = 1
    timeout_s: Seconds | None = None
    """Of each copy; left out: as the parent's; explicit null: none."""
    env: Environment = {}
    """In place of, or beside, the parent's environment, for all that is started in the copies."""


class Fork(Reply):
    """One copy that was to be made: a sandbox, or why there is none."""

    sandbox: Sandbox | None = None
    error: dict[str, Any] | None = None
    """As the body of an error: `{"code", "message", …}`."""


class ForkReply(Reply):
    items: list[Fork]
    pause_s: float
    """How long the parent stood still."""


class RollbackSpec(Request):
    snapshot: Annotated[str, Field(min_length=1, max_length=256)]
    """Of the same sandbox, by id or name."""


class SandboxStats(Reply):
    """What a sandbox holds and has used, as the host's control groups and file systems count it."""

    cpu_used_s: float
    memory_used_mib: float
    memory_peak_mib: float | None = None
    disk_used_mib: float
    pids: int
    oom_kills: int
    """Processes that the out-of-memory killer ended since the sandbox started."""


class UsageSample(Reply):
    """What a sandbox had used, or held, at a moment."""

    at: datetime
    cpu_used_s: float
    """Since it started."""
    memory_used_mib: float
    disk_used_mib: float


class Event(Reply):
    """One thing that happened to a sandbox."""

    id: int
    at: datetime
    sandbox_id: str
    type: str
    """For example `sandbox.running`, `sandbox.destroyed`, `process.started`, `process.ended`."""
    data: dict[str, Any] = {}


class Image(Reply):
    """A root file system, and how programs start in it."""

    layers: list[str]
    """Digests, `sha256:…`, the lowest first."""
    env: dict[str, str] = {}
    user: str = "user"
    """Who programs run as unless the call says otherwise."""
    workdir: str | None = None
    """Where they start; None: their user's home directory."""


class Template(Reply):
    """A named, versioned recipe for sandboxes."""

    name: str
    image: str
    """Digest of the image, `sha256:…`."""
    limits: Limits
    languages: list[str]
    size_mib: float
    built_at: datetime
    description: str = ""
    env: dict[str, str] = {}
    """Environment of every process; a sandbox's own comes on top."""
    user: str = "user"
    """Who programs run as unless the call says otherwise."""
    workdir: str | None = None
    """Where they start; None: their user's home directory."""
    build_id: str | None = None
    """Of the build that made it; None: it ships."""
    start_command: str | None = None
    """A shell command that runs in every sandbox, started before anybody gets it."""
    ready_command: str | None = None
    """A shell command that succeeds when what `start_command` started is ready."""

    @property
    def key(self) -> str:
        """What tells it from every other template on this machine."""
        return self.build_id or self.name


# --- builds ---------------------------------------------------------------------------------------------------------


class StepKind(StrEnum):
    """What one step of a recipe does, as the instruction of a Dockerfile with that name."""

    RUN = "run"
    COPY = "copy"
    ENV = "env"
    WORKDIR = "workdir"
    USER = "user"


FilesHash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
StageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")]


class Step(Request):
    """One step of a recipe."""

    kind: Annotated[StepKind, Field(strict=False)]
    args: Annotated[list[Text], Field(min_length=1, max_length=1000)]
    """run: command, user or ""; copy: source, target, owner or "", octal mode or ""; env: name, value, name, value …;
    workdir: path; user: name."""
    files: FilesHash | None = None
    """copy: the hash under which its files were uploaded."""
    from_stage: StageName | None = None
    """copy: the stage whose files are copied, in place of uploaded ones; `source` is an absolute path then."""
    shell: Annotated[list[Text], Field(min_length=1, max_length=16)] | None = None
    """run: what the command is given to as the last argument; default: `/bin/bash -l -c`."""
    variables: Environment = {}
    """Of this step alone, as ARG of a Dockerfile gives them: for the program of run, and for `expand`."""
    expand: bool = False
    """The rules of a Dockerfile for quotes and variables hold in `args`, but for run, whose shell has its own."""
    force: bool = False
    """Carry it out, and what follows, although a result is known."""


class Registry(Request):
    """Credentials for a private registry."""

    username: Text
    password: Text


class Stage(Request):
    """What an image is made of: one source, and the steps after it."""

    from_image: Text | None = None
    """Of an OCI registry, for example `ubuntu:22.04`."""
    from_template: Text | None = None
    from_stage: StageName | None = None
    """An earlier stage of the same recipe."""
    from_sandbox: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """The files of a sandbox that is in memory, as they are; it goes on. Its own environment is left out."""
    from_files: FilesHash | None = None
    """An uploaded tar: of a root file system (`docker export`), or of an image (`docker save`, OCI)."""
    registry: Registry | None = None
    as_image: bool = False
    """Keep the user and the working directory that the image names, root and `/` if it names none, as docker does;
    otherwise they are `user` and its home directory."""
    steps: Annotated[list[Step], Field(max_length=1000)] = []


class Recipe(Stage):
    """What a template is built from."""

    stages: Annotated[dict[StageName, Stage], Field(max_length=50)] = {}
    """Made only when something asks for them, each once."""
    start_command: Text | None = None
    ready_command: Text | None = None
    force: bool = False
    """Carry out every step although results are known."""


class BuildSpec(Request):
    """A build of a template."""

    recipe: Recipe
    tags: Annotated[list[str], Field(max_length=64)] = []
    """Which names of the template mean the build when it is done; default: `default`, or the tag in the name."""
    cpu: Annotated[float, Field(strict=False, ge=0.05, le=512)] = 2.0
    """What its sandboxes may use unless they ask for something else; also the limits of its steps."""
    memory_mib: Annotated[int, Field(ge=128, le=4 * 1024 * 1024)] = 1024
    disk_mib: Annotated[int, Field(ge=16, le=64 * 1024 * 1024)] = 4096
    pids: Annotated[int, Field(ge=16, le=1_000_000)] = 512


class BuildState(StrEnum):
    WAITING = "waiting"
    BUILDING = "building"
    READY = "ready"
    FAILED = "failed"


class BuildLine(Reply):
    """A line of a build's log."""

    at: datetime
    level: str
    text: str
    step: str


class Tag(Reply):
    """A name for one build of a template."""

    tag: str
    build_id: str
    created_at: datetime


class Build(Reply):
    """One build of a template."""

    id: str
    template_id: str
    name: str
    limits: Limits
    created_at: datetime
    state: BuildState = BuildState.WAITING
    message: str | None = None
    """Why it failed."""
    step: str | None = None
    """Where: `base`, the number of the step, or `finalize`."""
    template: Template | None = None
    """What it made."""
    log: list[BuildLine] = []


# --- processes ------------------------------------------------------------------------------------------------------


class TerminalSize(Request):
    cols: Annotated[int, Field(ge=1, le=4096)] = 80
    rows: Annotated[int, Field(ge=1, le=4096)] = 24


class ProcessSpec(Request):
    """A program to start."""

    command: Annotated[list[Text], Field(min_length=1, max_length=65536)] | Annotated[Text, Field(min_length=1)]
    """A list is executed as it is; a string is run by `/bin/bash -l -c`."""
    env: Environment = {}
    """Added to the sandbox's environment."""
    cwd: Text | None = None
    """Working directory; default: the template's, else the user's home directory."""
    user: Text | None = None
    """Default: the template's, mostly `user`."""
    timeout_s: Seconds | None = None
    """Seconds after which the whole process group is killed; null: none."""
    stdin: bool = False
    """Keep a pipe open as standard input; otherwise it is /dev/null."""
    terminal: TerminalSize | None = None
    """Run on a pseudo-terminal of this size: one output stream, `stdout`."""
    tag: Annotated[str, Field(max_length=256)] | None = None


class ExitReason(StrEnum):
    EXITED = "exited"
    SIGNALED = "signaled"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"


class Exit(Reply):
    """How a process ended. Its failure is a result, not an error."""

    type: Literal["exit"] = "exit"
    exit_code: int
    """As a shell reports it: 128 + signal number after a signal."""
    signal: int | None = None
    reason: ExitReason
    duration_s: float


class Process(Reply):
    pid: int
    command: list[str]
    cwd: str
    user: str
    tag: str | None = None
    terminal: bool = False
    started_at: datetime
    exit: Exit | None = None


class Started(Reply):
    """First event of every output stream."""

    type: Literal["started"] = "started"
    process: Process


class Output(Reply):
    """A piece of a process's output."""

    type: Literal["stdout", "stderr"]
    offset: int
    """Bytes of this stream before this piece."""
    data: Base64Bytes
    dropped: int = 0
    """Bytes lost directly before this piece because nobody was reading and they no longer fitted the buffer."""


class ProcessResult(Reply):
    """A finished process with what it wrote."""

    pid: int
    exit: Exit
    stdout: Base64Bytes
    stderr: Base64Bytes
    truncated: bool = False
    """Whether output beyond the limit of this call was left out; stream the output to get all of it."""


class Signal(Request):
    signal: Annotated[int, Field(ge=1, le=64)] = 15
    group: bool = True
    """Signal the whole process group, not only its leader."""


# --- files ----------------------------------------------------------------------------------------------------------


class FileType(StrEnum):
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


class FileInfo(Reply):
    name: str
    path: str
    type: FileType
    """Of the entry itself; symbolic links are not followed here."""
    size: int
    mode: int
    """Permission bits, for example 0o644."""
    uid: int
    gid: int
    owner: str
    group: str
    modified_at: datetime
    target: str | None = None
    """Where a symbolic link points, as written in it."""
    target_type: FileType | None = None
    """Type of what a symbolic link leads to; null when it leads nowhere."""
    metadata: dict[str, str] = {}
    """What was noted when the content was written; it goes with the file and ends with it."""


class FileList(Reply):
    items: list[FileInfo]
    truncated: bool = False


class VolumeEntry(FileInfo):
    """A file of a volume. Names of users are those of the templates that ship."""

    accessed_at: datetime
    changed_at: datetime
    """When anything of it changed, also its permissions or its name."""


UserId = Annotated[int, Field(ge=0, le=2**31 - 1)]


class VolumeDirectory(Request):
    path: Text
    parents: bool = True
    mode: Annotated[int, Field(ge=0, le=0o7777)] = 0o755
    uid: UserId | None = None
    """Default: 1000, `user` in the templates that ship."""
    gid: UserId | None = None


class VolumeRename(Request):
    source: Text
    target: Text


class VolumeAttributes(Request):
    path: Text
    mode: Annotated[int, Field(ge=0, le=0o7777)] | None = None
    uid: UserId | None = None
    gid: UserId | None = None


class VolumeFileList(Reply):
    items: list[VolumeEntry]
    truncated: bool = False


class MakeDirectory(Request):
    path: Text
    parents: bool = True
    mode: Annotated[int, Field(ge=0, le=0o7777)] = 0o755
    user: Text | None = None
    """Default: the template's, mostly `user`."""


class Rename(Request):
    source: Text
    target: Text
    user: Text | None = None
    """Default: the template's, mostly `user`."""


class SetAttributes(Request):
    path: Text
    mode: Annotated[int, Field(ge=0, le=0o7777)] | None = None
    owner: Text | None = None
    group: Text | None = None
    user: Text | None = None
    """Default: the template's, mostly `user`."""


class WatchEventType(StrEnum):
    CREATE = "create"
    WRITE = "write"
    REMOVE = "remove"
    RENAME = "rename"
    CHMOD = "chmod"
    OVERFLOW = "overflow"


class WatchEvent(Reply):
    type: WatchEventType
    path: str
    """Absolute path of what changed. After `overflow` events were lost: list the directory again."""


# --- volumes --------------------------------------------------------------------------------------------------------


VOLUME_MIN_MIB = 16


class VolumeSpec(Request):
    """A new volume."""

    name: VolumeName
    size_mib: Annotated[int, Field(ge=VOLUME_MIN_MIB, le=64 * 1024 * 1024)] | None = None
    """Size of its file system, whose own tables take 2 to 10 % of it; default: the server's `volume_size_mib`, or, of a
    fork, the source's."""
    inodes: Annotated[int, Field(ge=256, le=1 << 30)] | None = None
    """Files, directories and links it may hold; default: one for each 16 KiB, 8,192 at least. Rounded up a little. A
    fork has its source's."""
    source: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Make it a copy of this volume (name or id) or volume snapshot (id)."""


class VolumeResize(Request):
    size_mib: Annotated[int, Field(ge=VOLUME_MIN_MIB, le=64 * 1024 * 1024)]
    """Inodes change in proportion."""


class VolumeSnapshotSpec(Request):
    name: VolumeName | None = None
    """Default: its id."""


class VolumeRestore(Request):
    snapshot: Annotated[str, Field(min_length=1, max_length=128)]
    """Name or id of one of the volume's snapshots."""


class VolumeState(StrEnum):
    READY = "ready"
    DELETING = "deleting"
    LOST = "lost"
    """Its file is gone: somebody has removed it from the server's data directory."""


class Volume(Reply):
    """A directory that outlives sandboxes and is mounted into them."""

    id: str
    name: str
    state: VolumeState
    size_mib: int
    inodes: int
    created_at: datetime
    used_mib: float | None = None
    """What its files take; null in lists, where it is not asked for."""
    inodes_used: int | None = None
    stored_mib: float | None = None
    """What it takes on the server's disk."""
    mounted_by: list[str] = []
    """Ids of sandboxes."""


class VolumePage(Reply):
    items: list[Volume]


class VolumeSnapshot(Reply):
    """An immutable copy of a volume."""

    id: str
    name: str
    volume_id: str
    size_mib: int
    """Of the volume at that time."""
    stored_mib: float
    """What it takes on the server's disk; less where the file system shares blocks."""
    created_at: datetime


class VolumeSnapshotPage(Reply):
    items: list[VolumeSnapshot]


# --- run_code -------------------------------------------------------------------------------------------------------


Language = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
"""`python`, `javascript`, `typescript`, `r`, `java`, `bash`, `julia`, or the name of a Jupyter kernel there is."""


class ContextSpec(Request):
    language: Language = "python"
    cwd: Text | None = None
    env: Environment = {}
    user: Text = "user"


class Context(Reply):
    """One interpreter's state: its variables and imports."""

    id: str
    language: str
    cwd: str
    created_at: datetime
    executions: int = 0
    busy: bool = False
    start_s: float | None = None
    """Seconds its interpreter took to start; None: it came with the sandbox, or has not been started."""


class CodeSpec(Request):
    """A piece of code to run in a context."""

    code: str
    context_id: str | None = None
    """Default: the sandbox's default context of that language."""
    language: Language = "python"
    timeout_s: Seconds | None = 300.0
    """Seconds until the run is interrupted; null: none."""
    env: Environment = {}
    """Set for this run only."""
    structured: bool = False
    """Give figures and tables also as data, under the MIME types `e2b/chart` and `e2b/data`."""


class Stdout(Reply):
    type: Literal["stdout"] = "stdout"
    text: str


class Stderr(Reply):
    type: Literal["stderr"] = "stderr"
    text: str


class Result(Reply):
    """Something the code showed: the value of the last expression (`main`) or a displayed object or figure."""

    type: Literal["result"] = "result"
    data: dict[str, Any]
    """MIME type → content; binary content is base64, `application/json` is JSON."""
    main: bool = False


class ExecutionError(Reply):
    """An exception the code did not catch, or how its interpreter ended. It is a result, not a failure of Skerry's."""

    type: Literal["error"] = "error"
    name: str
    value: str
    traceback: str


class Done(Reply):
    type: Literal["done"] = "done"
    execution_count: int | None
    duration_s: float
    context_id: str
    context_restarted: bool = False
    """The interpreter died in this run; the context is fresh again and has lost its variables."""


CodeEvent = Annotated[Stdout | Stderr | Result | ExecutionError | Done, Field(discriminator="type")]


class CodeReply(Reply):
    """A finished run, all events gathered."""

    stdout: str
    stderr: str
    results: list[Result]
    error: ExecutionError | None
    execution_count: int | None
    duration_s: float
    context_id: str
    context_restarted: bool = False
    truncated: bool = False


# --- keys -----------------------------------------------------------------------------------------------------------


class KeySpec(Request):
    name: Annotated[str, Field(min_length=1, max_length=128)]


class Key(Reply):
    id: str
    name: str
    prefix: str
    """First characters of the secret, to recognise it by."""
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


class NewKey(Key):
    secret: str
    """Shown once; only its hash is stored."""
