from __future__ import annotations

import pytest
from pydantic import ValidationError

from skerry.errors import TemplateNotFound
from skerry.host.definitions import Definition, definition, shipped


def test_every_definition_that_ships_is_valid() -> None:
    assert "base" in shipped()
    for name in shipped():
        assert definition(name).name == name


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
