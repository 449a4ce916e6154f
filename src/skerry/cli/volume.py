"""`skerry volume`: directories that outlive sandboxes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from skerry import Volume
from skerry.cli.cp import Transfer, transfer_bar
from skerry.cli.output import JsonOption, print_json, print_table, since
from skerry.models import FileType
from skerry.models import Volume as VolumeInfo

app = typer.Typer(no_args_is_help=True, help="Volumes: directories that outlive sandboxes.")

VolumeArgument = Annotated[str, typer.Argument(help="A volume, by name or id.")]
SnapshotArgument = Annotated[str, typer.Argument(help="A snapshot of it, by name or id.")]
_TYPES = {FileType.DIRECTORY: "d", FileType.SYMLINK: "l", FileType.FILE: "-", FileType.OTHER: "?"}


@contextmanager
def _working(what: str) -> Iterator[None]:
    """Shows that something is under way, on a terminal."""
    with Progress(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), transient=True) as progress:
        progress.add_task(what)
        yield


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Letters, digits, `.`, `_` and `-`.")],
    size: Annotated[int | None, typer.Option(help="MiB; default: what the server is set to, mostly 1024.")] = None,
    inodes: Annotated[int | None, typer.Option(help="Files and directories; default: one for 16 KiB.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a volume."""
    with _working(f"making {name}"):
        made = Volume.create(name, size=size, inodes=inodes)
    _tell(made.created, json)


def _tell(volume: VolumeInfo, json: bool) -> None:
    if json:
        print_json(volume)
    else:
        print(f"{volume.id}  {volume.name}: {volume.size_mib} MiB, {volume.inodes} inodes")


@app.command()
def ls(json: JsonOption = False) -> None:
    """List volumes by name."""
    found = Volume.list()
    if json:
        print_json(found)
        return
    print_table(
        ("NAME", "ID", "SIZE", "INODES", "AGE", "MOUNTED BY"),
        [
            (
                item.name,
                item.id,
                f"{item.size_mib} MiB",
                item.inodes,
                since(item.created_at),
                ", ".join(item.mounted_by),
            )
            for item in found
        ],
    )


@app.command()
def info(volume: VolumeArgument, json: JsonOption = False) -> None:
    """Show a volume and what it holds."""
    found = Volume.connect(volume).created
    if json:
        print_json(found)
        return
    rows = [
        ("id", found.id), ("name", found.name), ("state", found.state),
        ("used", f"{found.used_mib} of {found.size_mib} MiB"), ("inodes", f"{found.inodes_used} of {found.inodes}"),
        ("on the server's disk", f"{found.stored_mib} MiB"), ("mounted by", ", ".join(found.mounted_by)),
    ]  # fmt: skip
    print_table(("WHAT", "VALUE"), rows)


@app.command()
def rm(
    volume: VolumeArgument,
    snapshots: Annotated[bool, typer.Option("--snapshots", help="Delete its snapshots too.")] = False,
) -> None:
    """Delete a volume that no sandbox has mounted."""
    Volume.connect(volume).delete(snapshots=snapshots)


@app.command()
def resize(
    volume: VolumeArgument, size: Annotated[int, typer.Argument(help="MiB.")], json: JsonOption = False
) -> None:  # fmt: skip
    """Make a volume that no sandbox has mounted larger or smaller."""
    found = Volume.connect(volume)
    with _working(f"resizing {found.name}"):
        resized = found.resize(size)
    _tell(resized, json)


@app.command()
def snapshot(
    volume: VolumeArgument,
    name: Annotated[str | None, typer.Option(help="Default: its id.")] = None,
    json: JsonOption = False,
) -> None:
    """Copy a volume as it is now; sandboxes that write to it wait meanwhile."""
    found = Volume.connect(volume)
    with _working(f"copying {found.name}"):
        made = found.snapshot(name)
    if json:
        print_json(made)
    else:
        print(f"{made.id}  {made.name}: {made.stored_mib} MiB")


@app.command()
def snapshots(
    volume: VolumeArgument,
    delete: Annotated[str | None, typer.Option(help="Delete this one, by name or id.")] = None,
    json: JsonOption = False,
) -> None:
    """List a volume's snapshots, the oldest first; or delete one."""
    found = Volume.connect(volume)
    if delete is not None:
        found.delete_snapshot(delete)
        return
    items = list(found.snapshots())
    if json:
        print_json(items)
        return
    print_table(
        ("NAME", "ID", "SIZE", "STORED", "AGE"),
        [
            (item.name, item.id, f"{item.size_mib} MiB", f"{item.stored_mib} MiB", since(item.created_at))
            for item in items
        ],
    )


@app.command()
def restore(volume: VolumeArgument, snapshot: SnapshotArgument, json: JsonOption = False) -> None:
    """Give a volume that no sandbox has mounted the content of one of its snapshots."""
    found = Volume.connect(volume)
    with _working(f"restoring {found.name}"):
        restored = found.restore(snapshot)
    _tell(restored, json)


@app.command()
def fork(
    volume: VolumeArgument,
    name: Annotated[str, typer.Argument(help="Name of the copy.")],
    snapshot: Annotated[str | None, typer.Option(help="Copy this snapshot of it, by name or id.")] = None,
    size: Annotated[int | None, typer.Option(help="MiB; default: as the original.")] = None,
    json: JsonOption = False,
) -> None:
    """Make a volume that is a copy of another one."""
    found = Volume.connect(volume)
    with _working(f"copying {found.name}"):
        made = found.fork(name, snapshot=snapshot, size=size)
    _tell(made.created, json)


@app.command()
def put(
    volume: VolumeArgument,
    source: Annotated[Path, typer.Argument(help="A local file or folder.")],
    target: Annotated[str, typer.Argument(help="Path in the volume; a folder there receives it.")] = "/",
) -> None:
    """Copy a file or a folder into a volume, without a sandbox."""
    with transfer_bar() as progress:
        Transfer(Volume.connect(volume).files, progress).into(source, target)


@app.command()
def get(
    volume: VolumeArgument,
    source: Annotated[str, typer.Argument(help="Path in the volume.")],
    target: Annotated[Path, typer.Argument(help="Local path; a folder receives it.")] = Path(),
) -> None:
    """Copy a file or a folder out of a volume, without a sandbox."""
    with transfer_bar() as progress:
        Transfer(Volume.connect(volume).files, progress).out(source, target)


@app.command()
def files(
    volume: VolumeArgument,
    path: Annotated[str, typer.Argument(help="A directory in the volume.")] = "/",
    depth: Annotated[int, typer.Option(help="Levels of directories, at most 16.", min=1, max=16)] = 1,
    json: JsonOption = False,
) -> None:
    """List what is in a volume."""
    found = Volume.connect(volume).files.list(path, depth=depth)
    if json:
        print_json(found)
        return
    print_table(
        ("MODE", "OWNER", "SIZE", "CHANGED", "PATH"),
        [
            (f"{_TYPES[item.type]}{item.mode:04o}", item.owner, item.size, since(item.modified_at), item.path)
            for item in found
        ],
    )
