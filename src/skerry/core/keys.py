"""API keys: made, shown once, kept as a hash."""

from __future__ import annotations

import hashlib
import secrets
import time
from datetime import UTC, datetime

from skerry.errors import NotFound, Unauthenticated
from skerry.models import Key, KeySpec, NewKey
from skerry.ports import KeyRecord, Store

PREFIX = "e2b_"
"""Clients of E2B refuse keys of another form, before they send anything."""
_PREFIX_SHOWN = 10
_TOUCH_EVERY_S = 60.0


class Keys:
    """A key is 160 random bits: one fast hash is enough, and a look-up by that hash tells nothing by its time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[bytes, KeyRecord] = {}
        self._revoked: set[str] = set()
        """Revoked by this server: a look-up that was under way meanwhile has read the key as it was before."""
        self._touched: dict[str, float] = {}

    async def create(self, tenant_id: str, spec: KeySpec) -> NewKey:
        """A new key; the only time its secret is known."""
        secret = PREFIX + secrets.token_hex(20)
        key = NewKey(
            id="key_" + secrets.token_hex(8), name=spec.name, prefix=secret[:_PREFIX_SHOWN],
            created_at=datetime.now(UTC), secret=secret,
        )  # fmt: skip
        await self._store.add_key(KeyRecord(Key(**key.model_dump(exclude={"secret"})), tenant_id, _hash(secret)))
        return key

    async def list(self, tenant_id: str) -> list[Key]:
        """All keys, revoked ones too."""
        return await self._store.keys(tenant_id)

    async def revoke(self, tenant_id: str, key_id: str) -> None:
        """From now on the key opens nothing. Raises NotFound."""
        if not await self._store.revoke_key(tenant_id, key_id, datetime.now(UTC)):
            raise NotFound(f"cannot revoke key {key_id}: there is none with that id, or it is revoked", key_id=key_id)
        self._revoked.add(key_id)
        self._known = {hash: record for hash, record in self._known.items() if record.key.id != key_id}

    async def authenticate(self, secret: str | None) -> str:
        """The tenant that this secret speaks for.

        Raises:
            Unauthenticated: with the same words whether it is missing, unknown or revoked.
        """
        if secret:
            hash = _hash(secret)
            record = self._known.get(hash) or await self._store.key_by_hash(hash)
            if record is not None and record.key.revoked_at is None and record.key.id not in self._revoked:
                self._known[hash] = record
                await self._touch(record.key.id)
                return record.tenant_id
        raise Unauthenticated(
            "cannot authenticate: no valid API key; send it as `Authorization: Bearer <key>`, see `skerry key create`"
        )

    async def _touch(self, key_id: str) -> None:
        now = time.monotonic()
        if now - self._touched.get(key_id, float("-inf")) > _TOUCH_EVERY_S:
            self._touched[key_id] = now
            await self._store.touch_key(key_id, datetime.now(UTC))


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
