"""Where the two halves differ: which connections may be shared by whom."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

KEEPALIVE: list[tuple[int, int, int]] = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
]
"""A server or a network that is gone is noticed, also while a long call waits for its reply."""
if hasattr(socket, "TCP_KEEPIDLE"):
    KEEPALIVE += [
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ]


def async_owner() -> Any:
    """Connections belong to the event loop they were made in."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:  # another library than asyncio
        return None


def owner() -> Any:
    """Blocking connections can be shared by all threads."""
    return None
