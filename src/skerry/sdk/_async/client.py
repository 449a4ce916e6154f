"""Requests to one server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import httpcore

from skerry.errors import SandboxLost, ServerUnreachable
from skerry.sdk import wire
from skerry.sdk._pools import KEEPALIVE, async_owner

_RETRIED = frozenset({"GET", "HEAD", "DELETE"})
_BLOCK = 256 * 1024


class AsyncClient:
    """Connections to a server, kept open and shared.

    Args:
        api_url: `http://host:port`; default: SKERRY_API_URL, then this machine's own server.
        api_key: default: SKERRY_API_KEY, then the key of this machine's own server.
    """

    def __init__(self, api_url: str | None = None, api_key: str | None = None) -> None:
        self.api_url, self.api_key = wire.resolve(api_url, api_key)
        self._pool = httpcore.AsyncConnectionPool(
            max_connections=None, max_keepalive_connections=64, keepalive_expiry=30.0, socket_options=KEEPALIVE
        )
        self._headers = {"Authorization": f"Bearer {self.api_key}", "Host": self.api_url.partition("://")[2]}

    @classmethod
    def shared(cls, api_url: str | None = None, api_key: str | None = None) -> AsyncClient:
        """One client for everybody who speaks to the same server with the same key."""
        where = wire.resolve(api_url, api_key)
        clients = _shared_clients(async_owner())
        if where not in clients:
            clients[where] = cls(*where)
        return clients[where]

    async def aclose(self) -> None:
        await self._pool.aclose()

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *,
        headers: Mapping[str, str] | None = None, read_timeout_s: float | None = None,
    ) -> bytes:  # fmt: skip
        """The content of the reply.

        Raises:
            Error: the server's, or ServerUnreachable.
        """
        content = None if body is None else json.dumps(body).encode()
        return await self.send(method, path, content, headers=headers, read_timeout_s=read_timeout_s)

    async def send(
        self, method: str, path: str, content: bytes | AsyncIterator[bytes] | None, *,
        headers: Mapping[str, str] | None = None, read_timeout_s: float | None = None,
    ) -> bytes:  # fmt: skip
        """As `call`, with a body of bytes."""
        attempts = 2 if method in _RETRIED else 1
        while True:
            attempts -= 1
            try:
                response = await self._pool.request(
                    method, self.api_url + path, headers=self._all_headers(headers, content),
                    content=_pieces(content) if isinstance(content, bytes) else content,
                    extensions=_timeouts(read_timeout_s),
                )  # fmt: skip
            except (httpcore.RemoteProtocolError, httpcore.WriteError, httpcore.ReadError) as error:
                if attempts:
                    continue  # a kept connection that the server has closed meanwhile
                raise self._unreachable(error) from error
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                raise self._unreachable(error) from error
            if response.status >= 400:
                raise wire.error_of(response.status, response.content)
            return response.content

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *,
        headers: Mapping[str, str] | None = None, read_timeout_s: float | None = None,
    ) -> AsyncIterator[AsyncIterator[bytes]]:  # fmt: skip
        """The content of the reply as it comes; leaving early closes the connection. Raises as `call`."""
        content = None if body is None else json.dumps(body).encode()
        try:
            async with self._pool.stream(
                method, self.api_url + path, headers=self._all_headers(headers, content), content=content,
                extensions=_timeouts(read_timeout_s),
            ) as response:  # fmt: skip
                if response.status >= 400:
                    raise wire.error_of(response.status, await response.aread())
                yield response.aiter_stream()
        except httpcore.ConnectError as error:
            raise self._unreachable(error) from error
        except (httpcore.RemoteProtocolError, httpcore.NetworkError) as error:
            raise SandboxLost(f"the stream broke off: {error or 'the connection was lost'}") from error
        except httpcore.TimeoutException as error:
            raise self._unreachable(error) from error

    @asynccontextmanager
    async def events(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
        """The events of an NDJSON stream.

        Raises:
            Error: the server's, also in the middle; ServerUnreachable after 45 s without a heartbeat.
        """
        async with self.stream(method, path, body, read_timeout_s=wire.SILENCE_S) as chunks:
            yield _events(chunks)

    def _all_headers(
        self, headers: Mapping[str, str] | None, content: bytes | AsyncIterator[bytes] | None
    ) -> dict[bytes | str, bytes | str]:
        made: dict[bytes | str, bytes | str] = {}
        made.update(self._headers.items())
        made.update((headers or {}).items())
        if isinstance(content, bytes):
            made["Content-Length"] = str(len(content))
            made.setdefault("Content-Type", "application/json")
        elif content is not None and "Content-Length" not in made:
            made["Transfer-Encoding"] = "chunked"
        elif content is None:
            made["Content-Length"] = "0"
        return made

    def _unreachable(self, error: Exception) -> ServerUnreachable:
        why = str(error) or type(error).__name__
        return ServerUnreachable(
            f"cannot reach the Skerry server at {self.api_url}: {why}; is it running (`skerry up`)?",
            api_url=self.api_url,
        )


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    """Of a size that the connection takes at once: of what it does not take it makes a copy, each time."""
    for start in range(0, len(content), _BLOCK):
        yield content[start : start + _BLOCK]


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Mapping[str, Any]]:
    lines = wire.Lines()
    async for chunk in chunks:
        for event in lines.feed(chunk):
            yield event


def _timeouts(read_s: float | None) -> dict[str, Any]:
    return {"timeout": {"connect": wire.CONNECT_S, "write": 60.0, "read": read_s, "pool": wire.CONNECT_S}}


_by_owner: WeakKeyDictionary[Any, dict[tuple[str, str], AsyncClient]] = WeakKeyDictionary()
_ownerless: dict[tuple[str, str], AsyncClient] = {}


def _shared_clients(owner: Any) -> dict[tuple[str, str], AsyncClient]:
    return _ownerless if owner is None else _by_owner.setdefault(owner, {})
