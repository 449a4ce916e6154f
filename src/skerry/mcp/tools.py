"""The tools: each takes checked arguments, makes one call or a few, and renders the answer.

What a caller did wrong and what befell a sandbox come back as results with `is_error`, which models read and act on;
protocol errors are for a broken protocol only.
"""

from __future__ import annotations

import base64
import binascii
import codecs
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    Tool,
    ToolAnnotations,
)
from pydantic import ValidationError

from skerry import AsyncSandbox, __version__
from skerry.errors import Error, InvalidRequest
from skerry.mcp import arguments as args
from skerry.mcp import render
from skerry.mcp.sandboxes import Sandboxes

_HELP = """Sandboxes: isolated, disposable Linux machines in which any code may run. run_code keeps variables between
calls; exec runs commands; files and running programs stay until the sandbox is killed."""
_IMPLICIT = """ Calls without sandbox_id use one default sandbox, which is made at the first such call and destroyed
when this connection ends."""
_EXPLICIT = (
    """ Call create_sandbox first and pass the sandbox_id it gives to every other call; kill_sandbox when done."""
)
_PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def make_server(sandboxes: Sandboxes) -> Server[None]:
    """A server with all tools; when it ends, so do the sandboxes."""
    tools = {tool.name: tool for tool in _Tools(sandboxes).table()}

    async def list_tools(
        _context: ServerRequestContext[None], _params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=[tool.described() for tool in tools.values()])

    async def call_tool(_context: ServerRequestContext[None], params: CallToolRequestParams) -> CallToolResult:
        if params.name not in tools:
            return render.failure(f"cannot call {params.name!r}: there is no such tool; there are {', '.join(tools)}")
        return await tools[params.name](params.arguments or {})

    @asynccontextmanager
    async def lifespan(_server: Server[None]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await sandboxes.kill_all()

    return Server(
        "skerry", version=__version__, title="Skerry sandboxes", lifespan=lifespan, on_list_tools=list_tools,
        on_call_tool=call_tool,
        instructions=" ".join((_HELP + (_IMPLICIT if sandboxes.implicit else _EXPLICIT)).split()),
    )  # fmt: skip


@dataclass(frozen=True)
class _Tool:
    call: Callable[[Any], Awaitable[CallToolResult]]
    arguments: type[args.Arguments]
    hints: ToolAnnotations
    needs_id: bool = False
    """Whether the schema asks for a sandbox_id, because there is no default sandbox."""

    @property
    def name(self) -> str:
        return self.call.__name__

    def described(self) -> Tool:
        """As clients see it; the description is the docstring."""
        schema = self.arguments.model_json_schema()
        schema.pop("description", None)
        if self.needs_id and "sandbox_id" in schema["properties"]:
            schema["properties"]["sandbox_id"] = {"type": "string", "description": "The id that create_sandbox gave."}
            schema["required"] = ["sandbox_id", *schema.get("required", [])]
        description = " ".join((self.call.__doc__ or "").split())
        return Tool(name=self.name, description=description, input_schema=schema, annotations=self.hints)

    async def __call__(self, given: dict[str, Any]) -> CallToolResult:
        try:
            return await self.call(self.arguments.model_validate(given))
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
            return render.failure(f"cannot call {self.name}: {faults} [request.invalid]")
        except Error as error:
            return render.failure(f"{error.message} [{error.code}]")


class _Tools:
    def __init__(self, sandboxes: Sandboxes) -> None:
        self._sandboxes = sandboxes

    def table(self) -> Sequence[_Tool]:
        """All of them, in the order in which clients see them."""
        reads = ToolAnnotations(read_only_hint=True, open_world_hint=False)
        runs = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=True)
        makes = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
        ends = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)
        rows: list[tuple[Callable[[Any], Awaitable[CallToolResult]], type[args.Arguments], ToolAnnotations]] = [
            (self.run_code, args.RunCode, runs), (self.exec, args.Exec, runs), (self.read_file, args.ReadFile, reads),
            (self.write_file, args.WriteFile, makes), (self.list_files, args.ListFiles, reads),
            (self.port_url, args.PortUrl, reads), (self.create_sandbox, args.CreateSandbox, makes),
            (self.list_sandboxes, args.ListSandboxes, reads), (self.kill_sandbox, args.KillSandbox, ends),
        ]  # fmt: skip
        return [_Tool(*row, needs_id=not self._sandboxes.implicit) for row in rows]

    async def run_code(self, given: args.RunCode) -> CallToolResult:
        """Run code in the sandbox's interpreter, as in a notebook cell: variables and imports stay for the next call
        in the same language. Gives what it printed, the value of the last expression, figures and other images as
        images, and the traceback of an exception. Python has numpy, pandas and matplotlib; %pip install works."""
        async with self._sandboxes.use(given.sandbox_id) as sandbox:
            run = await sandbox.run_code(given.code, language=given.language, timeout=given.timeout_s)
        return render.execution(run)

    async def exec(self, given: args.Exec) -> CallToolResult:
        """Run a shell command in the sandbox. Gives its exit code, standard output and standard error; long output is
        cut in the middle. A command that fails is a result, too. Nothing can be typed into it. For a program that
        shall go on running, such as a web server, say background."""
        async with self._sandboxes.use(given.sandbox_id) as sandbox:
            if given.background:
                process = await sandbox.exec(given.command, background=True, cwd=given.cwd, user=given.user)
                return render.text(f"started as process {process.pid}", pid=process.pid)
            done = await sandbox.exec(given.command, cwd=given.cwd, user=given.user, timeout=given.timeout_s)
        return render.command(done)

    async def read_file(self, given: args.ReadFile) -> CallToolResult:
        """Read a file of the sandbox: text, or an image (PNG, JPEG, GIF). Of a long file a part is given, and from
        which offset to go on."""
        async with self._sandboxes.use(given.sandbox_id) as sandbox:
            head, more = await _beginning(sandbox, given.path, given.offset, args.READ_MAX)
            picture = next((mime for magic, mime in _PICTURES.items() if head.startswith(magic)), None)
            if picture and given.offset == 0:
                return await self._picture(sandbox, given.path, picture)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            content = decoder.decode(head, final=not more)
        except UnicodeDecodeError:
            content = "\0"
        if "\0" in content:
            raise InvalidRequest(f"cannot show {given.path}: it is not text; look at it with exec or run_code")
        if more:
            end = given.offset + len(head) - len(decoder.getstate()[0])
            content += f"\n[… the file goes on; read on with offset={end}]"
        return render.text(content)

    async def _picture(self, sandbox: AsyncSandbox, path: str, mime: str) -> CallToolResult:
        most = render.IMAGE_MAX * 3 // 4
        data, more = await _beginning(sandbox, path, 0, most)
        if more:
            raise InvalidRequest(f"cannot show {path}: it is an image of more than {most} bytes; make it smaller")
        return render.image(base64.b64encode(data).decode(), mime)

    async def write_file(self, given: args.WriteFile) -> CallToolResult:
        """Write a file into the sandbox; what was there is replaced, wholly or not at all."""
        try:
            binary = given.encoding == "base64"
            content = base64.b64decode(given.content, validate=True) if binary else given.content.encode()
        except (binascii.Error, UnicodeEncodeError) as error:
            raise InvalidRequest(f"cannot write {given.path}: its content is no {given.encoding}: {error}") from None
        async with self._sandboxes.use(given.sandbox_id) as sandbox:
            info = await sandbox.files.write(given.path, content)
        return render.text(f"wrote {info.size} bytes to {info.path}")

    async def list_files(self, given: args.ListFiles) -> CallToolResult:
        """List a folder of the sandbox: for each entry its kind (d: folder, -: file, l: link) and permissions, owner,
        size in bytes and path."""
        async with self._sandboxes.use(given.sandbox_id) as sandbox:
            items = await sandbox.files.list(given.path, depth=given.depth, limit=args.LIST_MAX + 1)
        return render.text(render.listing(items, args.LIST_MAX))

    async def port_url(self, given: args.PortUrl) -> CallToolResult:
        """The address through which people and programs outside reach a program that listens on a port of the sandbox,
        by HTTP or WebSocket. Inside the sandbox, use localhost and the port."""
        async with self._sandboxes.use(given.sandbox_id) as sandbox:
            url = sandbox.port_url(given.port)
        note = "Requests must carry the API key of the Skerry server, as header X-API-Key."
        return render.text(f"{url}\n{note}", url=url)

    async def create_sandbox(self, given: args.CreateSandbox) -> CallToolResult:
        """Make another sandbox, with files, programs and variables of its own. Gives its sandbox_id for other calls.
        It is destroyed when it has not been used for a while."""
        sandbox = await self._sandboxes.create(
            given.template, internet=given.internet, memory=given.memory_mib, timeout=given.timeout_s
        )
        return render.text(f"sandbox_id: {sandbox.id}", sandbox_id=sandbox.id)

    async def list_sandboxes(self, _given: args.ListSandboxes) -> CallToolResult:
        """The sandboxes that were made here and still run."""
        items = await self._sandboxes.list()
        lines = [
            f"{item.id}: {item.state}, template {item.template}, since {item.created_at:%H:%M:%S}" for item in items
        ]
        found = [{"sandbox_id": item.id, "state": str(item.state), "template": item.template} for item in items]
        return render.text("\n".join(lines) or "there are none", sandboxes=found)

    async def kill_sandbox(self, given: args.KillSandbox) -> CallToolResult:
        """Destroy a sandbox and everything in it."""
        if given.sandbox_id is None and not self._sandboxes.implicit:
            raise InvalidRequest("cannot tell which sandbox is meant: pass its sandbox_id")
        killed = await self._sandboxes.kill(given.sandbox_id)
        return render.text("there was none" if killed is None else f"killed {killed}")


async def _beginning(sandbox: AsyncSandbox, path: str, offset: int, limit: int) -> tuple[bytes, bool]:
    """At most `limit` bytes of a file from `offset` on, and whether there are more."""
    held = bytearray()
    skip = offset
    async with sandbox.files.read_stream(path) as chunks:
        async for chunk in chunks:
            held += chunk[skip:]
            skip = max(0, skip - len(chunk))
            if len(held) > limit:
                break
    return bytes(held[:limit]), len(held) > limit
