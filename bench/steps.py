"""`python -m bench.steps FILE …`: `skerry …`, which also writes down what the steps of a pause and a resume take.

One line of JSON in FILE for each step that ended well: its name and its seconds.
"""

from __future__ import annotations

import functools
import json
import pkgutil
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from bench.stats import summarize

PAUSE = {
    "the agent writes all to its disk and parts": "skerry.agentlink.listener:Listener.hold",
    "`runsc pause`": "skerry.drivers.gvisor:Gvisor.pause",
    "`runsc checkpoint`": "skerry.drivers.gvisor:Gvisor.checkpoint",
    "the disk is flushed and gets its second name": "skerry.host.disks:Disks.export",
    "the store is told": "skerry.core.sandboxes:Sandboxes.rest",
    "all of a pause to disk": "skerry.core.lifecycle:Lifecycle.pause",
}
"""What a table calls a step, and where it is; in the order in which they come."""
RESUME = {
    "what is kept is verified": "skerry.node.states:States.verify",
    "the disk is copied and mounted": "skerry.host.disks:Disks.create",
    "a network namespace is taken": "skerry.host.network:Network.acquire",
    "all that runsc needs to find": "skerry.node.builder:Builder._make_parts",
    "`runsc restore`": "skerry.drivers.gvisor:Gvisor.restore",
    "the agent dials": "skerry.node.builder:Builder._greet",
    "the agent reseeds": "skerry.agentlink.link:Link.reseed",
    "the agent learns its environment": "skerry.agentlink.link:Link.configure",
    "what was kept is set aside": "skerry.node.states:States.remove",
    "all of a resume from disk": "skerry.core.lifecycle:Lifecycle.resume",
}


def wrapped(method: Callable[..., Awaitable[Any]], done: Callable[[float], object]) -> Callable[..., Awaitable[Any]]:
    """The same; `done` is told the seconds of each call that ends well."""

    @functools.wraps(method)
    async def call(*args: Any, **named: Any) -> Any:
        begun = time.monotonic()
        returned = await method(*args, **named)
        done(time.monotonic() - begun)
        return returned

    return call


def watch(steps: Mapping[str, str], out: Path) -> None:
    """From now on each of the steps leaves a line in the file."""
    for name, place in steps.items():
        owner, _, attribute = place.rpartition(".")
        parent = pkgutil.resolve_name(owner)

        def note(seconds: float, name: str = name) -> None:
            with out.open("a") as file:
                file.write(json.dumps([name, seconds]) + "\n")

        setattr(parent, attribute, wrapped(getattr(parent, attribute), note))


def medians(out: Path) -> dict[str, float]:
    """Step → the median of its seconds."""
    samples: dict[str, list[float]] = {}
    for line in out.read_text().splitlines():
        name, seconds = json.loads(line)
        samples.setdefault(name, []).append(seconds)
    return {name: summarize(found).median for name, found in samples.items()}


if __name__ == "__main__":
    watch(PAUSE | RESUME, Path(sys.argv.pop(1)))
    from skerry.cli import main

    main()
