"""Answers as a model reads them: short, with what was left out said, images as images."""

from __future__ import annotations

from typing import Any

from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from skerry import ExecResult, Execution, ShownResult
from skerry.models import ExecutionError, ExitReason, FileInfo, FileType

OUTPUT_MAX = 20_000
"""Characters of each stream of output; more would fill a model's context and tell it little."""
IMAGE_MAX = 5 * 1024 * 1024
"""Bytes of one image, as base64: what providers of models accept."""
IMAGES_MAX = 20
_IMAGES = ("image/png", "image/jpeg")
_TEXTS = ("text/plain", "text/markdown", "text/latex", "application/json", "image/svg+xml", "text/html")
"""In the order in which they say most to a reader of text."""


def text(content: str, **structured: Any) -> CallToolResult:
    """An answer of text, and for programs the same as data."""
    return CallToolResult(content=[TextContent(text=content)], structured_content=structured or None)


def failure(message: str) -> CallToolResult:
    """A call that could not be carried out, for the model to read."""
    return CallToolResult(content=[TextContent(text=message)], is_error=True)


def shortened(content: str, limit: int = OUTPUT_MAX) -> str:
    """The beginning and the end of it, in at most about `limit` characters, with what is left out said between."""
    if len(content) <= limit:
        return content
    half = limit // 2
    return f"{content[:half]}\n[… {len(content) - 2 * half} characters left out …]\n{content[-half:]}"


def command(done: ExecResult[str]) -> CallToolResult:
    """A finished command. That it failed is a result, not a failure of the call."""
    parts = [f"exit code {done.returncode}" + ("" if done.reason is ExitReason.EXITED else f" ({done.reason})")]
    parts += _streams(done.stdout, done.stderr)
    if done.truncated:
        parts.append("[output beyond 8 MiB is lost; write it to a file instead]")
    return text(
        "\n".join(parts), exit_code=done.returncode, reason=str(done.reason), stdout=shortened(done.stdout),
        stderr=shortened(done.stderr), truncated=done.truncated or max(len(done.stdout), len(done.stderr)) > OUTPUT_MAX,
    )  # fmt: skip


def execution(run: Execution) -> CallToolResult:
    """What a run of code gave: output, results and a mistake as text, then the images."""
    parts = _streams(run.stdout, run.stderr)
    images: list[ContentBlock] = []
    for result in run.results:
        image = _image(result)
        if image is not None and len(images) < IMAGES_MAX:
            images.append(image)
        elif image is not None:
            parts.append(f"[an image beyond the first {IMAGES_MAX} is left out]")
        else:
            parts.append(f"result:\n{_shown(result)}" if result.main else _shown(result))
    if run.error is not None:
        parts.append(f"error:\n{_mistake(run.error)}")
    if run.context_restarted:
        parts.append("[the interpreter has ended; variables and imports are lost, the next call starts a fresh one]")
    if run.truncated:
        parts.append("[output beyond 8 MiB is lost]")
    if not parts and not images:
        parts.append("[it ran, and showed nothing]")
    written: list[ContentBlock] = [TextContent(text="\n".join(parts))] if parts else []
    return CallToolResult(content=[*written, *images])


def image(data: str, mime_type: str) -> CallToolResult:
    """An image, given as base64."""
    return CallToolResult(content=[ImageContent(data=data, mime_type=mime_type)])


def listing(items: list[FileInfo], limit: int) -> str:
    """One line for each file: kind and permissions, size, path."""
    lines = [_entry(item) for item in items[:limit]]
    if len(items) > limit:
        lines.append(f"[more than {limit} entries; list a folder below]")
    return "\n".join(lines) or "[empty]"


_KINDS = {FileType.DIRECTORY: "d", FileType.SYMLINK: "l", FileType.FILE: "-", FileType.OTHER: "?"}


def _entry(item: FileInfo) -> str:
    target = f" -> {item.target}" if item.target else ""
    return f"{_KINDS[item.type]}{item.mode & 0o7777:04o} {item.owner} {item.size:>9} {item.path}{target}"


def _streams(stdout: str, stderr: str) -> list[str]:
    named = (("stdout", stdout), ("stderr", stderr))
    return [f"{name}:\n{shortened(content).rstrip()}" for name, content in named if content.strip()]


def _mistake(error: ExecutionError) -> str:
    """The traceback, and what happened where it does not say that: a run that took too long ends with an interrupt."""
    said = shortened(error.traceback.rstrip())
    return said if error.name in said else f"{said}\n{error.name}: {error.value}".lstrip()


def _image(result: ShownResult) -> ImageContent | None:
    for mime in _IMAGES:
        data = result.data.get(mime)
        if data is not None and len(data) <= IMAGE_MAX:
            return ImageContent(data=data.replace("\n", ""), mime_type=mime)
    return None


def _shown(result: ShownResult) -> str:
    for mime in _TEXTS:
        content = result.data.get(mime)
        if content is not None:
            return shortened(content if isinstance(content, str) else str(content))
    return f"[{', '.join(result.data)}]"
