"""What a recipe may say, and what the words of its steps mean. Pure; `making` carries them out."""

from __future__ import annotations

import re
from collections.abc import Set

from pydantic import TypeAdapter, ValidationError

from skerry.errors import InvalidRequest
from skerry.expansion import expand
from skerry.models import Environment, Image, Recipe, Stage, Step, StepKind

_ENVIRONMENT: TypeAdapter[dict[str, str]] = TypeAdapter(Environment)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What docker takes for the PATH of an image that says nothing."""


def check_recipe(recipe: Recipe) -> None:
    """Raises InvalidRequest, with what is wrong and where."""
    earlier: set[str] = set()
    for name, stage in recipe.stages.items():
        _check_stage(f"stage {name}", stage, earlier)
        earlier.add(name)
    _check_stage("the recipe", recipe, earlier)


def _check_stage(shown: str, stage: Stage, earlier: Set[str]) -> None:
    sources = [stage.from_image, stage.from_template, stage.from_stage, stage.from_files, stage.from_sandbox]
    if sum(source is not None for source in sources) != 1:
        raise InvalidRequest(
            f"cannot build: {shown} must name an image, a template, a sandbox, a stage or files to start from, and "
            "only one of them"
        )
    for number, name in enumerate([stage.from_stage, *(step.from_stage for step in stage.steps)]):
        if name is not None and name not in earlier:
            where = f"step {number} of {shown}" if number else shown
            raise InvalidRequest(f"cannot build: {where} takes from {name!r}, and no earlier stage has that name")
    for number, step in enumerate(stage.steps, 1):
        if problem := _problem(step):
            raise InvalidRequest(f"cannot build: step {number} of {shown}: {problem}")


def _problem(step: Step) -> str | None:
    if step.kind is StepKind.ENV:
        return "a name has no value" if len(step.args) % 2 else None
    if step.kind is not StepKind.COPY:
        return None
    _, target, _, mode = (*step.args, "", "", "", "")[:4]
    if not target or (step.files is None) == (step.from_stage is None):
        return "copy needs a source, a target, and either the hash of uploaded files or a stage"
    if mode and not step.expand and not re.fullmatch("(0o?)?[0-7]{3,4}", mode):
        return f"{mode!r} is no mode: it is octal, as in 0644"
    return None


def environment(env: dict[str, str]) -> dict[str, str]:
    """Raises InvalidRequest."""
    try:
        return _ENVIRONMENT.validate_python(env)
    except ValidationError as error:
        raise InvalidRequest(f"cannot set the environment: {error.errors()[0]['msg']}") from None


def expanded(step: Step, image: Image) -> Step:
    """Raises InvalidRequest."""
    if not step.expand or step.kind is StepKind.RUN:
        return step
    variables = {"PATH": _PATH, **step.variables, **image.env}
    made = step.model_copy(
        update={"args": [expand(word, variables) for word in step.args], "variables": {}, "expand": False}
    )
    if problem := _problem(made):
        raise InvalidRequest(problem)
    return made


def absolute(image: Image, path: str) -> str:
    """Where a path of a step lies: relative ones below the working directory, `~` means the home of its user."""
    path = path.rstrip("/") or "/"
    home = "/root" if image.user in ("root", "0") else f"/home/{image.user}"
    if path == "~" or path.startswith("~/"):
        return home + path[1:]
    if path.startswith("/"):
        return path
    above = image.workdir or home
    return above if path == "." else f"{above.rstrip('/')}/{path.removeprefix('./')}"


def untagged(image: str) -> str:
    """An image's name without its tag; the port of its registry stays."""
    place, slash, last = image.rpartition("/")
    return f"{place}{slash}{last.partition(':')[0]}"
