"""`ports.Store` in SQLite, through SQLAlchemy. One thread, one connection: SQLite has one writer anyway."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event, exc

from skerry.errors import Conflict, HostFull, InvalidRequest
from skerry.models import Event, Key, Sandbox, SandboxState
from skerry.ports import KeyRecord, SandboxRecord
from skerry.store import migrate
from skerry.store.tables import events, idempotency, keys, labels, sandboxes

T = TypeVar("T")


class SqlStore:
    """Opens (and migrates) the database on construction.

    Args:
        path: the database file.

    Raises:
        Conflict: a newer Skerry has written this database.
    """

    def __init__(self, path: Path) -> None:
        self._engine = sa.create_engine(
            f"sqlite:///{path}", poolclass=sa.pool.StaticPool, connect_args={"check_same_thread": False}
        )
        event.listen(self._engine, "connect", _configure)
        migrate.to_newest(self._engine)
        self._connection = self._engine.connect()
        self._thread = ThreadPoolExecutor(1, "store")

    async def aclose(self) -> None:
        await self._run(self._connection.close)
        self._engine.dispose()
        self._thread.shutdown()

    async def _run(self, work: Callable[[], T]) -> T:
        """Do `work` in the store's thread. Not abandoned when the caller is: a transaction ends whole."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except exc.OperationalError as error:
            if "full" in str(error.orig):
                raise HostFull("cannot write the database: the disk of the data directory is full") from error
            raise

    async def write(self, work: Callable[[sa.Connection], T]) -> T:
        def transaction() -> T:
            with self._connection.begin():
                return work(self._connection)

        return await self._run(transaction)

    # --- sandboxes --------------------------------------------------------------------------------------------------

    async def create_sandbox(
        self, record: SandboxRecord, idempotency: tuple[str, bytes] | None = None
    ) -> SandboxRecord:
        """See `ports.Store.create_sandbox`."""

        def work(connection: sa.Connection) -> SandboxRecord:
            if idempotency is not None:
                earlier = _earlier(connection, record.tenant_id, *idempotency)
                if earlier is not None:
                    return earlier
                _remember(connection, record, *idempotency)
            inserted = connection.execute(sandboxes.insert().values(id=record.sandbox.id, **_columns(record)))
            assert inserted.inserted_primary_key is not None
            _label(connection, inserted.inserted_primary_key[0], record.sandbox.metadata)
            return record

        return await self.write(work)

    async def update_sandbox(self, record: SandboxRecord) -> None:
        """See `ports.Store.update_sandbox`."""

        def work(connection: sa.Connection) -> None:
            number = connection.execute(
                sandboxes.update()
                .where(sandboxes.c.id == record.sandbox.id)
                .values(**_columns(record))
                .returning(sandboxes.c.number)
            ).scalar_one()
            connection.execute(labels.delete().where(labels.c.sandbox == number))
            _label(connection, number, record.sandbox.metadata)

        await self.write(work)

    async def forget_idempotency(self, sandbox_id: str) -> None:
        """See `ports.Store.forget_idempotency`."""
        await self.write(
            lambda connection: connection.execute(idempotency.delete().where(idempotency.c.sandbox_id == sandbox_id))
        )

    async def sandbox(self, tenant_id: str | None, sandbox_id: str) -> SandboxRecord | None:
        """See `ports.Store.sandbox`."""
        query = sa.select(sandboxes).where(sandboxes.c.id == sandbox_id)
        if tenant_id is not None:
            query = query.where(sandboxes.c.tenant_id == tenant_id)
        row = await self.write(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else _record(row)

    async def sandboxes(
        self, tenant_id: str | None, *, states: Sequence[SandboxState] = (), template: str | None = None,
        metadata: Mapping[str, str] | None = None, created_since: datetime | None = None, oldest_first: bool = False,
        limit: int = 100, cursor: str | None = None,
    ) -> tuple[list[SandboxRecord], str | None]:  # fmt: skip
        """See `ports.Store.sandboxes`. Raises InvalidRequest for a cursor that is none of ours."""
        number = sandboxes.c.number
        query = sa.select(sandboxes).order_by(number.asc() if oldest_first else number.desc()).limit(limit + 1)
        if tenant_id is not None:
            query = query.where(sandboxes.c.tenant_id == tenant_id)
        if states:
            query = query.where(sandboxes.c.state.in_([state.value for state in states]))
        if template is not None:
            query = query.where(sandboxes.c.template == template)
        if cursor is not None:
            last = decode_cursor(cursor)
            query = query.where(number > last if oldest_first else number < last)
        if created_since is not None:
            query = query.where(sandboxes.c.created_at >= created_since.timestamp())
        for name, value in (metadata or {}).items():
            label = sa.select(labels.c.sandbox).where(labels.c.name == name, labels.c.value == value)
            query = query.where(sandboxes.c.number.in_(label))
        rows = await self.write(lambda connection: connection.execute(query).all())
        more = encode_cursor(rows[limit - 1].number) if len(rows) > limit else None
        return [_record(row) for row in rows[:limit]], more

    # --- events -----------------------------------------------------------------------------------------------------

    async def add_event(self, sandbox_id: str, type: str, data: Mapping[str, Any], at: datetime) -> Event:
        """See `ports.Store.add_event`."""
        values = {"at": at.timestamp(), "sandbox_id": sandbox_id, "type": type, "data": dict(data)}
        result = await self.write(lambda connection: connection.execute(events.insert().values(**values)))
        assert result.inserted_primary_key is not None
        return Event(id=result.inserted_primary_key[0], at=at, sandbox_id=sandbox_id, type=type, data=dict(data))

    async def events(self, tenant_id: str, sandbox_id: str | None, *, after: int, limit: int) -> list[Event]:
        """See `ports.Store.events`."""
        query = (
            sa.select(events)
            .join(sandboxes, sandboxes.c.id == events.c.sandbox_id)
            .where(sandboxes.c.tenant_id == tenant_id, events.c.id > after)
            .order_by(events.c.id)
            .limit(limit)
        )
        if sandbox_id is not None:
            query = query.where(events.c.sandbox_id == sandbox_id)
        rows = await self.write(lambda connection: connection.execute(query).all())
        return [
            Event(id=row.id, at=_moment(row.at), sandbox_id=row.sandbox_id, type=row.type, data=row.data)
            for row in rows
        ]

    # --- keys -------------------------------------------------------------------------------------------------------

    async def add_key(self, record: KeyRecord) -> None:
        """See `ports.Store.add_key`."""
        values = {
            "id": record.key.id,
            "tenant_id": record.tenant_id,
            "hash": record.hash,
            "name": record.key.name,
            "prefix": record.key.prefix,
            "created_at": record.key.created_at.timestamp(),
        }
        await self.write(lambda connection: connection.execute(keys.insert().values(**values)))

    async def key_by_hash(self, hash: bytes) -> KeyRecord | None:
        """See `ports.Store.key_by_hash`."""
        query = sa.select(keys).where(keys.c.hash == hash)
        row = await self.write(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else KeyRecord(_key(row), row.tenant_id, row.hash)

    async def keys(self, tenant_id: str) -> list[Key]:
        """See `ports.Store.keys`."""
        query = sa.select(keys).where(keys.c.tenant_id == tenant_id).order_by(keys.c.created_at)
        return [_key(row) for row in await self.write(lambda connection: connection.execute(query).all())]

    async def touch_key(self, key_id: str, at: datetime) -> None:
        """See `ports.Store.touch_key`."""
        change = keys.update().where(keys.c.id == key_id).values(last_used_at=at.timestamp())
        await self.write(lambda connection: connection.execute(change))

    async def revoke_key(self, tenant_id: str, key_id: str, at: datetime) -> bool:
        """See `ports.Store.revoke_key`. False when there is no such key, or it is revoked already."""
        change = (
            keys.update()
            .where(keys.c.id == key_id, keys.c.tenant_id == tenant_id, keys.c.revoked_at.is_(None))
            .values(revoked_at=at.timestamp())
        )
        return (await self.write(lambda connection: connection.execute(change))).rowcount == 1


def _configure(connection: Any, _: Any) -> None:
    """WAL without a sync at each commit: what a call has returned survives the death of the server, though perhaps
    not a power cut; no sandbox survives that either."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _columns(record: SandboxRecord) -> dict[str, Any]:
    return {
        "tenant_id": record.tenant_id,
        "template": record.sandbox.template,
        "state": record.sandbox.state.value,
        "document": record.sandbox.model_dump(mode="json"),
        "env": dict(record.env),
        "internal": dict(record.internal),
        "created_at": record.sandbox.created_at.timestamp(),
    }


def _record(row: sa.Row[Any]) -> SandboxRecord:
    return SandboxRecord(Sandbox.model_validate(row.document), row.tenant_id, row.env, row.internal)


def _label(connection: sa.Connection, number: int, metadata: Mapping[str, str]) -> None:
    if metadata:
        rows = [{"sandbox": number, "name": name, "value": value} for name, value in metadata.items()]
        connection.execute(labels.insert(), rows)


def _earlier(connection: sa.Connection, tenant_id: str, key: str, hash: bytes) -> SandboxRecord | None:
    query = sa.select(idempotency).where(idempotency.c.tenant_id == tenant_id, idempotency.c.key == key)
    found = connection.execute(query).one_or_none()
    if found is None:
        return None
    if found.hash != hash:
        raise Conflict(f"cannot use idempotency key {key!r} again: it was used for another request", key=key)
    return _record(connection.execute(sa.select(sandboxes).where(sandboxes.c.id == found.sandbox_id)).one())


def _remember(connection: sa.Connection, record: SandboxRecord, key: str, hash: bytes) -> None:
    values = {"tenant_id": record.tenant_id, "key": key, "hash": hash, "sandbox_id": record.sandbox.id}
    connection.execute(idempotency.insert().values(**values))


def _key(row: sa.Row[Any]) -> Key:
    return Key(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        created_at=_moment(row.created_at),
        last_used_at=None if row.last_used_at is None else _moment(row.last_used_at),
        revoked_at=None if row.revoked_at is None else _moment(row.revoked_at),
    )


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def encode_cursor(number: int) -> str:
    return base64.urlsafe_b64encode(str(number).encode()).decode()


def decode_cursor(cursor: str) -> int:
    try:
        return int(base64.b64decode(cursor.encode(), altchars=b"-_", validate=True).decode())
    except ValueError:
        raise InvalidRequest(
            "cannot continue a list: the cursor is none that this server gave", cursor=cursor
        ) from None
