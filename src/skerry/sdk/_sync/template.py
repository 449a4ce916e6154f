# Generated from src/skerry/sdk/_async/template.py by tools/async_to_sync.py: change that.

"""Templates of one's own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from skerry.errors import NotFound, TemplateBuildFailed
from skerry.models import Build, BuildSpec, Reply, Tag
from skerry.models import Template as TemplateInfo
from skerry.sdk import wire
from skerry.sdk._sync.client import Client
from skerry.sdk.archives import Archive, File
from skerry.sdk.image import Image

_TAR = {"Content-Type": "application/x-tar"}
_BLOCK = 1024 * 1024


class Template:
    """What sandboxes are made from. `api_url` and `api_key` of every call are as for `Sandbox.create`."""

    @classmethod
    def build(
        cls, image: Image, name: str, *, tags: Sequence[str] = (), cpu: float = 2.0, memory: int = 1024,
        disk: int = 4096, pids: int = 512, on_log: Callable[[str], None] | None = None, api_url: str | None = None,
        api_key: str | None = None,
    ) -> TemplateInfo:  # fmt: skip
        """Build a template; its name means the new build when it is done, and what it meant before until then.

        Args:
            image: what it is made of.
            name: `name`, or `name:tag`.
            tags: more tags that mean this build.
            cpu: cores of its sandboxes unless they ask for something else, and of the build's steps; memory and
                disk: MiB; pids: processes.
            on_log: takes the lines of the log as they come.

        Raises:
            TemplateBuildFailed: a step failed; details hold `step` and the end of the `log`.
            InvalidRequest, LimitExceeded, Unauthenticated, ServerUnreachable
        """
        client = Client.shared(api_url, api_key)
        for digest, files in image.uploads.items():
            _upload(client, digest, files)
        spec = BuildSpec(recipe=image.recipe, tags=list(tags), cpu=cpu, memory_mib=memory, disk_mib=disk, pids=pids)
        body = spec.model_dump(mode="json")
        made = Build.model_validate_json(client.call("POST", wire.path_of("templates", name, "builds"), body))
        path = wire.path_of("templates", made.template_id, "builds", made.id, "log")
        with client.events("GET", path) as events:
            for event in events:
                if event["type"] == "done":
                    return TemplateInfo.model_validate(event["template"])
                if on_log is not None:
                    on_log(event["text"])
        raise TemplateBuildFailed(f"cannot tell how the build of {name} ended: its log broke off", log=[])

    @classmethod
    def get(cls, name: str, *, api_url: str | None = None, api_key: str | None = None) -> TemplateInfo:
        """One template, by `name` or `name:tag`. Raises TemplateNotFound."""
        reply = Client.shared(api_url, api_key).call("GET", wire.path_of("templates", name))
        return TemplateInfo.model_validate_json(reply)

    @classmethod
    def remove(cls, name: str, *, api_url: str | None = None, api_key: str | None = None) -> None:
        """Remove one's own template with its builds and tags; sandboxes that run go on. Raises TemplateNotFound."""
        Client.shared(api_url, api_key).call("DELETE", wire.path_of("templates", name))

    @classmethod
    def tags(cls, name: str, *, api_url: str | None = None, api_key: str | None = None) -> list[Tag]:
        """The tags of one's own template. Raises TemplateNotFound."""
        reply = Client.shared(api_url, api_key).call("GET", wire.path_of("templates", name, "tags"))
        return _TagList.model_validate_json(reply).items

    @classmethod
    def tag(
        cls, name: str, tag: str, *, source: str = "default", api_url: str | None = None, api_key: str | None = None
    ) -> None:
        """Let a tag mean what the tag `source` means now. Raises TemplateNotFound."""
        path = wire.path_of("templates", name, "tags", tag, source=source)
        Client.shared(api_url, api_key).call("PUT", path)

    @classmethod
    def untag(cls, name: str, tag: str, *, api_url: str | None = None, api_key: str | None = None) -> None:
        """Take a tag away. Raises TemplateNotFound."""
        Client.shared(api_url, api_key).call("DELETE", wire.path_of("templates", name, "tags", tag))

    @classmethod
    def list(cls, *, api_url: str | None = None, api_key: str | None = None) -> list[TemplateInfo]:
        """Templates that are built: those that ship and one's own."""
        reply = Client.shared(api_url, api_key).call("GET", wire.path_of("templates"))
        return _TemplateList.model_validate_json(reply).items


def _upload(client: Client, digest: str, files: Archive | File) -> None:
    """Unless the server has them."""
    path = wire.path_of("build-files", digest)
    try:
        client.call("GET", path)
        return
    except NotFound:
        pass
    if isinstance(files, File):
        with open(files.path, "rb") as file:
            client.send("PUT", path, _blocks(file), headers=_TAR)
        return
    with tempfile.TemporaryFile() as file:
        files.write(file)
        file.seek(0)
        client.send("PUT", path, _blocks(file), headers=_TAR)


def _blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


class _TemplateList(Reply):
    items: list[TemplateInfo]


class _TagList(Reply):
    items: list[Tag]
