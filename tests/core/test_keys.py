"""API keys, where the store answers late."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from skerry.core.keys import Keys
from skerry.errors import NotFound, Unauthenticated
from skerry.models import KeySpec
from skerry.ports import KeyRecord
from skerry.store.sql import SqlStore

pytestmark = pytest.mark.anyio


class SlowStore(SqlStore):
    """Has read a key, and takes its time to say so."""

    read: anyio.Event | None = None
    answer: anyio.Event | None = None

    async def key_by_hash(self, hash: bytes) -> KeyRecord | None:
        record = await super().key_by_hash(hash)
        if self.read is not None and self.answer is not None:
            self.read.set()
            await self.answer.wait()
        return record


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SlowStore]:
    store = SlowStore(tmp_path / "db")
    yield store
    await store.aclose()


async def test_a_key_revoked_while_it_is_looked_up_opens_nothing(store: SlowStore) -> None:
    keys = Keys(store)
    key = await keys.create("t", KeySpec(name="n"))
    store.read, store.answer = anyio.Event(), anyio.Event()

    async def authenticate() -> None:
        with pytest.raises(Unauthenticated):
            await keys.authenticate(key.secret)

    async with anyio.create_task_group() as group:
        group.start_soon(authenticate)
        await store.read.wait()
        await keys.revoke("t", key.id)
        store.answer.set()
    with pytest.raises(Unauthenticated):
        await keys.authenticate(key.secret)


@pytest.mark.parametrize("secret", [None, "", "sk_", "sk_" + "0" * 40, "\udcff", "ü" * 100_000])
async def test_no_secret_says_more_than_another(store: SlowStore, secret: str | None) -> None:
    keys = Keys(store)
    await keys.create("t", KeySpec(name="n"))
    with pytest.raises(Unauthenticated, match="no valid API key"):
        await keys.authenticate(secret)


async def test_a_tenant_revokes_its_own_only(store: SlowStore) -> None:
    keys = Keys(store)
    key = await keys.create("t", KeySpec(name="n"))
    with pytest.raises(NotFound):
        await keys.revoke("other", key.id)
    assert await keys.authenticate(key.secret) == "t"
    await keys.revoke("t", key.id)
    with pytest.raises(NotFound):
        await keys.revoke("t", key.id)
    with pytest.raises(Unauthenticated):
        await keys.authenticate(key.secret)
    assert [shown.id for shown in await keys.list("t")] == [key.id]
    assert key.secret not in repr(await keys.list("t"))
