"""One sandbox on this machine, as the node holds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import anyio

from skerry.models import EndCode
from skerry.node.history import History
from skerry.node.machine import Link, Listener, Slot
from skerry.node.records import Record


@dataclass(slots=True, eq=False)
class Unit:
    """A sandbox's parts. Those not made yet are None, so that a half-made one can be removed."""

    record: Record
    slot: Slot | None = None
    rootfs: Path | None = None
    listener: Listener | None = None
    link: Link | None = None
    ending: EndCode | None = None
    """Set once it is to end or has ended: why."""
    ending_message: str = ""
    kept: str | None = None
    """The state that its disk belongs to: nobody may start from it before this unit is removed."""
    is_restored: bool = False
    """From a warm image: the template's command runs already."""
    history: History = field(default_factory=History)
    idle: bool = False
    """Its driver was told so."""
    removed: anyio.Event = field(default_factory=anyio.Event)
    """Set when nothing of it is left on this machine."""
    fence: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    """Around its supervising task."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def sandbox_id(self) -> str | None:
        return self.record.sandbox_id

    def require_link(self) -> Link:
        """The link of a started sandbox."""
        assert self.link is not None
        return self.link
