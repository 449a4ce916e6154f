"""`skerry up`: run the server. One of the two commands that touch the server's side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from skerry.cli.output import JsonOption
from skerry.errors import InvalidRequest


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on [default: 127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 for any free one [default: 7070].")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where its data is kept [default: /var/lib/skerry/data].")
    ] = None,
    allow_remote: Annotated[bool, typer.Option(help="Listen where other machines can reach it.")] = False,
    domain: Annotated[str | None, typer.Option(help="Domain whose names lead here, for E2B's clients.")] = None,
    tls: Annotated[str | None, typer.Option(help="off, private-ca or files [default: off].")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate with its chain, for --tls files.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key.")] = None,
    tls_port: Annotated[int | None, typer.Option(help="Port for TLS [default: 8443].")] = None,
    keep: Annotated[bool, typer.Option(help="Leave sandboxes running when it stops.")] = False,
    json: JsonOption = False,
) -> int:
    """Run the server until SIGTERM or Ctrl-C.

    With --json one line is printed when it is ready: {"api_url", "api_key", "pid", "e2b"}. Every setting is also an
    environment variable; see docs/reference/settings.md.
    """
    from skerry.config import Settings
    from skerry.server import main

    given: dict[str, Any] = {
        "host": host, "port": port, "data_dir": data_dir, "allow_remote": allow_remote or None, "domain": domain,
        "tls": tls, "tls_cert": tls_cert, "tls_key": tls_key, "tls_port": tls_port,
    }  # fmt: skip
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = f"setting {first['loc'][0]}: " if first["loc"] else ""
        raise InvalidRequest(f"cannot start: {where}{first['msg']}") from None
    return main(settings, json_line=json, keep=keep)
