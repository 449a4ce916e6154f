import pkgutil
from pathlib import Path

import pytest

from bench import steps


class Worker:
    async def work(self, value: int) -> int:
        if value < 0:
            raise ValueError("no")
        return value + 1


def test_every_step_is_still_where_it_is_looked_for() -> None:
    for place in (steps.PAUSE | steps.RESUME).values():
        assert callable(pkgutil.resolve_name(place)), place


@pytest.mark.anyio
async def test_what_ends_well_leaves_its_time_and_its_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Worker, "work", Worker.work)  # put back afterwards
    out = tmp_path / "out"
    steps.watch({"some work": f"{__name__}:Worker.work"}, out)
    assert [await Worker().work(number) for number in (1, 2)] == [2, 3]
    with pytest.raises(ValueError, match="no"):
        await Worker().work(-1)
    assert len(out.read_text().splitlines()) == 2
    assert 0 <= steps.medians(out)["some work"] < 1
