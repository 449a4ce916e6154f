"""The server dies at each step of everything that changes a sandbox's life: afterwards it is as before, or as it was to
become; its files and its interpreter are whole, it can be used and killed, and nothing is left over."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from skerry.failpoints import POINTS

from .conftest import Server
from .counts import NOTHING, counts

SRC = Path(__file__).parents[2] / "src/skerry"


@dataclass(frozen=True)
class Case:
    """What is done, from what state on, and in which states the sandbox may be found afterwards."""

    point: str
    action: str
    before: str = "running"
    after: frozenset[str] = frozenset({"running"})

    def __str__(self) -> str:
        return f"{self.action}, {self.point}"


def _cases() -> list[Case]:
    old_or_new = {
        "pause": ("running", {"running", "paused"}),
        "pause to disk": ("running", {"running", "paused"}),
        "resume": ("paused", {"running", "paused"}),
        "resume from disk": ("paused to disk", {"running", "paused"}),
        "stop": ("running", {"running", "stopped"}),
        "start": ("stopped", {"running", "stopped"}),
        "snapshot": ("running", {"running"}),
        "delete snapshot": ("running", {"running"}),
        "fork": ("running", {"running"}),
        "rollback": ("running", {"running", "paused"}),
        "kill": ("running", {"running", "destroyed"}),
        "kill at rest": ("paused to disk", {"paused", "destroyed"}),
    }
    hold = ["hold: quiet", "hold: standing", "save: disk written", "save: published"]
    rest = ["rest: committed", "rest: destroyed"]
    start = ["start: provided", "start: committed", "resume: committed"]
    points = {
        "pause": ["freeze: frozen", "freeze: committed"],
        "pause to disk": [*hold, "save: memory written", *rest],
        "resume": ["thaw: thawed", "thaw: committed"],
        "resume from disk": [*start, "state: set aside"],
        "stop": ["stop: processes ended", *hold, *rest],
        "start": start,
        "snapshot": [*hold, "save: memory written", "hold: going on", "snapshot: sealed", "snapshot: committed"],
        "delete snapshot": ["snapshot: deleted", "state: set aside"],
        "fork": ["save: published", "fork: saved", "create: written down", "start: provided", "start: committed"],
        "rollback": ["rollback: copied", "rest: committed", "rest: destroyed", "start: provided", "start: committed"],
        "kill": ["end: committed", "end: destroyed"],
        "kill at rest": ["state: set aside"],
    }
    return [
        Case(point, action, old_or_new[action][0], frozenset(old_or_new[action][1]))
        for action, names in points.items()
        for point in names
    ]


CASES = _cases()


class Mortal(Server):
    """A server that can be started so that it dies at a step."""

    def restart(self, point: str | None = None) -> None:
        self.stop(signal.SIGKILL)
        self._environment.pop("SKERRY_FAILPOINT", None)
        if point is not None:
            self._environment["SKERRY_FAILPOINT"] = point
        self.start()

    def api(self, method: str, path: str, **body: Any) -> Any:
        status, content = self.request(method, path, json.dumps(body).encode() if body else b"")
        assert status < 300, content
        return content

    def dies(self, action: str, sandbox_id: str) -> None:
        """Do it, and die of it."""
        try:
            act(self, action, sandbox_id)
        except (OSError, ValueError, IndexError):  # there is no reply
            pass
        else:
            pytest.fail(f"{action}: the server did not die")
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def revive(self) -> None:
        del self._environment["SKERRY_FAILPOINT"]
        self.start()


def act(server: Mortal, action: str, sandbox_id: str) -> None:
    one = f"/v1/sandboxes/{sandbox_id}"
    match action:
        case "pause" | "resume" | "stop" | "start":
            server.api("POST", f"{one}/{action}")
        case "pause to disk":
            server.api("POST", f"{one}/pause", to_disk=True)
        case "resume from disk":
            server.api("POST", f"{one}/resume")
        case "snapshot":
            server.api("POST", f"{one}/snapshots", name="taken")
        case "delete snapshot":
            server.api("DELETE", "/v1/snapshots/before")
        case "fork":
            server.api("POST", f"{one}/fork", count=2)
        case "rollback":
            server.api("POST", f"{one}/rollback", snapshot="before")
        case "kill" | "kill at rest":
            server.api("DELETE", one)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    """One data directory for all: what a death leaves behind must not hurt what comes later either."""
    data = tmp_path_factory.mktemp("mortal") / "data"
    server = Mortal(data, settings={"SKERRY_SUBNET": "10.217.0.0/16", "SKERRY_POOL_MIN": "0"})
    yield server
    assert server.stop() == 0
    assert counts(server.data_dir) == NOTHING


def test_every_point_is_reached_in_one_place_and_has_a_case() -> None:
    source = "".join(path.read_text() for path in SRC.rglob("*.py") if path.name != "failpoints.py")
    assert {point: source.count(f'reached("{point}")') for point in POINTS} == dict.fromkeys(POINTS, 1)
    of_volumes = {point for point in POINTS if point.startswith("volume: ")}  # see test_volumes.py
    assert {case.point for case in CASES} == set(POINTS) - of_volumes


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_server_may_die_at_any_step(server: Mortal, case: Case) -> None:
    sandbox = server.sandbox(timeout=None)
    sandbox.files.write("/home/user/kept", "content")
    sandbox.run_code("x = 41")
    one = f"/v1/sandboxes/{sandbox.id}"
    if case.action in ("delete snapshot", "rollback"):
        server.api("POST", f"{one}/snapshots", name="before")
        sandbox.run_code("y = 1")
    if case.before == "paused":
        server.api("POST", f"{one}/pause")
    elif case.before == "paused to disk":
        server.api("POST", f"{one}/pause", to_disk=True)
    elif case.before == "stopped":
        server.api("POST", f"{one}/stop")

    server.restart(case.point)
    server.dies(case.action, sandbox.id)
    server.revive()

    found = server.api("GET", one)
    assert found["state"] in case.after, found
    if found["state"] != "destroyed":
        if found["state"] == "stopped":
            server.api("POST", f"{one}/start")
        again = server.connect(sandbox.id)
        assert again.files.read("/home/user/kept") == "content"
        if case.action not in ("stop", "start"):
            assert again.run_code("x + 1").text == "42", "its interpreter is as it was"
            later = case.action in ("delete snapshot", "rollback") and found["snapshot"] is None
            assert again.run_code("'y' in globals()").text == str(later), "of the one time or the other"
    for snapshot in server.api("GET", "/v1/snapshots")["items"]:
        assert snapshot["name"] in ("before", "taken")
        server.api("DELETE", f"/v1/snapshots/{snapshot['id']}")
    for other in server.api("GET", "/v1/sandboxes")["items"]:
        server.api("DELETE", f"/v1/sandboxes/{other['id']}")
    assert server.api("GET", "/v1/sandboxes")["items"] == []
    deadline = time.monotonic() + 10  # what was removed goes in its own time
    while list((server.data_dir / "states").iterdir()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
