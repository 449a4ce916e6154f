"""Tokens that open one sandbox: derived from the server's secret, so that none needs to be kept."""

from __future__ import annotations

import hashlib
import hmac


class Tokens:
    """
    Args:
        secret: of this server; whoever knows it can make every token.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def of(self, sandbox_id: str, purpose: str) -> str:
        """The token of a sandbox for a purpose; 64 hexadecimal digits."""
        return hmac.digest(self._secret, f"{purpose}:{sandbox_id}".encode(), hashlib.sha256).hex()

    def fits(self, token: str, sandbox_id: str, purpose: str) -> bool:
        """Whether this is that token, in a time that tells nothing."""
        return hmac.compare_digest(self.of(sandbox_id, purpose).encode(), token.encode(errors="replace"))
