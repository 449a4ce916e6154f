"""Settings that are more than a value."""

import json
import socket

import pytest

from skerry.config import Settings


def test_aliases_come_to_the_usual_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Settings().image_aliases
    assert usual["e2bdev/base"] == "template:base"
    monkeypatch.setenv("SKERRY_IMAGE_ALIASES", json.dumps({"ubuntu": "registry.local/ubuntu", "e2bdev/base": "mine"}))
    assert Settings().image_aliases == {**usual, "ubuntu": "registry.local/ubuntu", "e2bdev/base": "mine"}
    monkeypatch.setenv("SKERRY_IMAGE_ALIASES", json.dumps({"e2bdev/base": ""}))
    assert "e2bdev/base" not in Settings().image_aliases


def test_a_server_knows_its_machines_name_and_those_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKERRY_SERVER_NAMES", '["Skerry.LAN"]')
    assert Settings().own_names == {"skerry.lan", socket.gethostname().lower()}
