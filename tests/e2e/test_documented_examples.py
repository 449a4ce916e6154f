"""The Python in the tutorial and the how-to pages runs, and prints what the pages say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from tests.e2e.conftest import Server

DOCS = Path(__file__).resolve().parents[2] / "docs"
_BLOCK = re.compile(r"^```(python|output)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FOREIGN = "from e2b"
"""In examples for other clients, which tests/e2e/test_e2b.py and tests/templates/test_desktop.py run."""
PAGES = [
    page for page in sorted([*DOCS.glob("tutorial/*.md"), *DOCS.glob("how-to/*.md")]) if "```python" in page.read_text()
]


def examples(page: Path) -> list[tuple[str, str | None]]:
    """Pieces of code, each with the output that the page shows for it."""
    found: list[tuple[str, str | None]] = []
    for kind, text in _BLOCK.findall(page.read_text()):
        if kind == "python":
            found.append((text, None))
        else:
            found[-1] = (found[-1][0], text)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_print_what_the_page_says(page: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKERRY_API_URL", server.api_url)
    monkeypatch.setenv("SKERRY_API_KEY", server.api_key)
    names: dict[str, object] = {"__name__": "example"}
    for code, expected in examples(page):
        if FOREIGN in code:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(page), "exec"), names)
        if expected is not None:
            assert printed.getvalue().split() == expected.split()
