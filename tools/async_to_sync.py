"""Writes the blocking half of the SDK, and its tests, from the half that awaits.

    python tools/async_to_sync.py           write
    python tools/async_to_sync.py --check   exit 1 when what is there differs

Works on tokens, so that strings and comments that name the words in `NAMES` are changed as whole words too.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = (ROOT / "src/skerry/sdk", ROOT / "tests/sdk")
"""Each has `_async/`, and gets `_sync/`."""

NAMES = {
    "AbstractAsyncContextManager": "AbstractContextManager",
    "AsyncConnectionPool": "ConnectionPool",
    "AsyncExitStack": "ExitStack",
    "AsyncIterable": "Iterable",
    "AsyncIterator": "Iterator",
    "StopAsyncIteration": "StopIteration",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "_async": "_sync",
    "aclose": "close",
    "enter_async_context": "enter_context",
    "aiter": "iter",
    "aiter_stream": "iter_stream",
    "anext": "next",
    "aread": "read",
    "async_owner": "owner",
    "asynccontextmanager": "contextmanager",
    "asyncio": "sync",  # websockets.asyncio.client has a twin of that name
    "awaits": "blocks",
}
HEADER = "# Generated from {source} by tools/async_to_sync.py: change that.\n\n"


def convert(text: str) -> str:
    """The blocking twin of a module."""
    text = re.sub(r"\basync (def|with|for)\b", r"\1", text)
    text = re.sub(r"\bawait ", "", text)
    text = re.sub(r"@pytest\.mark\.anyio\n", "", text)
    text = re.sub(r"  # noqa: ASYNC\d+[^\n]*", "", text)
    for name, other in NAMES.items():
        text = re.sub(rf"\b{name}\b", other, text)
    return re.sub(r"\bAsync([A-Z]\w*)", r"\1", text)


def formatted(text: str, name: str) -> str:
    """Line lengths differ without the words, so the twin is laid out anew."""
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--select", "I,F401", "--fix", "-q"], ["format", "-q"]):
        done = subprocess.run(
            [*ruff, *command, "--stdin-filename", name, "-"], input=text, capture_output=True, text=True, check=False
        )
        text = done.stdout
    return text


def main() -> int:
    differing = []
    for folder in FOLDERS:
        for source in sorted((folder / "_async").glob("*.py")):
            target = folder / "_sync" / source.name
            header = HEADER.format(source=source.relative_to(ROOT))
            text = formatted(header + convert(source.read_text()), str(target))
            if "--check" in sys.argv:
                if not target.exists() or target.read_text() != text:
                    differing.append(str(target.relative_to(ROOT)))
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
    if differing:
        print("not current (run tools/async_to_sync.py):", *differing)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
