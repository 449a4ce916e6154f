"""The gVisor driver: the conformance suite, and what is gVisor's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.drivers.gvisor import Gvisor, parse_version
from skerry.errors import IsolationUnavailable
from tests.drivers.conformance import CHECKS, Check
from tests.drivers.rig import Rig
from tests.drivers.volume_checks import VOLUME_CHECKS

pytestmark = pytest.mark.anyio


@pytest.fixture
def gvisor(rig: Rig) -> Rig:
    rig.driver = Gvisor(rig.directory / "state", rig.cgroups.entry_files)
    return rig


@pytest.mark.parametrize("check", [*CHECKS, *VOLUME_CHECKS], ids=lambda check: check.__name__)
async def test_conformance(gvisor: Rig, check: Check) -> None:
    await check(gvisor)


async def test_the_installed_runsc_passes_the_check(gvisor: Rig) -> None:
    await gvisor.driver.check()


async def test_a_missing_runsc_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    with pytest.raises(IsolationUnavailable, match="apt install"):
        await Gvisor(tmp_path, lambda _name: [], runsc="runsc-that-is-not-there").check()


async def test_an_old_runsc_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "runsc"
    program.write_text("#!/bin/sh\necho 'runsc version 0.0~20221219.0'\necho 'spec: 1.0.2-dev'\n")
    program.chmod(0o755)
    with pytest.raises(IsolationUnavailable, match=r"20221219.*20240729"):
        await Gvisor(tmp_path / "state", lambda _name: [], runsc=str(program)).check()


async def test_a_runsc_tells_its_version_once_and_again_when_it_was_replaced(tmp_path: Path) -> None:
    def install(version: str) -> None:
        new = tmp_path / "new"
        new.write_text(f"#!/bin/sh\necho asked >> {tmp_path}/asked\necho 'runsc version 0.0~{version}.0'\n")
        new.chmod(0o755)
        new.rename(tmp_path / "runsc")

    driver = Gvisor(tmp_path / "state", lambda _name: [], runsc=str(tmp_path / "runsc"))
    install("20240729")
    assert [await driver.version() for _ in range(2)] == ["0.0~20240729.0"] * 2
    install("20250319")
    assert await driver.version() == "0.0~20250319.0"
    assert (tmp_path / "asked").read_text().split() == ["asked"] * 2


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("runsc version 0.0~20240729.0\nspec: 1.0.2-dev\n", ("0.0~20240729.0", 20240729)),
        ("runsc version release-20250319.0\nspec: 1.1.0-rc.1\n", ("release-20250319.0", 20250319)),
        ("runsc version VERSION_MISSING\n", None),
        ("", None),
    ],
)
def test_versions_are_understood(text: str, version: tuple[str, int] | None) -> None:
    assert parse_version(text) == version


async def test_a_log_that_a_guest_has_filled_is_cut(gvisor: Rig) -> None:
    async with gvisor.box() as box:
        log = gvisor.directory / "state" / "bundles" / box.boot.sandbox_id / "runsc.log"
        with log.open("a") as file:
            file.write("x" * 2_000_000)
        await gvisor.driver.tidy()
        assert log.stat().st_size == 0
        assert await box.output("echo on") == "on"
