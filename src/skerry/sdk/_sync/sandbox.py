# Generated from src/skerry/sdk/_async/sandbox.py by tools/async_to_sync.py: change that.

"""Sandboxes, as programs use them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Any, Literal, Self, overload

from skerry.errors import ProcessNotFound, SandboxNotFound
from skerry.models import Context as ContextInfo
from skerry.models import (
    Done,
    Event,
    ExecutionError,
    ProcessResult,
    Reply,
    Restart,
    Result,
    SandboxPage,
    SandboxStats,
    Stderr,
    Stdout,
    UsageSample,
)
from skerry.models import Process as ProcessInfo
from skerry.models import Sandbox as SandboxInfo
from skerry.models import Snapshot as SnapshotInfo
from skerry.sdk import wire
from skerry.sdk._sync import code as _code
from skerry.sdk._sync.client import Client
from skerry.sdk._sync.code import Context
from skerry.sdk._sync.files import Files
from skerry.sdk._sync.lifecycle import Lifecycle, reference_of
from skerry.sdk._sync.process import Process
from skerry.sdk._sync.pty import Pty
from skerry.sdk.mounts import Mountable, mounts_of
from skerry.sdk.results import ExecResult, Execution, ShownResult


class Sandbox(Lifecycle):
    """One sandbox. Made by `create` or `connect`; as a context manager it is killed at the end.

    Attributes:
        id: its id.
        created: what it was when this object was made; `info()` asks anew.
        files: its files.
        pty: terminals in it.
    """

    def __init__(self, client: Client, created: SandboxInfo) -> None:
        super().__init__(client, created)
        self.files = Files(client, created.id)
        self.pty = Pty(client, created.id)

    # --- which sandbox ----------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, template: str = "base", *, snapshot: str | SnapshotInfo | None = None, timeout: float | None = 300,
        idle_timeout: float | None = None, on_timeout: Literal["kill", "pause"] = "kill", keep_memory: bool = True,
        auto_resume: bool = True, env: Mapping[str, str] | None = None, metadata: Mapping[str, str] | None = None,
        cpu: float | None = None, memory: int | None = None, disk: int | None = None, pids: int | None = None,
        internet: bool = True, volumes: Mapping[str, Mountable] | None = None,
        command: str | Sequence[str] | None = None, restart: Restart | Literal["no", "on-failure", "always"] = "no",
        isolation: str = "gvisor",
        idempotency_key: str | None = None, api_url: str | None = None, api_key: str | None = None,
    ) -> Self:  # fmt: skip
        """A new, running sandbox.

        Args:
            template: what it is made from.
            snapshot: what it is made from, in place of a template: a snapshot, its id or its name.
            timeout: seconds until its time is over; None: never.
            idle_timeout: seconds without use until its time is over; None: never.
            on_timeout: what happens then: it is destroyed, or paused.
            keep_memory: whether that pause keeps its processes; otherwise its files only.
            auto_resume: whether using it while it is paused resumes it.
            env: environment of everything in it.
            metadata: labels to find it by.
            cpu: cores; memory and disk: MiB; pids: processes. Default: the template's, or the snapshot's.
            internet: whether it may reach the internet.
            volumes: by the absolute path at which each is mounted: a volume, its name or id, or
                `volume.read_only()`.
            command: a program that runs in it from its start on, a string for the shell, a list as it is. Its end stops
                the sandbox.
            restart: whether it then starts again, and after its own death: a word, or a `Restart` with how often, and
                after how long.
            isolation: what stands between it and the host; never weakened silently.
            idempotency_key: the same key again gives the same sandbox.

        Raises:
            TemplateNotFound, SnapshotNotFound, SnapshotDamaged, SnapshotIncompatible, IsolationUnavailable, HostFull,
            SandboxStartFailed, VolumeNotFound, VolumeInUse, CannotMount, Unauthenticated, ServerUnreachable
        """
        client = Client.shared(api_url, api_key)
        body = {
            "template": template, "timeout_s": timeout, "idle_timeout_s": idle_timeout, "on_timeout": on_timeout,
            "keep_memory": keep_memory, "auto_resume": auto_resume, "internet": internet, "isolation": isolation,
            "restart": {"when": restart} if isinstance(restart, str) else restart.model_dump(mode="json"),
            **wire.given(
                snapshot=None if snapshot is None else reference_of(snapshot),
                env=None if env is None else dict(env), metadata=None if metadata is None else dict(metadata), cpu=cpu,
                memory_mib=memory, disk_mib=disk, pids=pids, volumes=None if volumes is None else mounts_of(volumes),
                command=command if command is None or isinstance(command, str) else list(command),
            ),
        }  # fmt: skip
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        reply = client.call("POST", "/v1/sandboxes", body, headers=headers)
        return cls(client, SandboxInfo.model_validate_json(reply))

    @classmethod
    def connect(cls, sandbox_id: str, *, api_url: str | None = None, api_key: str | None = None) -> Self:
        """An existing sandbox. Raises SandboxNotFound."""
        client = Client.shared(api_url, api_key)
        reply = client.call("GET", wire.path_of("sandboxes", sandbox_id))
        return cls(client, SandboxInfo.model_validate_json(reply))

    @classmethod
    def list(
        cls, *, state: Sequence[str] | None = None, template: str | None = None,
        metadata: Mapping[str, str] | None = None, api_url: str | None = None, api_key: str | None = None,
    ) -> Iterator[SandboxInfo]:  # fmt: skip
        """All sandboxes, newest first; those that have not ended, unless states are named."""
        client = Client.shared(api_url, api_key)
        pairs = [f"{name}={value}" for name, value in (metadata or {}).items()]
        cursor: str | None = None
        while True:
            query = {"state": list(state or ()), "template": template, "metadata": pairs, "cursor": cursor}
            page = SandboxPage.model_validate_json(client.call("GET", wire.path_of("sandboxes", **query)))
            for item in page.items:
                yield item
            if page.next_cursor is None:
                return
            cursor = page.next_cursor

    def info(self) -> SandboxInfo:
        """What it is now; also after its end, with the reason."""
        return SandboxInfo.model_validate_json(self._client.call("GET", self._path()))

    def kill(self) -> None:
        """Destroy it; no-op when it has ended."""
        with suppress(SandboxNotFound):
            self._client.call("DELETE", self._path())

    def set_timeout(self, timeout: float | None) -> SandboxInfo:
        """Seconds from now until its time is over; None: never."""
        return self.update(timeout_s=timeout)

    def update(self, **changes: Any) -> SandboxInfo:
        """Change `timeout_s`, `idle_timeout_s`, `metadata` or `internet`."""
        return SandboxInfo.model_validate_json(self._client.call("PATCH", self._path(), changes))

    def stats(self) -> SandboxStats:
        """What it holds and has used."""
        return SandboxStats.model_validate_json(self._client.call("GET", self._path("stats")))

    def stats_history(self) -> Sequence[UsageSample]:
        """What it has used over its life, the oldest first: a sample every five seconds, fewer of a long life."""
        return _History.model_validate_json(self._client.call("GET", self._path("stats", "history"))).items

    def events(self, *, after: int = 0, limit: int = 100) -> Sequence[Event]:
        """What happened to it, oldest first."""
        reply = self._client.call("GET", self._path("events", after=after, limit=limit))
        return _EventList.model_validate_json(reply).items

    def port_url(self, port: int) -> str:
        """Where a program that listens on `port` inside is reached; requests need the API key."""
        return f"{self._client.api_url}{self._path('ports', str(port))}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

    # --- code -------------------------------------------------------------------------------------------------------

    def run_code(
        self, code: str, *, language: str = "python", context: Context | str | None = None,
        timeout: float | None = 300, env: Mapping[str, str] | None = None,
        on_stdout: Callable[[str], Any] | None = None, on_stderr: Callable[[str], Any] | None = None,
        on_result: Callable[[ShownResult], Any] | None = None, on_error: Callable[[ExecutionError], Any] | None = None,
    ) -> Execution:  # fmt: skip
        """Run code; variables and imports stay for the next run.

        Args:
            context: the interpreter to use; default: the language's own of this sandbox.
            timeout: seconds until it is interrupted; None: none.
            env: set for this run only.
            on_stdout, on_stderr, on_result, on_error: called with what happens, as it happens.

        Raises:
            SandboxNotRunning, SandboxLost, ContextNotFound, ContextBusy, LanguageNotFound
        """
        body = _code.request_of(code, language, context, timeout, env)
        callbacks = _code.Callbacks(on_stdout, on_stderr, on_result, on_error)
        if not callbacks.wanted:
            return _code.run(self._client, self.id, body)
        with _code.stream(self._client, self.id, body) as events:
            for event in events:
                callbacks.take(event)
        return callbacks.execution()

    def run_code_stream(
        self, code: str, *, language: str = "python", context: Context | str | None = None,
        timeout: float | None = 300, env: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Iterator[Stdout | Stderr | Result | ExecutionError | Done]]:  # fmt: skip
        """Run code and iterate over what happens; leaving the context early interrupts it."""
        return _code.stream(self._client, self.id, _code.request_of(code, language, context, timeout, env))

    def create_context(
        self, *, language: str = "python", cwd: str | None = None, env: Mapping[str, str] | None = None
    ) -> Context:
        """Another interpreter, with variables of its own."""
        body = {"language": language, **wire.given(cwd=cwd, env=None if env is None else dict(env))}
        reply = self._client.call("POST", self._path("contexts"), body)
        return Context(self._client, self.id, ContextInfo.model_validate_json(reply))

    def contexts(self) -> Sequence[Context]:
        """The interpreters that were made or used."""
        items = _ContextList.model_validate_json(self._client.call("GET", self._path("contexts"))).items
        return [Context(self._client, self.id, item) for item in items]

    # --- commands ---------------------------------------------------------------------------------------------------

    @overload
    def exec(
        self, command: str | Sequence[str], *, background: Literal[True], cwd: str | None = None,
        env: Mapping[str, str] | None = None, user: str | None = None,
        timeout: float | None = None, stdin: bool = False,
        tag: str | None = None,
    ) -> Process: ...  # fmt: skip
    @overload
    def exec(
        self, command: str | Sequence[str], *, text: Literal[False], background: Literal[False] = False,
        cwd: str | None = None, env: Mapping[str, str] | None = None, user: str | None = None,
        timeout: float | None = None,
        input: bytes | str | None = None, check: bool = False, on_stdout: Callable[[Any], Any] | None = None,
        on_stderr: Callable[[Any], Any] | None = None, tag: str | None = None,
    ) -> ExecResult[bytes]: ...  # fmt: skip
    @overload
    def exec(
        self, command: str | Sequence[str], *, text: Literal[True] = True, background: Literal[False] = False,
        cwd: str | None = None, env: Mapping[str, str] | None = None, user: str | None = None,
        timeout: float | None = None,
        input: bytes | str | None = None, check: bool = False, on_stdout: Callable[[Any], Any] | None = None,
        on_stderr: Callable[[Any], Any] | None = None, tag: str | None = None,
    ) -> ExecResult[str]: ...  # fmt: skip
    def exec(
        self, command: str | Sequence[str], *, background: bool = False, text: bool = True, cwd: str | None = None,
        env: Mapping[str, str] | None = None, user: str | None = None,
        timeout: float | None = None, stdin: bool = False,
        input: bytes | str | None = None, check: bool = False, on_stdout: Callable[[Any], Any] | None = None,
        on_stderr: Callable[[Any], Any] | None = None, tag: str | None = None,
    ) -> Any:  # fmt: skip
        """Run a program, as `subprocess.run` would.

        Args:
            command: a string is for the shell (`bash -l -c`), a list is executed as it is.
            background: return at once with the running process.
            text: output as text (undecodable bytes replaced), or as bytes.
            timeout: seconds until its process group is killed.
            input: written to its standard input, which then ends.
            stdin: keep standard input open for `write_stdin` (with `background`).
            check: raise CommandFailed when its status is not 0.
            on_stdout, on_stderr: called with pieces of output as they come.

        Raises:
            CannotStartProcess, UserNotFound, SandboxNotRunning, SandboxLost, CommandFailed
        """
        body: dict[str, Any] = {
            "command": command if isinstance(command, str) else list(command),
            "stdin": stdin or input is not None,
            **wire.given(user=user, cwd=cwd, env=None if env is None else dict(env), timeout_s=timeout, tag=tag),
        }  # fmt: skip
        if background:
            return self._start(body)
        if on_stdout or on_stderr or input is not None:
            finished = self._follow(body, input, text, on_stdout, on_stderr)
        else:
            path = self._path("processes", "run")
            finished = ProcessResult.model_validate_json(self._client.call("POST", path, body))
        result: ExecResult[Any] = ExecResult(
            args=command if isinstance(command, str) else list(command),
            returncode=finished.exit.exit_code,
            stdout=_text(finished.stdout) if text else finished.stdout,
            stderr=_text(finished.stderr) if text else finished.stderr,
            reason=finished.exit.reason,
            duration_s=finished.exit.duration_s,
            truncated=finished.truncated,
        )
        if check:
            result.check_returncode()
        return result

    def _start(self, body: Mapping[str, Any]) -> Process:
        reply = self._client.call("POST", self._path("processes"), body)
        return Process(self._client, self.id, ProcessInfo.model_validate_json(reply))

    def _follow(
        self, body: Mapping[str, Any], input: bytes | str | None, text: bool, on_stdout: Callable[[Any], Any] | None,
        on_stderr: Callable[[Any], Any] | None,
    ) -> ProcessResult:  # fmt: skip
        process = self._start(body)
        if input is not None:
            process.write_stdin(input)
            process.close_stdin()
        gathered = {"stdout": bytearray(), "stderr": bytearray()}
        tell = {"stdout": on_stdout, "stderr": on_stderr}
        for stream, data in process.output():
            gathered[stream] += data
            if callback := tell[stream]:
                callback(_text(data) if text else data)
        return ProcessResult.model_construct(
            pid=process.pid, exit=process.exit, stdout=bytes(gathered["stdout"]), stderr=bytes(gathered["stderr"]),
            truncated=False,
        )  # fmt: skip

    def processes(self) -> Sequence[Process]:
        """Those that run, and those that ended in the last minute."""
        items = _ProcessList.model_validate_json(self._client.call("GET", self._path("processes"))).items
        return [Process(self._client, self.id, item) for item in items]

    def attach(self, pid: int) -> Process:
        """A process by its pid; its output is read from the oldest byte that is still held. Raises ProcessNotFound."""
        for process in self.processes():
            if process.pid == pid:
                return process
        raise ProcessNotFound(f"cannot attach to process {pid}: there is none with that pid", pid=pid)

    def __repr__(self) -> str:
        return f"<sandbox {self.id}>"


class _EventList(Reply):
    items: list[Event]


class _ContextList(Reply):
    items: list[ContextInfo]


class _ProcessList(Reply):
    items: list[ProcessInfo]


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


class _History(Reply):
    items: list[UsageSample]
