# Generated from src/skerry/sdk/_async/code.py by tools/async_to_sync.py: change that.

"""`run_code` and its contexts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import TypeAdapter

from skerry.models import CodeEvent, CodeReply, Done, ExecutionError, Result, Stderr, Stdout
from skerry.models import Context as ContextInfo
from skerry.sdk import wire
from skerry.sdk._sync.client import Client
from skerry.sdk.results import Execution, ShownResult

_EVENT: TypeAdapter[Stdout | Stderr | Result | ExecutionError | Done] = TypeAdapter(CodeEvent)


class Context:
    """An interpreter of its own in a sandbox; pass it to `run_code(context=…)`."""

    def __init__(self, client: Client, sandbox_id: str, info: ContextInfo) -> None:
        self._client, self._sandbox_id = client, sandbox_id
        self.info = info
        self.id = info.id

    @property
    def start_s(self) -> float | None:
        """Seconds its interpreter took to start, as `contexts` or `create_context` found it; None: it came with the
        sandbox, or has not been started."""
        return self.info.start_s

    def restart(self) -> None:
        """Give it a fresh interpreter."""
        self.info = ContextInfo.model_validate_json(self._client.call("POST", self._path("restart")))

    def interrupt(self) -> None:
        """Interrupt what runs in it, if anything does."""
        self._client.call("POST", self._path("interrupt"))

    def remove(self) -> None:
        """End its interpreter."""
        self._client.call("DELETE", self._path())

    def _path(self, *parts: str) -> str:
        return wire.path_of("sandboxes", self._sandbox_id, "contexts", self.id, *parts)


def request_of(
    code: str, language: str, context: Context | str | None, timeout: float | None, env: Mapping[str, str] | None
) -> dict[str, Any]:
    """The body of a run."""
    context_id = context.id if isinstance(context, Context) else context
    body = wire.given(code=code, context_id=context_id, env=None if env is None else dict(env))
    return {**body, "language": language, "timeout_s": timeout}


def run(client: Client, sandbox_id: str, body: Mapping[str, Any]) -> Execution:
    """Run code to its end, in one request."""
    path = wire.path_of("sandboxes", sandbox_id, "code", "run")
    reply = CodeReply.model_validate_json(client.call("POST", path, body))
    return Execution(
        results=[ShownResult(result.data, result.main) for result in reply.results],
        stdout=reply.stdout,
        stderr=reply.stderr,
        error=reply.error,
        execution_count=reply.execution_count,
        duration_s=reply.duration_s,
        context_id=reply.context_id,
        context_restarted=reply.context_restarted,
        truncated=reply.truncated,
    )


@contextmanager
def stream(
    client: Client, sandbox_id: str, body: Mapping[str, Any]
) -> Iterator[Iterator[Stdout | Stderr | Result | ExecutionError | Done]]:
    """Run code and follow it; leaving early interrupts it."""
    with client.events("POST", wire.path_of("sandboxes", sandbox_id, "code", "stream"), body) as events:
        yield _decoded(events)


def _decoded(
    events: Iterator[Mapping[str, Any]],
) -> Iterator[Stdout | Stderr | Result | ExecutionError | Done]:
    for event in events:
        yield _EVENT.validate_python(event)


class Callbacks:
    """Tells callers about events as they come, and gathers them."""

    def __init__(
        self, on_stdout: Callable[[str], Any] | None, on_stderr: Callable[[str], Any] | None,
        on_result: Callable[[ShownResult], Any] | None, on_error: Callable[[ExecutionError], Any] | None,
    ) -> None:  # fmt: skip
        self._on_stdout, self._on_stderr, self._on_result, self._on_error = on_stdout, on_stderr, on_result, on_error
        self._stdout: list[str] = []
        self._stderr: list[str] = []
        self._execution = Execution()

    @property
    def wanted(self) -> bool:
        return any((self._on_stdout, self._on_stderr, self._on_result, self._on_error))

    def take(self, event: Stdout | Stderr | Result | ExecutionError | Done) -> None:
        if isinstance(event, Stdout):
            self._stdout.append(event.text)
            if self._on_stdout:
                self._on_stdout(event.text)
        elif isinstance(event, Stderr):
            self._stderr.append(event.text)
            if self._on_stderr:
                self._on_stderr(event.text)
        elif isinstance(event, Result):
            result = ShownResult(event.data, event.main)
            self._execution.results.append(result)
            if self._on_result:
                self._on_result(result)
        elif isinstance(event, ExecutionError):
            self._execution.error = event
            if self._on_error:
                self._on_error(event)
        else:
            self._execution.execution_count = event.execution_count
            self._execution.duration_s = event.duration_s
            self._execution.context_id = event.context_id
            self._execution.context_restarted = event.context_restarted

    def execution(self) -> Execution:
        self._execution.stdout, self._execution.stderr = "".join(self._stdout), "".join(self._stderr)
        return self._execution
