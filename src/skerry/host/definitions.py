"""Template definitions: what a template is built from, as data (docs/reference/templates.md)."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from skerry import templates
from skerry.errors import TemplateNotFound
from skerry.models import Limits

_Package = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]*([=<>!~].*)?$", max_length=128)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Debian(_Strict):
    """The system below, or what is added to it."""

    suite: Annotated[str, Field(pattern=r"^[a-z]+$")] = "trixie"
    packages: list[_Package] = []


class Python(_Strict):
    """Packages from PyPI, for all users of the sandbox."""

    packages: list[_Package] = []


class Npm(_Strict):
    """Packages from npm's registry, for all users of the sandbox."""

    packages: list[Annotated[str, Field(pattern=r"^(@[a-z0-9-]+/)?[a-z0-9][a-z0-9._-]*(@[0-9A-Za-z.^~-]+)?$")]] = []


class Start(_Strict):
    """What runs in every sandbox."""

    command: Annotated[str, Field(min_length=1)]
    ready: str | None = None
    """Succeeds when it is ready."""


class Definition(_Strict):
    """One template."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]
    description: str = ""
    languages: list[str] = []
    limits: Limits
    based_on: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")] | None = None
    """The template whose image is below this one's."""
    debian: Debian = Debian()
    python: Python = Python()
    npm: Npm = Npm()
    script: str | None = None
    """Runs at the end, as root in the tree."""
    env: dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str] = {}
    """Environment of every process, on top of that of the template below."""
    start: Start | None = None


def shipped() -> list[str]:
    """Names of the templates that ship."""
    return sorted(file.name.removesuffix(".toml") for file in _directory().iterdir() if file.name.endswith(".toml"))


def definition(name: str) -> Definition:
    """Raises TemplateNotFound."""
    if name not in shipped():
        raise TemplateNotFound(f"cannot build template {name!r}: none of that name ships", available=shipped())
    content = tomllib.loads((_directory() / f"{name}.toml").read_text())
    return Definition.model_validate({"name": name, **content})


def _directory() -> Path:
    return Path(templates.__path__[0])
