"""Random numbers that no copy of this process draws.

When a sandbox is forked, or one is started from what was kept of another, the memory of its processes is copied, and
with it the state of every generator in it. What can be found is seeded anew: before the next request (`configure`), and
at SIGURG, which the agent sends to an interpreter that was copied in the middle of a cell, before any of its code runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable
from types import FrameType

SIGNAL = signal.SIGURG
"""Programs that do not know of it ignore it, and hardly any does."""
_LOCK_S = 1.0


def reseed(entropy: str = "") -> None:
    """Seed every generator that programs share: `random`'s, numpy's and torch's global ones, OpenSSL's, and that of
    temporary names. The kernel's is fresh in every copy.

    Args:
        entropy: what the caller adds to the kernel's.
    """
    seed = hashlib.sha512(os.urandom(64) + entropy.encode()).digest()
    random.seed(seed)
    tempfile._name_sequence = None  # type: ignore[attr-defined]
    # What was not imported has no state yet.
    for name, renew in _OTHERS.items():
        if module := sys.modules.get(name):
            with contextlib.suppress(Exception):  # a module of the same name that is not what we think
                renew(module, hashlib.sha512(name.encode() + seed).digest())


def number(entropy: str) -> int:
    """64 bits that no copy has, of the kernel's and the caller's."""
    return int.from_bytes(hashlib.sha256(os.urandom(32) + entropy.encode()).digest()[:8], "big")


def listen() -> None:
    """Reseed whenever SIGURG comes: a child that was forked does too, after a handler is taken over."""
    if signal.getsignal(SIGNAL) != _handle:
        signal.signal(SIGNAL, _handle)


def _handle(_signal: int, _frame: FrameType | None) -> None:
    reseed()


def _numpy(numpy: object, seed: bytes) -> None:
    generators = numpy.random  # type: ignore[attr-defined]
    lock = generators.mtrand._rand._bit_generator.lock
    if lock.acquire(timeout=_LOCK_S):  # else this thread holds it: a signal came in the middle of numpy's own call
        lock.release()
        generators.seed([int.from_bytes(seed[at : at + 4], "big") for at in range(0, len(seed), 4)])


def _openssl(ssl: object, seed: bytes) -> None:
    ssl.RAND_add(seed, float(len(seed)))  # type: ignore[attr-defined]


def _torch(torch: object, seed: bytes) -> None:
    torch.manual_seed(int.from_bytes(seed[:8], "big") >> 1)  # type: ignore[attr-defined]


_OTHERS: dict[str, Callable[[object, bytes], None]] = {"numpy": _numpy, "_ssl": _openssl, "torch": _torch}
