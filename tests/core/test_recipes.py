"""What a recipe may say."""

from __future__ import annotations

from typing import Any

import pytest

from skerry.core.recipes import absolute, check_recipe, untagged
from skerry.errors import InvalidRequest
from skerry.models import Image, Recipe, Stage, Step, StepKind

DIGEST = "ab" * 32
BASE: dict[str, Any] = {"from_template": "base"}


def step(kind: str, *args: str, **more: Any) -> Step:
    return Step(kind=StepKind(kind), args=list(args), **more)


COPIED = step("copy", "/x", "/y", from_stage="a")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Recipe(), "only one of them"),
        (Recipe(from_image="a", from_template="b"), "only one of them"),
        (Recipe(**BASE, steps=[step("env", "A")]), "step 1 of the recipe: a name has no value"),
        (Recipe(**BASE, steps=[step("copy", "a")]), "copy needs"),
        (Recipe(**BASE, steps=[step("copy", "a", "b", files=DIGEST, from_stage="a")]), "no earlier stage"),
        (Recipe(**BASE, steps=[step("copy", "a", "b", "", "rwx", files=DIGEST)]), "is no mode"),
        (Recipe(from_stage="a"), "no earlier stage has that name"),
        (Recipe(**BASE, stages={"a": Stage(**BASE, steps=[COPIED])}), "step 1 of stage a takes from 'a'"),
        (Recipe(**BASE, stages={"a": Stage(from_stage="b"), "b": Stage(**BASE)}), "stage a takes from 'b'"),
    ],
)
def test_recipes_that_cannot_be_carried_out(wrong: Recipe, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        check_recipe(wrong)


def test_stages_may_take_from_earlier_ones() -> None:
    check_recipe(Recipe(from_stage="a", stages={"a": Stage(**BASE)}, steps=[COPIED]))


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("ubuntu", "ubuntu"),
        ("ubuntu:22.04", "ubuntu"),
        ("team/app:1@sha256:ab", "team/app"),
        ("far.example:5000/app", "far.example:5000/app"),
        ("far.example:5000/team/app:1", "far.example:5000/team/app"),
    ],
)
def test_names_of_images_without_their_tags(reference: str, name: str) -> None:
    assert untagged(reference) == name


@pytest.mark.parametrize(
    ("user", "workdir", "path", "place"),
    [
        ("user", None, "app/", "/home/user/app"),
        ("root", None, "app", "/root/app"),
        ("user", "/srv", "./app", "/srv/app"),
        ("user", "/srv", ".", "/srv"),
        ("user", "/", "app", "/app"),
        ("user", "/srv", "/", "/"),
        ("user", "/srv", "~", "/home/user"),
        ("user", "/srv", "~/app", "/home/user/app"),
        ("0", "/srv", "~/app", "/root/app"),
        ("user", "/srv", "~app", "/srv/~app"),
    ],
)
def test_where_paths_of_steps_lie(user: str, workdir: str | None, path: str, place: str) -> None:
    assert absolute(Image(layers=[], user=user, workdir=workdir), path) == place
