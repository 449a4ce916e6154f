"""Whether an agent can be asked: its connection, its silence, and holds.

Theory of operation. The agent dials; the newest connection serves. Requests wait for one. Somebody looks every ten
seconds whether the agent was heard, and asks when it was not.

A hold is for the time in which the sandbox's memory is saved, when nothing may be connected to the host: requests that
begin wait at a gate, short ones that are under way get some time to end, then the agent closes the connection.
Afterwards it dials again and the gate opens. What follows a process or watches a directory goes on by itself
(`streams.py`); what else was under way ends with `SandboxHeld`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from skerry.agentlink.channel import Channel
from skerry.agentlink.connection import Connection
from skerry.errors import AgentViolation, DeadlineExceeded, Error, SandboxHeld, SandboxLost

PING_AFTER_S = 10.0
"""Silence after which the agent is asked whether it lives."""
UNREACHABLE_AFTER_S = 30.0
"""Without an answer, or without a connection, for this long: it does not."""
RECONNECT_WAIT_S = 10.0
"""How long a call waits for the agent to dial again."""
QUIESCE_S = 60.0
"""How long an agent may take to write everything to its disk and close the connection."""
DIALLED_GRACE_S = 0.5
"""How long a hold waits for connections to programs inside: most are one request, some last for ever."""

CUT = (SandboxLost, SandboxHeld)
"""What a request ends with whose connection has ended."""


class Presence:
    """The part of a `Link` that does not know what is asked.

    Args:
        on_lost: called once, when the agent has broken the protocol or cannot be reached any more.
    """

    def __init__(self, on_lost: Callable[[Error], None]) -> None:
        self._on_lost = on_lost
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._disconnected = asyncio.Event()
        self._disconnected.set()
        self._failure: Error | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._suspended = False
        self._silent_since = asyncio.get_running_loop().time()
        self._pinging: Channel | None = None
        self._unheld = asyncio.Event()
        self._unheld.set()
        self._quiet = False
        """Held, and nothing can be heard."""
        self._brief: set[Channel] = set()
        """Requests whose answer will come soon."""
        self._dialled: set[Channel] = set()
        self._fewer = asyncio.Event()

    # --- connections ------------------------------------------------------------------------------------------------

    def use(self, connection: Connection) -> None:
        """A newer connection replaces an older one."""
        old, self._connection = self._connection, connection
        self._connected.set()
        self._disconnected.clear()
        if old is not None:
            old.close()
        self._watch()

    def lost(self, connection: Connection, error: Error) -> None:
        """A connection has ended."""
        if isinstance(error, AgentViolation):
            self.fail(error)
        elif connection is self._connection:
            self._connection = None
            self._disconnected.set()
            if self._failure is None:
                self._connected.clear()
            self._silent_since = asyncio.get_running_loop().time()

    def fail(self, error: Error) -> None:
        """Give the agent up: every call under way and every later one raises `error`."""
        if self._failure is not None:
            return
        self.close(error)
        self._on_lost(error)

    def close(self, error: Error) -> None:
        """As `fail`, without telling anybody."""
        if self._failure is None:
            self._failure = error
        self._unwatch()
        for event in (self._connected, self._disconnected, self._unheld, self._fewer):
            event.set()
        if self._connection is not None:
            self._connection.fail(error)

    # --- silence ----------------------------------------------------------------------------------------------------

    def suspend(self) -> None:
        """The sandbox is about to be frozen: its silence means nothing until `resume`."""
        self._suspended = True
        self._unwatch()

    def resume(self) -> None:
        """The sandbox runs again, and its agent hears so."""
        self._suspended = False
        self._watch()
        if self._connection is not None and self._failure is None and not (self._pinging and self._pinging.open):
            self._pinging = self._connection.open({"op": "ping"})

    def _watch(self) -> None:
        self._unwatch()
        if self._suspended or self._quiet or self._failure is not None:
            return
        now = asyncio.get_running_loop().time()
        self._silent_since = now
        if self._connection is not None:
            self._connection.last_heard = now
        self._timer = asyncio.get_running_loop().call_later(PING_AFTER_S, self._look)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Every ten seconds: has the agent been heard?"""
        loop = asyncio.get_running_loop()
        connection = self._connection
        heard = connection.last_heard if connection is not None else self._silent_since
        silence = loop.time() - heard
        if silence >= UNREACHABLE_AFTER_S:
            self.fail(SandboxLost(f"the sandbox's agent has not answered for {silence:.0f} s"))
            return
        if connection is not None and silence >= PING_AFTER_S * 0.9 and (not self._pinging or not self._pinging.open):
            self._pinging = connection.open({"op": "ping"})
        self._timer = loop.call_later(PING_AFTER_S, self._look)

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _ready(self) -> Connection:
        """Not before a hold has ended."""
        while self._failure is None:
            if not self._unheld.is_set():
                await self._unheld.wait()
            elif self._connection is not None:
                return self._connection
            else:
                await self._reached()
        raise self._failure

    async def _reached(self) -> Connection:
        """The agent's connection, during a hold too."""
        if self._connection is None and self._failure is None:
            try:
                async with asyncio.timeout(RECONNECT_WAIT_S):
                    await self._connected.wait()
            except TimeoutError:
                raise SandboxLost("cannot reach the sandbox: its agent is not connected") from None
        if self._failure is not None:
            raise self._failure
        if self._connection is None:
            raise SandboxLost("the connection to the sandbox's agent was lost")
        return self._connection

    async def begin(self, op: str, **fields: Any) -> Channel:
        """A new request, which a hold waits for until it is `settled` or given up with `leave`."""
        channel = (await self._ready()).open({"op": op, **fields})
        self._brief.add(channel)
        return channel

    async def begin_dialled(self, **fields: Any) -> Channel:
        """As `begin`, for a connection to a program inside."""
        channel = (await self._ready()).open({"op": "dial", **fields})
        self._dialled.add(channel)
        return channel

    def settled(self, channel: Channel) -> None:
        """What follows may take long, and survives a hold."""
        self._brief.discard(channel)
        self._dialled.discard(channel)
        self._fewer.set()

    def leave(self, channel: Channel) -> None:
        """Want no more of it; no-op when it is over."""
        channel.cancel()
        self.settled(channel)

    @asynccontextmanager
    async def request(self, op: str, **fields: Any) -> AsyncIterator[Channel]:
        """A channel that is given up when its user leaves before the agent's answer."""
        channel = await self.begin(op, **fields)
        try:
            yield channel
        except AgentViolation as violation:
            channel.connection.fail(violation)
            raise
        finally:
            self.leave(channel)

    # --- holds ------------------------------------------------------------------------------------------------------

    def hold(self) -> None:
        """From now on requests wait until `let_go`, or the end of the sandbox, whose error this raises."""
        if self._failure is not None:
            raise self._failure
        self._unheld.clear()

    async def settle(self, grace_s: float) -> None:
        """Give what is under way some time to end."""
        await self._until_over(self._brief, grace_s)
        await self._until_over(self._dialled, min(grace_s, DIALLED_GRACE_S))

    async def _until_over(self, under_way: set[Channel], seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while under_way and self._failure is None:
                    self._fewer.clear()
                    await self._fewer.wait()

    async def part(self) -> None:
        """Have the agent write everything to its disk and close the connection; returns when it has.

        Raises:
            SandboxLost: the connection was lost, or the sandbox has ended.
            DeadlineExceeded: it has not done so within QUIESCE_S.
        """
        connection = await self._reached()
        self._quiet = True
        self._unwatch()
        held = SandboxHeld("the call was cut off: the sandbox stood still to be saved; try again")
        try:
            async with asyncio.timeout(QUIESCE_S):
                await connection.open({"op": "quiesce"}).answer()
                connection.fate = held
                await self._disconnected.wait()
        except TimeoutError:
            connection.fail(held)
            raise DeadlineExceeded(f"cannot hold the sandbox: its agent was not ready in {QUIESCE_S:.0f} s") from None
        if self._failure is not None:
            raise self._failure

    async def returned(self) -> None:
        """After `part`, when the agent can dial again: wait until it has.

        Raises:
            SandboxLost: it has not within UNREACHABLE_AFTER_S, or the sandbox has ended.
        """
        self._quiet = False
        self._watch()
        await self._connected.wait()
        if self._failure is not None:
            raise self._failure

    def let_go(self) -> None:
        """The end of a hold: requests go on."""
        self._quiet = False
        self._unheld.set()
        self._watch()
