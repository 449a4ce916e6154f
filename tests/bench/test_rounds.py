import pytest
from bench.rounds import interleave, timed, timed_async, took, turns

pytestmark = pytest.mark.anyio


async def test_samplers_take_turns_and_each_round_begins_with_another() -> None:
    order: list[str] = []

    def sampler(name: str, value: float | list[float] | None):  # type: ignore[no-untyped-def]
        async def sample() -> float | list[float] | None:
            order.append(name)
            return value

        return sample

    samplers = {"a": sampler("a", 1.0), "b": sampler("b", [2.0, 3.0]), "c": sampler("c", None)}
    collected = await interleave(samplers, 2, warm_up=1)
    assert "".join(order) == "abcbcacab"
    assert collected == {"a": [1.0, 1.0], "b": [2.0, 3.0, 2.0, 3.0], "c": []}


async def test_a_spent_budget_ends_the_rounds_but_leaves_one_that_counts() -> None:
    collected = await interleave({"a": timed(lambda: None)}, 1000, budget_s=0)
    assert len(collected["a"]) == 1


async def test_preparation_comes_before_every_sample_and_is_not_timed() -> None:
    prepared = 0

    async def prepare() -> None:
        nonlocal prepared
        prepared += 1

    async def nothing() -> None: ...

    samplers = {"a": timed(lambda: None), "b": timed_async(nothing)}
    collected = await interleave(samplers, 3, warm_up=0, before_each=prepare)
    assert prepared == 6
    assert all(sample >= 0 for samples in collected.values() for sample in samples)


async def test_turns_collect_what_each_subject_gives() -> None:
    order: list[str] = []

    async def one() -> dict[str, float]:
        order.append("1")
        return {"first": 1.0, "second": 2.0}

    async def other() -> dict[str, float]:
        order.append("2")
        return {"third": 3.0}

    collected = await turns([one, other], 2)
    assert "".join(order) == "122112"
    assert collected == {"first": [1.0, 1.0], "second": [2.0, 2.0], "third": [3.0, 3.0]}
    assert took(lambda: None) < 1
