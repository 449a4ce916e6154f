"""`skerry doctor`: is this machine fit? One of the two commands that touch the server's side."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import Console

from skerry.cli.output import JsonOption, print_json


def doctor(json: JsonOption = False) -> int:
    """Check what the server needs of this machine; for each thing that is missing, print the command that mends it."""
    from skerry.host.checks import checks

    found = checks()
    if json:
        print_json([asdict(check) for check in found])
    else:
        console = Console(highlight=False, soft_wrap=True)
        for check in found:
            mark = "[green]ok[/]  " if check.ok else "[red]FAIL[/]"
            console.print(f"{mark} {check.name}: ", end="")
            console.print(check.found if check.ok else f"{check.found}; needed: {check.needed}", markup=False)
            if not check.ok:
                console.print(f"     mend it: {check.fix}", markup=False)
    return 0 if all(check.ok for check in found) else 1
