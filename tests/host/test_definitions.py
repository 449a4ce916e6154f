from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from skerry.errors import TemplateNotFound
from skerry.host.definitions import Definition, definition, shipped


def test_every_definition_that_ships_is_valid() -> None:
    assert "base" in shipped()
    for name in shipped():
        assert definition(name).name == name


@pytest.mark.parametrize("name", shipped())
def test_a_definition_fits_what_it_is_based_on(name: str) -> None:
    wanted = definition(name)
    assert wanted.description
    assert set(wanted.languages) <= {"python", "javascript", "typescript", "r", "java", "bash"}
    if wanted.start is not None:
        assert wanted.start.ready, "a sandbox must not be handed out before it answers"
    below, packages = wanted, set(wanted.debian.packages)
    while below.based_on is not None:
        below = definition(below.based_on)  # raises when it does not ship
        assert not packages & set(below.debian.packages), "it is there already"
    assert below.name == "base", "layers are shared"


@pytest.mark.parametrize("name", shipped())
def test_the_reference_has_every_template(name: str) -> None:
    reference = Path(__file__).resolve().parents[2] / "docs" / "reference" / "templates.md"
    assert f"| `{name}` |" in reference.read_text()


@pytest.mark.parametrize("variable", ["", "1A", "A-B", "A=B", "A\0"])
def test_a_variable_must_be_one(variable: str) -> None:
    content = {**definition("base").model_dump(), "env": {variable: "x"}}
    with pytest.raises(ValidationError):
        Definition.model_validate(content)


@pytest.mark.parametrize("name", ["nonesuch", "", "../base", "base.toml"])
def test_an_unknown_name_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(TemplateNotFound) as caught:
        definition(name)
    assert "base" in caught.value.details["available"]


@pytest.mark.parametrize("package", ["-oX=y", "a b", "a;b", "$(x)", ""])
def test_a_package_cannot_be_an_option_or_a_command(package: str) -> None:
    content = definition("base").model_dump()
    content["debian"]["packages"] = [package]
    with pytest.raises(ValidationError):
        Definition.model_validate(content)
