"""`skerry`: one file for each command. They use the SDK; only `up` and `doctor` touch the server's side."""

from skerry.cli.app import main

__all__ = ["main"]
