"""What calls give back, for people: the output of a program, the result of code, shown well in a notebook."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from skerry.errors import Error
from skerry.models import ExecutionError, ExitReason

S = TypeVar("S", str, bytes)

_BINARY = ("image/png", "image/jpeg", "application/pdf")


class CommandFailed(Error, code="command.failed", status=500):
    """A command that was run with `check=True` did not exit with status 0. Details hold its status and output."""


class ForkIncomplete(Error, code="fork.incomplete", status=500):
    """Some of the copies that `fork` was asked for could not be made; the others run. Details hold their ids."""

    sandboxes: Sequence[Any] = ()
    """The copies that were made."""
    errors: Sequence[Error] = ()
    """Why each of the others was not."""


def fork_incomplete(sandbox_id: str, sandboxes: Sequence[Any], errors: Sequence[Error]) -> ForkIncomplete:
    wanted = len(sandboxes) + len(errors)
    error = ForkIncomplete(
        f"cannot make {len(errors)} of {wanted} copies of sandbox {sandbox_id}: {errors[0].message}",
        sandbox_ids=[sandbox.id for sandbox in sandboxes], errors=[error.to_wire()["error"] for error in errors],
    )  # fmt: skip
    error.sandboxes, error.errors = sandboxes, errors
    return error


@dataclass(frozen=True)
class ExecResult(Generic[S]):
    """A finished command, like `subprocess.CompletedProcess`."""

    args: str | list[str]
    returncode: int
    """As a shell reports it: 128 + signal number after a signal."""
    stdout: S
    stderr: S
    reason: ExitReason = ExitReason.EXITED
    duration_s: float = 0.0
    truncated: bool = False
    """Output beyond 8 MiB of a stream was left out; use callbacks or `background=True` to get all of it."""

    def check_returncode(self) -> None:
        """Raises CommandFailed when the status is not 0."""
        if self.returncode != 0:
            raise CommandFailed(
                f"command {self.args!r} ended with status {self.returncode} ({self.reason})",
                returncode=self.returncode, stdout=_shown(self.stdout), stderr=_shown(self.stderr),
            )  # fmt: skip


def _shown(output: str | bytes) -> str:
    return output if isinstance(output, str) else output.decode(errors="replace")


@dataclass(frozen=True)
class ShownResult:
    """One thing that code showed: the value of the last expression (`main`), a displayed object or a figure."""

    data: dict[str, Any]
    """MIME type → content; binary content is base64."""
    main: bool = False

    @property
    def text(self) -> str | None:
        return self.data.get("text/plain")

    @property
    def html(self) -> str | None:
        return self.data.get("text/html")

    @property
    def markdown(self) -> str | None:
        return self.data.get("text/markdown")

    @property
    def svg(self) -> str | None:
        return self.data.get("image/svg+xml")

    @property
    def latex(self) -> str | None:
        return self.data.get("text/latex")

    @property
    def json(self) -> Any:
        return self.data.get("application/json")

    @property
    def javascript(self) -> str | None:
        return self.data.get("application/javascript")

    @property
    def png(self) -> bytes | None:
        return self._bytes("image/png")

    @property
    def jpeg(self) -> bytes | None:
        return self._bytes("image/jpeg")

    @property
    def pdf(self) -> bytes | None:
        return self._bytes("application/pdf")

    def _bytes(self, mime: str) -> bytes | None:
        content = self.data.get(mime)
        return None if content is None else base64.b64decode(content)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {mime: base64.b64decode(content) if mime in _BINARY else content for mime, content in self.data.items()}

    def __str__(self) -> str:
        return self.text or f"<{', '.join(self.data)}>"


@dataclass
class Execution:
    """What a run of code gave."""

    results: list[ShownResult] = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""
    error: ExecutionError | None = None
    """The exception that the code did not catch, or how its interpreter ended."""
    execution_count: int | None = None
    duration_s: float = 0.0
    context_id: str = ""
    context_restarted: bool = False
    """The interpreter died in this run; the next one starts with a fresh one."""
    truncated: bool = False

    @property
    def text(self) -> str | None:
        """The main result as text; None when the last line was no expression."""
        return next((result.text for result in self.results if result.main), None)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        if self.results:
            return self.results[-1]._repr_mimebundle_()
        return {"text/plain": self.error.traceback if self.error else self.stdout}
