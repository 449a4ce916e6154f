"""Brings a database to the newest schema, by Alembic's migrations in `migrations/`."""

from __future__ import annotations

import logging
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from skerry.errors import Conflict

_MIGRATIONS = Path(__file__).parent / "migrations"


def to_newest(engine: sa.Engine) -> None:
    """Run the migrations that this database has not seen.

    Raises:
        Conflict: a newer Skerry has written it.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise Conflict(f"cannot use {engine.url.database}: a newer Skerry has written it ({error})") from error
