# Generated from src/skerry/sdk/_async/server.py by tools/async_to_sync.py: change that.

"""A server as a whole: its health, the templates that ship with it, its keys, and what happens on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from skerry.errors import TemplateBuildFailed
from skerry.models import Event, Key, NewKey, Reply, Template
from skerry.sdk import wire
from skerry.sdk._sync.client import Client


class Server:
    """A Skerry server.

    Args:
        api_url, api_key: as for `Sandbox.create`.
    """

    def __init__(self, api_url: str | None = None, api_key: str | None = None) -> None:
        self._client = Client.shared(api_url, api_key)
        self.api_url = self._client.api_url

    def health(self) -> dict[str, Any]:
        """Its status and version. Raises ServerUnreachable."""
        return _Health.model_validate_json(self._client.call("GET", "/health", read_timeout_s=5.0)).model_dump()

    def build_template(self, name: str) -> Iterator[str | Template]:
        """Build a template that ships; yields log lines, last the template.

        Raises:
            TemplateNotFound, TemplateBuildFailed
        """
        with self._client.events("POST", wire.path_of("templates", name, "build")) as events:
            for event in events:
                if event["type"] == "done":
                    yield Template.model_validate(event["template"])
                    return
                yield event["text"]
        raise TemplateBuildFailed(f"the build of {name} broke off")

    def create_key(self, name: str) -> NewKey:
        """A new API key; its secret is shown this once."""
        return NewKey.model_validate_json(self._client.call("POST", wire.path_of("keys"), {"name": name}))

    def keys(self) -> list[Key]:
        """All keys, without their secrets."""
        return _KeyList.model_validate_json(self._client.call("GET", wire.path_of("keys"))).items

    def revoke_key(self, key_id: str) -> None:
        """The key opens nothing any more. Raises NotFound."""
        self._client.call("DELETE", wire.path_of("keys", key_id))

    def follow_events(self, after: int = 0) -> Iterator[Event]:
        """What happens to all sandboxes, as it happens, beginning after event number `after`."""
        with self._client.events("GET", wire.path_of("events", follow=True, after=after)) as events:
            for event in events:
                if event["type"] != "ready":
                    yield Event.model_validate(event)


class _Health(Reply):
    status: str
    version: str


class _KeyList(Reply):
    items: list[Key]
