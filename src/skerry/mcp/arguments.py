"""What tools take. The descriptions are read by models; they become the tools' JSON schemas."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

READ_MAX = 100_000
"""Bytes of a file that one call gives."""
WRITE_MAX = 10 * 1024 * 1024
LIST_MAX = 1000


class Arguments(BaseModel):
    """Unknown names are refused: a model that invents an option must learn that it had no effect."""

    model_config = ConfigDict(extra="forbid")


class InSandbox(Arguments):
    sandbox_id: Annotated[
        str | None,
        Field(description="Which sandbox, an id that create_sandbox gave. Leave it out for the default sandbox."),
    ] = None


class CreateSandbox(Arguments):
    template: Annotated[
        str | None,
        Field(description="What it is made from. Leave it out for the usual one, which has Python and Node.js."),
    ] = None
    internet: Annotated[bool, Field(description="Whether programs inside may reach the internet.")] = True
    memory_mib: Annotated[int | None, Field(ge=64, le=1024 * 1024, description="Limit on memory, in MiB.")] = None
    timeout_s: Annotated[
        float | None,
        Field(gt=0, le=30 * 86400, description="Seconds until it is destroyed in any case. Leave it out for never."),
    ] = None


class KillSandbox(InSandbox):
    pass


class ListSandboxes(Arguments):
    pass


class RunCode(InSandbox):
    code: Annotated[str, Field(description="The code. The value of its last expression is shown, as in a notebook.")]
    language: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$",
            description="python (always there), or what the template has: javascript, typescript, r, java, bash.",
        ),
    ] = "python"
    timeout_s: Annotated[float, Field(gt=0, le=3600, description="Seconds until the code is interrupted.")] = 120


class Exec(InSandbox):
    command: Annotated[str, Field(min_length=1, description="A command line for bash.")]
    cwd: Annotated[str | None, Field(description="Working directory. Default: the home directory, /home/user.")] = None
    user: Annotated[Literal["user", "root"], Field(description="root for what needs it, such as apt-get.")] = "user"
    timeout_s: Annotated[
        float, Field(gt=0, le=3600, description="Seconds until it is killed; not with background.")
    ] = 120
    background: Annotated[
        bool,
        Field(description="Return at once and leave it running, for servers. Redirect its output to a file to see it."),
    ] = False


class ReadFile(InSandbox):
    path: Annotated[str, Field(min_length=1, description="Absolute, or relative to /home/user.")]
    offset: Annotated[int, Field(ge=0, description="Bytes to skip, for going on in a long file.")] = 0


class WriteFile(InSandbox):
    path: Annotated[
        str, Field(min_length=1, description="Absolute, or relative to /home/user. Missing folders are made.")
    ]
    content: Annotated[str, Field(max_length=WRITE_MAX, description="The whole new content.")]
    encoding: Annotated[
        Literal["utf-8", "base64"], Field(description="base64: the content is that of a binary file.")
    ] = "utf-8"


class ListFiles(InSandbox):
    path: Annotated[str, Field(min_length=1, description="A folder; absolute, or relative to /home/user.")] = "."
    depth: Annotated[int, Field(ge=1, le=16, description="How many levels below it.")] = 1


class PortUrl(InSandbox):
    port: Annotated[int, Field(ge=1, le=65535, description="The port on which a program inside listens.")]
