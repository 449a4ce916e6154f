"""Steps at which a test lets the server die, to see that nothing is half done afterwards.

`SKERRY_FAILPOINT=NAME` kills the process, as `kill -9` does, when it reaches that step. The names are in POINTS; a test
goes through all of them.
"""

from __future__ import annotations

import os
import signal

POINTS = (
    "create: written down",
    "start: provided",
    "start: committed",
    "freeze: frozen",
    "freeze: committed",
    "thaw: thawed",
    "thaw: committed",
    "hold: quiet",
    "hold: standing",
    "hold: going on",
    "save: memory written",
    "save: disk written",
    "save: published",
    "rest: committed",
    "rest: destroyed",
    "resume: committed",
    "snapshot: sealed",
    "snapshot: committed",
    "snapshot: deleted",
    "state: set aside",
    "fork: saved",
    "rollback: copied",
    "stop: processes ended",
    "volume: written",
    "volume: published",
    "volume: added",
    "volume: noted",
    "volume: snapshot added",
    "volume: deleting",
    "volume: removed",
    "volume: attached",
    "end: committed",
    "end: destroyed",
)
_ARMED = os.environ.get("SKERRY_FAILPOINT")


def reached(point: str) -> None:
    """Die here, if this is the step to die at."""
    if point == _ARMED:
        os.kill(os.getpid(), signal.SIGKILL)
