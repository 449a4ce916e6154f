"""The reference is complete, links lead somewhere, and no page names what is not there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import skerry.sdk  # noqa: F401  # registers the errors that only clients raise
from skerry.config import Settings
from skerry.errors import registered
from skerry.models import EndCode, SandboxState

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
_MAKE = re.compile(r"(?:^ {4}|`)make ([a-z0-9-]+)", re.MULTILINE)


def test_reference_tables_are_generated_from_the_code() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "reference_docs.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_error_setting_and_state_appears() -> None:
    errors = (REFERENCE / "errors.md").read_text()
    assert [code for code in registered() if f"`{code}`" not in errors] == []
    settings = (REFERENCE / "settings.md").read_text()
    assert [name for name in Settings.model_fields if f"`SKERRY_{name.upper()}`" not in settings] == []
    states = (REFERENCE / "states.md").read_text()
    assert [state for state in (*SandboxState, *EndCode) if f"`{state}`" not in states] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target for target in _LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_verbs_of_make_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert [verb for verb in _MAKE.findall(page.read_text()) if verb not in targets] == []
