"""Every error Skerry reports, with a stable code.

    Error
    ├── InvalidRequest, RequestTooLarge, Unauthenticated, NotFound, Conflict     the caller's mistake
    ├── LimitExceeded, HostFull, DeadlineExceeded, ServerStopping, ServerUnreachable   try later, or ask for less
    ├── TemplateNotFound, TemplateBuildFailed, ImageUnreachable, IsolationUnavailable
    ├── SandboxNotFound, SandboxNotRunning, SandboxHeld, SandboxLost             the sandbox failed, not its program
    ├── SnapshotNotFound, CannotSnapshot, SnapshotDamaged, SnapshotIncompatible  what is kept of sandboxes
    ├── ProcessNotFound, CannotStartProcess, ContextNotFound, ContextBusy, PortNotOpen, PortNotUnderstood
    ├── VolumeNotFound, VolumeSnapshotNotFound, VolumeInUse, VolumeTooSmall, CannotMount
    ├── FileError and its children                                             one per thing that goes wrong with a path
    ├── AgentViolation                                                           a sandbox broke the protocol
    └── InternalError                                                            ours

The same classes serve the server, the wire and the SDK: `to_wire` renders one, `from_wire` makes it again. A code a
client does not know becomes a plain `Error`, so an old client survives a new server. A program's non-zero exit is a
result, never one of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

_registry: dict[str, type[Error]] = {}


class Error(Exception):
    """Base of all errors.

    Args:
        message: what could not be done and why, in one sentence: "cannot X: why".
        details: JSON-able facts for programs: the limit, the current value, the path, when to retry (`retry_after_s`).
    """

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    """HTTP status of the native API."""
    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later without any change."""

    def __init_subclass__(cls, *, code: str, status: int, retryable: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if code in _registry:
            raise TypeError(f"error code {code!r} is already taken by {_registry[code].__name__}")
        cls.code, cls.status, cls.retryable = code, status, retryable
        _registry[code] = cls

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def to_wire(self) -> dict[str, Any]:
        """The JSON body of this error: `{"error": {"code", "message", "retryable", "details"}}`."""
        return {
            "error": {"code": self.code, "message": self.message, "retryable": self.retryable, "details": self.details}
        }

    @staticmethod
    def lookup(code: str) -> type[Error]:
        """The class registered for `code`; `Error` when there is none."""
        return _registry.get(code, Error)

    @staticmethod
    def from_wire(body: Any, fallback: str = "the server gave no error message") -> Error:
        """The error that `body` (decoded JSON) describes; anything malformed becomes a plain `Error`."""
        error = body.get("error") if isinstance(body, Mapping) else None
        if not isinstance(error, Mapping):
            return Error(fallback)
        details = error.get("details")
        made = Error.lookup(str(error.get("code", "")))(str(error.get("message", fallback)))
        made.details = dict(details) if isinstance(details, Mapping) else {}
        return made


def registered() -> dict[str, type[Error]]:
    """All error classes by code, for the reference page and its test."""
    return dict(_registry)


# --- the caller's mistake -------------------------------------------------------------------------------------------


class InvalidRequest(Error, code="request.invalid", status=400):
    """A field, header or parameter is missing, of the wrong type, unknown or out of range."""


class RequestTooLarge(Error, code="request.too_large", status=413):
    """The body is larger than this route accepts."""


class Unauthenticated(Error, code="auth.invalid", status=401):
    """The API key is missing, unknown or revoked."""


class NotFound(Error, code="not_found", status=404):
    """No such route or object."""


class Conflict(Error, code="conflict", status=409):
    """The request contradicts the present state, for example an idempotency key used for another request."""


# --- limits and time ------------------------------------------------------------------------------------------------


class LimitExceeded(Error, code="limit.exceeded", status=429, retryable=True):
    """A limit is reached; details name it, the current value and the maximum."""


class HostFull(Error, code="host.full", status=503, retryable=True):
    """This machine has no room (memory, disk, addresses) for another sandbox; try again later."""


class DeadlineExceeded(Error, code="deadline.exceeded", status=504, retryable=True):
    """The operation did not finish within its time limit."""


class ServerStopping(Error, code="server.stopping", status=503, retryable=True):
    """The server is shutting down."""


class ServerUnreachable(Error, code="server.unreachable", status=503, retryable=True):
    """The client cannot reach the server, or hears nothing from it."""


# --- sandboxes ------------------------------------------------------------------------------------------------------


class TemplateNotFound(Error, code="template.not_found", status=404):
    """No template of that name; details list those there are."""


class TemplateBuildFailed(Error, code="template.build_failed", status=422):
    """A template could not be built; details hold the end of the log."""


class ImageUnreachable(Error, code="image.unreachable", status=422):
    """An image cannot be pulled: its registry cannot be reached, does not have it, or does not give it to us."""


class IsolationUnavailable(Error, code="isolation.unavailable", status=422):
    """The isolation asked for cannot be given on this machine. There is no fallback."""


class SandboxNotFound(Error, code="sandbox.not_found", status=404):
    """No sandbox with that id."""


class SandboxNotRunning(Error, code="sandbox.not_running", status=409):
    """The sandbox has ended or is not started; details hold its state and why it ended."""


class SandboxLost(Error, code="sandbox.lost", status=502):
    """The sandbox died or stopped answering during the call; details hold the reason when it is known."""


class SandboxHeld(Error, code="sandbox.held", status=503, retryable=True):
    """The sandbox stood still to be saved, for longer than this call could wait; try again."""


class SandboxStartFailed(Error, code="sandbox.start_failed", status=503, retryable=True):
    """A sandbox could not be started on this machine; details hold what the runtime said."""


class SnapshotNotFound(Error, code="snapshot.not_found", status=404):
    """No snapshot with that id or name."""


class CannotSnapshot(Error, code="sandbox.cannot_snapshot", status=409):
    """The sandbox's memory cannot be written down as it is now; it goes on. The message says what is in the way."""


class SnapshotDamaged(Error, code="snapshot.damaged", status=409):
    """What was kept is not, or not wholly, what was written: it is not started."""


class SnapshotIncompatible(Error, code="snapshot.incompatible", status=409):
    """Its memory was written by another version of the isolation, or on another processor; its files can be started."""


class AgentViolation(Error, code="agent.violation", status=502):
    """The sandbox's agent broke the protocol. That sandbox is destroyed; no other is touched."""


# --- processes, contexts, ports -------------------------------------------------------------------------------------


class ProcessNotFound(Error, code="process.not_found", status=404):
    """No process with that pid was started through this API (or it ended too long ago)."""


class CannotStartProcess(Error, code="process.cannot_start", status=400):
    """The command, working directory or user does not exist, or may not be used."""


class UserNotFound(Error, code="user.not_found", status=400):
    """The sandbox has no user of that name."""


class ContextNotFound(Error, code="context.not_found", status=404):
    """No interpreter context with that id."""


class ContextBusy(Error, code="context.busy", status=409, retryable=True):
    """The context has too many runs waiting."""


class LanguageNotFound(Error, code="language.not_found", status=400):
    """The template has no interpreter for that language; details list those it has."""


class PortNotOpen(Error, code="port.not_open", status=502, retryable=True):
    """Nothing in the sandbox listens on that port."""


class PortNotUnderstood(Error, code="port.not_understood", status=502):
    """What listens on that port in the sandbox does not answer as HTTP, or a WebSocket, does."""


# --- volumes --------------------------------------------------------------------------------------------------------


class VolumeNotFound(Error, code="volume.not_found", status=404):
    """No volume with that name or id; or its file was removed from the server's data directory."""


class VolumeSnapshotNotFound(Error, code="volume.snapshot_not_found", status=404):
    """The volume has no snapshot with that name or id."""


class VolumeInUse(Error, code="volume.in_use", status=409):
    """Sandboxes have it mounted, or it is being changed; details hold the ids of the sandboxes (`sandbox_ids`)."""


class CannotMount(Error, code="volume.cannot_mount", status=409):
    """A volume cannot be mounted where it was asked for, for example because a file is there."""


class VolumeTooSmall(Error, code="volume.too_small", status=409):
    """What the volume holds does not fit into the size asked for; details hold the `minimum_mib`."""


# --- files ----------------------------------------------------------------------------------------------------------


class FileError(Error, code="file.error", status=400):
    """A file operation failed for a reason that has no class of its own."""


class FileMissing(FileError, code="file.not_found", status=404):
    """No such file or directory."""


class FileExists(FileError, code="file.exists", status=409):
    """The target exists already."""


class IsADirectory(FileError, code="file.is_directory", status=400):
    """A file was expected, the path is a directory."""


class NotADirectory(FileError, code="file.not_directory", status=400):
    """A directory was expected, the path (or a part of it) is not one."""


class DirectoryNotEmpty(FileError, code="file.not_empty", status=409):
    """The directory has entries; remove it recursively."""


class NotAFile(FileError, code="file.not_regular", status=400):
    """The path is a FIFO, socket or device: it cannot be read or written as a file."""


class PermissionDenied(FileError, code="file.permission_denied", status=403):
    """The user of the call may not do this."""


class InvalidPath(FileError, code="file.invalid_path", status=400):
    """The path is empty, too long, or holds a NUL byte, or loops through symbolic links."""


class NoSpace(FileError, code="file.no_space", status=507):
    """The limit (bytes or inodes) of the sandbox's disk, or of the volume, is reached."""


# --- ours -----------------------------------------------------------------------------------------------------------


class InternalError(Error, code="internal", status=500):
    """A fault of Skerry's; the log has the details."""
