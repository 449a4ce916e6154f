"""The table of what E2B offers in docs/reference/e2b.md, out of tests/clients/features.toml: what is said to work names
the scenarios that show it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
FEATURES = TESTS / "clients" / "features.toml"
BEGIN, END = (
    "<!-- features: generated from tests/clients/features.toml by tools/e2b_counts.py -->",
    "<!-- /features -->",
)
STATES = ("works", "partly", "not shown", "not yet", "no")
_ELSEWHERE = ("e2e/",)
"""Directories of scenarios that are not below tests/clients."""


@dataclass(frozen=True)
class Feature:
    """One line of the table."""

    name: str
    state: str
    notes: str = ""
    scenarios: tuple[str, ...] = ()

    def problem(self) -> str | None:
        """What is wrong with what it says."""
        if self.state not in STATES:
            return f"its state {self.state!r} is none of {', '.join(STATES)}"
        if self.state == "works" and not self.scenarios:
            return "it works, and no scenario shows that"
        if self.state != "works" and not self.notes:
            return f"it says {self.state!r}, and not why"
        missing = [scenario for scenario in self.scenarios if not names_of(scenario)]
        return f"there is no scenario {', '.join(missing)}" if missing else None

    def line(self, failed: Mapping[str, Sequence[str]]) -> str:
        """
        Args:
            failed: directory below tests/clients → names of scenarios in it that failed.
        """
        broken = [scenario for scenario in self.scenarios if self._fails(scenario, failed)]
        state = f"**fails**: {', '.join(f'`{scenario}`' for scenario in broken)}" if broken else self.state
        shown = ", ".join(dict.fromkeys(f"`{scenario.partition('::')[0]}`" for scenario in self.scenarios))
        return f"| {self.name} | {state} | {self.notes} | {shown} |".replace("|  |", "| |").replace("|  |", "| |")

    @staticmethod
    def _fails(scenario: str, failed: Mapping[str, Sequence[str]]) -> bool:
        bare = {name.partition("[")[0] for name in failed.get(scenario.partition("/")[0], ())}
        return bool(names_of(scenario) & bare)


def features() -> list[Feature]:
    """All of them. Raises ValueError: one says what is not so."""
    found = [
        Feature(item["name"], item["state"], item.get("notes", ""), tuple(item.get("scenarios", ())))
        for item in tomllib.loads(FEATURES.read_text())["feature"]
    ]
    for feature in found:
        if problem := feature.problem():
            raise ValueError(f"{FEATURES.name}: {feature.name}: {problem}")
    return found


def names_of(scenario: str) -> set[str]:
    """The tests that a reference means: one, or all of a module; none when it means nothing."""
    module, _, name = scenario.partition("::")
    path = (TESTS if module.startswith(_ELSEWHERE) else TESTS / "clients") / module
    if not path.is_file():
        return set()
    text = path.read_text()
    if path.suffix == ".py":
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        there = {item.name for item in ast.parse(text).body if isinstance(item, functions)}
        there = {found for found in there if found.startswith("test_")}
    else:
        there = {found[2] for found in re.finditer(r"^test\((['\"`])(.*?)\1", text, re.MULTILINE)}
    return there & {name} if name else there


def table(failed: Mapping[str, Sequence[str]]) -> list[str]:
    """Its lines."""
    header = ["| feature | state | notes | shown by |", "|---|---|---|---|"]
    return [*header, *(feature.line(failed) for feature in features())]
