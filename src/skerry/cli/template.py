"""`skerry template`: templates."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from skerry import Image
from skerry import Template as Templates
from skerry.cli.embedded import reachable_server
from skerry.cli.output import JsonOption, print_json, print_table, since
from skerry.errors import InvalidRequest
from skerry.models import Template
from skerry.sdk._sync.server import Server

app = typer.Typer(no_args_is_help=True, help="Templates: what sandboxes are made from.")

NameArgument = Annotated[str, typer.Argument(help="A template, NAME or NAME:TAG.")]
_SOURCE = "Begin with"


@app.command()
def ls(json: JsonOption = False) -> None:
    """List templates that are built."""
    templates = Templates.list()
    if json:
        print_json(templates)
        return
    print_table(
        ("NAME", "SIZE", "LANGUAGES", "BUILT", "IMAGE"),
        [
            (item.name, f"{item.size_mib:.0f} MiB", ", ".join(item.languages), since(item.built_at), item.image[:19])
            for item in templates
        ],
    )


@app.command()
def build(
    name: NameArgument = "base",
    dockerfile: Annotated[
        Path | None, typer.Option("--dockerfile", "-f", help=f"{_SOURCE} what this Dockerfile says.")
    ] = None,
    image: Annotated[str | None, typer.Option(help=f"{_SOURCE} an image of a registry.")] = None,
    tar: Annotated[
        Path | None, typer.Option(help=f"{_SOURCE} a tar: of a root file system, or saved by docker.")
    ] = None,
    template: Annotated[str | None, typer.Option(help=f"{_SOURCE} another template.")] = None,
    sandbox: Annotated[str | None, typer.Option(help=f"{_SOURCE} the files of a sandbox, as they are.")] = None,
    context: Annotated[
        Path | None, typer.Option(help="Where the Dockerfile copies files from; default: its directory.")
    ] = None,
    build_arg: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for an ARG of the Dockerfile.")] = None,
    target: Annotated[str | None, typer.Option(help="Stage of the Dockerfile to stop at.")] = None,
    run: Annotated[list[str] | None, typer.Option(help="A command to run, as root; may be repeated.")] = None,
    start: Annotated[str | None, typer.Option(help="A command that already runs in every sandbox.")] = None,
    ready: Annotated[str | None, typer.Option(help="A command that succeeds when that one is ready.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="One more tag for the build; may be repeated.")] = None,
    cpu: Annotated[float, typer.Option(help="Cores of its sandboxes.")] = 2.0,
    memory: Annotated[int, typer.Option(help="MiB of their memory.")] = 1024,
    disk: Annotated[int, typer.Option(help="MiB of their disk.")] = 4096,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Carry out every step again.")] = False,
    json: JsonOption = False,
) -> None:
    """Build a template of your own, or, without any option, one that ships, unless it is built already.

    Without a running server, one is started for the call.
    """
    made = _image(dockerfile, image, tar, template, sandbox, context, build_arg or [], target)
    given: dict[str, object] = (
        {"--context": context, "--build-arg": build_arg, "--target": target} if dockerfile is None else {}
    )
    if made is None:
        given |= {"--run": run, "--start": start, "--ready": ready, "--tag": tag, "--no-cache": no_cache}
    if useless := [name for name, value in given.items() if value]:
        raise InvalidRequest(
            f"cannot use {useless[0]} here: "
            + ("say what to begin with, as in --template base" if made is None else "it belongs to --dockerfile")
        )
    if made is not None:
        for command in run or []:
            made = made.run(command, user="root")
        if start is not None:
            made = made.start(start, ready=ready)
        if no_cache:
            made = made.fresh()
    with reachable_server() as server:
        if made is None:
            built = _shipped(name, Server(**server))
        else:
            built = Templates.build(
                made, name, tags=tag or [], cpu=cpu, memory=memory, disk=disk, on_log=_say, **server
            )  # fmt: skip
    if json:
        print_json(built)
    else:
        print(f"{built.name}: {built.size_mib:.0f} MiB, {built.image}")


def _image(
    dockerfile: Path | None, reference: str | None, tar: Path | None, template: str | None, sandbox: str | None,
    context: Path | None, build_args: Sequence[str], target: str | None,
) -> Image | None:  # fmt: skip
    """What the options describe; None when they describe nothing. Raises InvalidRequest."""
    if sum(source is not None for source in (dockerfile, reference, tar, template, sandbox)) > 1:
        raise InvalidRequest("cannot build: use only one of --dockerfile, --image, --tar, --template and --sandbox")
    if dockerfile is not None:
        pairs = [pair.partition("=") for pair in build_args]
        if wrong := [name for name, equals, _ in pairs if not equals]:
            raise InvalidRequest(f"cannot use --build-arg {wrong[0]}: it is NAME=VALUE")
        values = {name: value for name, _, value in pairs}
        return Image.from_dockerfile(dockerfile, context=context, build_args=values, target=target)
    if reference is not None:
        return Image.from_registry(reference)
    if tar is not None:
        return Image.from_tar(tar)
    if sandbox is not None:
        return Image.from_sandbox(sandbox)
    return None if template is None else Image.from_template(template)


def _shipped(name: str, server: Server) -> Template:
    for step in server.build_template(name):
        if isinstance(step, Template):
            return step
        _say(step)
    raise AssertionError("a build ends with its template or an error")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@app.command()
def rm(name: NameArgument) -> None:
    """Remove a template of your own with its builds and tags; sandboxes that run go on."""
    Templates.remove(name)


@app.command()
def tags(name: NameArgument, json: JsonOption = False) -> None:
    """List the tags of a template of your own."""
    found = Templates.tags(name)
    if json:
        print_json(found)
    else:
        print_table(("TAG", "BUILD", "SINCE"), [(tag.tag, tag.build_id, since(tag.created_at)) for tag in found])


@app.command()
def tag(
    name: NameArgument,
    tag: Annotated[str, typer.Argument(help="The tag to give.")],
    source: Annotated[str, typer.Option(help="The tag whose build it shall mean.")] = "default",
) -> None:
    """Let a tag mean what another one means now."""
    Templates.tag(name, tag, source=source)


@app.command()
def untag(name: NameArgument, tag: Annotated[str, typer.Argument(help="The tag to take away.")]) -> None:
    """Take a tag away; its build stays."""
    Templates.untag(name, tag)
