"""Dockerfiles as recipes. Docker's own parser reads them; here is what their instructions mean.

What is not needed here is left out: LABEL, MAINTAINER, EXPOSE (every port can be reached), VOLUME and STOPSIGNAL. CMD
and ENTRYPOINT become the start command, HEALTHCHECK tells when it is ready. `FROM template:NAME` begins with a
template.
"""

from __future__ import annotations

import glob
import platform
import re
import shlex
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from skerry.errors import InvalidRequest
from skerry.expansion import expand
from skerry.models import Recipe, Stage, Step, StepKind
from skerry.sdk.archives import Archive, File, Ignore, collect, matches, texts

Upload = Archive | File
_SHELL = ["/bin/sh", "-c"]
_IGNORED = frozenset({"LABEL", "MAINTAINER", "EXPOSE", "VOLUME", "STOPSIGNAL"})
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_HEREDOC = re.compile(r"""\d*<<-?(["']?)(\w+)\1""")
_TEMPLATE = "template:"


def read(
    dockerfile: Path, context: Path, build_args: Mapping[str, str] | None = None, target: str | None = None
) -> tuple[Recipe, dict[str, Upload]]:
    """The recipe, and the files that must be uploaded for it, by their hashes.

    Args:
        context: the directory that COPY takes files from.
        build_args: values for ARG.
        target: the stage to stop at; default: the last.

    Raises:
        InvalidRequest: with the line; also when docker's parser is not installed.
    """
    try:
        import dockerfile as parser
    except ImportError:
        raise InvalidRequest(
            "cannot read a Dockerfile: docker's parser is not installed; run `pip install 'skerry[dockerfile]'`"
        ) from None
    try:
        commands = parser.parse_string(dockerfile.read_text())
    except (OSError, UnicodeDecodeError, parser.GoIOError, parser.GoParseError) as error:
        raise InvalidRequest(f"cannot read {dockerfile}: {error}") from error
    ignore = Ignore.read(context, (f"{dockerfile.name}.dockerignore", ".dockerignore"))
    reader = _Reader(context, ignore, dict(build_args or {}))
    for command in commands:
        if reader.stages and target is not None and command.cmd == "FROM" and reader.stages[-1].is_named(target):
            break
        try:
            reader.take(command)
        except (InvalidRequest, ValidationError) as error:
            why = error.message if isinstance(error, InvalidRequest) else error.errors()[0]["msg"]
            raise InvalidRequest(f"{dockerfile.name}, line {command.start_line}: {why}") from error
    if not reader.stages:
        raise InvalidRequest(f"cannot build {dockerfile}: it has no FROM")
    if target is not None and not reader.stages[-1].is_named(target):
        raise InvalidRequest(f"cannot build {dockerfile}: it has no stage {target!r}")
    try:
        return reader.recipe(), reader.uploads
    except ValidationError as error:
        raise InvalidRequest(f"cannot build {dockerfile}: {error.errors()[0]['msg']}") from error


@dataclass
class _Stage:
    number: int
    name: str | None
    source: dict[str, Any]
    args: dict[str, str] = field(default_factory=dict[str, str])
    env: dict[str, str] = field(default_factory=dict[str, str])
    """As far as it is known here: what an image brings, the server knows."""
    steps: list[Step] = field(default_factory=list[Step])
    shell: list[str] = field(default_factory=lambda: list(_SHELL))
    entrypoint: str | None = None
    is_shell_entrypoint: bool = False
    command: str | None = None
    healthy: str | None = None

    @property
    def key(self) -> str:
        return self.name or str(self.number)

    def is_named(self, name: str) -> bool:
        return name.lower() in (self.name, str(self.number))

    @property
    def variables(self) -> dict[str, str]:
        return {**self.args, **self.env}

    @property
    def start_command(self) -> str | None:
        if self.entrypoint is not None and self.is_shell_entrypoint:
            return self.entrypoint  # to which CMD adds nothing
        parts = [part for part in (self.entrypoint, self.command) if part is not None]
        return " ".join(parts) or None

    def made(self) -> Stage:
        return Stage(**self.source, as_image=True, steps=self.steps)


class _Reader:
    def __init__(self, context: Path, ignore: Ignore, given: dict[str, str]) -> None:
        architecture = _ARCHITECTURES.get(platform.machine(), platform.machine())
        self._context, self._ignore, self._given = context, ignore, given
        # What docker's builder sets; global like the ARGs before the first FROM.
        self._globals = {
            f"{side}{name}": value
            for side in ("TARGET", "BUILD")
            for name, value in (("PLATFORM", f"linux/{architecture}"), ("OS", "linux"), ("ARCH", architecture))
        }
        self._images: dict[str, Stage] = {}  # images that COPY --from names
        self.stages: list[_Stage] = []
        self.uploads: dict[str, Upload] = {}

    def recipe(self) -> Recipe:
        *earlier, last = self.stages
        start = last.start_command
        return Recipe(
            **last.source, as_image=True, steps=last.steps,
            stages={**self._images, **{stage.key: stage.made() for stage in earlier}},
            start_command=start, ready_command=last.healthy if start is not None else None,
        )  # fmt: skip

    def take(self, command: Any) -> None:
        """One instruction, as the parser gives it. Raises InvalidRequest."""
        if command.cmd in _IGNORED:
            return
        if command.cmd == "FROM":
            self._from(command)
        elif not self.stages:
            if command.cmd != "ARG":
                raise InvalidRequest(f"cannot use {command.cmd} before FROM")
            self._globals.update(self._args(command, self._globals))
        else:
            act: Callable[[_Stage, Any], None] | None = getattr(self, f"_{command.cmd.lower()}", None)
            if act is None:
                raise InvalidRequest(f"cannot use {command.cmd}: it is not supported")
            act(self.stages[-1], command)

    # --- stages -----------------------------------------------------------------------------------------------------

    def _from(self, command: Any) -> None:
        words = command.value
        if len(words) not in (1, 3) or (len(words) == 3 and words[1].lower() != "as"):
            raise InvalidRequest("cannot understand FROM: it is `FROM image` or `FROM image AS name`")
        name = words[2].lower() if len(words) == 3 else None
        reference = expand(words[0], self._globals)
        if not reference:
            raise InvalidRequest(f"cannot begin with {words[0]!r}: it is empty; give its ARG a value")
        stage = _Stage(len(self.stages), name, self._source(reference))
        parent = self._stage(reference)
        if parent is not None:
            stage.env, stage.shell = dict(parent.env), list(parent.shell)
            stage.entrypoint, stage.is_shell_entrypoint = parent.entrypoint, parent.is_shell_entrypoint
            stage.command, stage.healthy = parent.command, parent.healthy
        self.stages.append(stage)

    def _stage(self, name: str) -> _Stage | None:
        return next((stage for stage in self.stages if stage.is_named(name)), None)

    def _source(self, reference: str) -> dict[str, Any]:
        stage = self._stage(reference)
        if stage is not None:
            return {"from_stage": stage.key}
        if reference == "scratch":
            raise InvalidRequest("cannot begin with an empty image: what starts a sandbox needs /bin/sh in it")
        if reference.startswith(_TEMPLATE):
            return {"from_template": reference.removeprefix(_TEMPLATE)}
        return {"from_image": reference}

    def _args(self, command: Any, known: Mapping[str, str]) -> dict[str, str]:
        """The values that an ARG instruction gives."""
        found: dict[str, str] = {}
        for word in command.value:
            name, equals, default = word.partition("=")
            if name in self._given:
                found[name] = self._given[name]
            elif equals:
                found[name] = expand(default, {**known, **found})
            elif name in self._globals:
                found[name] = self._globals[name]
        return found

    # --- instructions -----------------------------------------------------------------------------------------------

    def _arg(self, stage: _Stage, command: Any) -> None:
        stage.args.update(self._args(command, stage.variables))

    def _env(self, stage: _Stage, command: Any) -> None:
        stage.steps.append(_step(stage, StepKind.ENV, command.value))
        before = stage.variables
        for name, value in zip(command.value[::2], command.value[1::2], strict=True):
            try:
                stage.env[name] = expand(value, before)
            except InvalidRequest:  # perhaps because of what only the image has: the server will say
                stage.env[name] = ""

    def _workdir(self, stage: _Stage, command: Any) -> None:
        stage.steps.append(_step(stage, StepKind.WORKDIR, command.value))

    def _user(self, stage: _Stage, command: Any) -> None:
        stage.steps.append(_step(stage, StepKind.USER, [command.value[0].partition(":")[0]]))

    def _shell(self, stage: _Stage, command: Any) -> None:
        if not command.json:
            raise InvalidRequest('cannot understand SHELL: it is a list, as in SHELL ["/bin/bash", "-c"]')
        stage.shell = list(command.value)

    def _run(self, stage: _Stage, command: Any) -> None:
        for flag in command.flags:
            if not flag.startswith(("--mount=type=cache", "--mount=type=tmpfs", "--network=default")):
                raise InvalidRequest(f"cannot use RUN {flag}: it is not supported")
        text = shlex.join(command.value) if command.json else _script(command)
        stage.steps.append(
            Step(kind=StepKind.RUN, args=[text], shell=_SHELL if command.json else stage.shell, variables=stage.args)
        )

    def _copy(self, stage: _Stage, command: Any) -> None:
        flags = _flags(command, {"from", "chown", "chmod", "link"})
        *sources, target = command.value
        if not sources:
            raise InvalidRequest("cannot understand COPY: it names sources and a target")
        target = "./" if target == "." else target
        how = [target, flags.get("chown", "root"), flags.get("chmod", "")]
        if "from" in flags:
            key = self._copied(expand(flags["from"], stage.variables))
            where = target if len(sources) == 1 or target.endswith("/") else None
            if where is None:
                raise InvalidRequest("cannot copy several sources: the target must be a directory and end with /")
            for source in sources:
                stage.steps.append(_step(stage, StepKind.COPY, ["/" + source.lstrip("/"), *how], from_stage=key))
            return
        if command.heredocs:
            self._copy_texts(stage, command, sources, how)
            return
        names = [expand(source, stage.variables) for source in sources]
        copy = collect(self._context, names, target, self._ignore)
        stage.steps.append(self._uploaded(stage, copy.archive, copy.source, [copy.target, *how[1:]]))

    def _add(self, stage: _Stage, command: Any) -> None:
        *sources, target = command.value
        for source in sources:
            if "://" in source or source.startswith("git@"):
                raise InvalidRequest(f"cannot add {source}: fetch it with RUN curl or RUN git clone")
        if command.heredocs or not sources:
            self._copy(stage, command)
            return
        found = [
            match
            for source in sources
            for match in matches(self._context, expand(source, stage.variables), self._ignore)
        ]
        packed = [path for _, path in found if path.is_file() and tarfile.is_tarfile(path)]
        if not packed:
            self._copy(stage, command)
            return
        flags = _flags(command, {"chown", "chmod", "link"})
        how = [f"{target.rstrip('/')}/", flags.get("chown", "root"), flags.get("chmod", "")]
        for name, path in found:
            if path not in packed:
                copy = collect(self._context, [glob.escape(name)], how[0], self._ignore)
                stage.steps.append(self._uploaded(stage, copy.archive, copy.source, [copy.target, *how[1:]]))
            elif _is_plain_or_gzip(path):
                stage.steps.append(self._uploaded(stage, File(path), ".", how))
            else:
                raise InvalidRequest(f"cannot add {name}: of archives, plain ones and those of gzip are unpacked")

    def _cmd(self, stage: _Stage, command: Any) -> None:
        stage.command = _command_line(command)

    def _entrypoint(self, stage: _Stage, command: Any) -> None:
        stage.entrypoint, stage.is_shell_entrypoint = _command_line(command), not command.json
        stage.command = None

    def _healthcheck(self, stage: _Stage, command: Any) -> None:
        kind, *words = command.value
        if kind.upper() == "NONE":
            stage.healthy = None
        else:
            stage.healthy = shlex.join(words) if command.json else " ".join(words)

    # --- files ------------------------------------------------------------------------------------------------------

    def _copied(self, name: str) -> str:
        """The stage that COPY --from means; an image becomes a stage of its own."""
        stage = self._stage(name)
        if stage is self.stages[-1]:
            raise InvalidRequest(f"cannot copy from {name}: a stage cannot copy from itself")
        if stage is not None:
            return stage.key
        key = f"image:{name}"  # a later stage may have the same name
        self._images[key] = Stage(**self._source(name), as_image=True)
        return key

    def _copy_texts(self, stage: _Stage, command: Any, sources: Sequence[str], how: list[str]) -> None:
        contents = {heredoc.name: heredoc.content for heredoc in command.heredocs}
        # The parser keeps the tabs that <<- takes away.
        indented = {name for dash, name in re.findall(r"""<<(-?)["']?(\w+)""", command.original) if dash}
        files = []
        for source in sources:
            found = _HEREDOC.fullmatch(source)
            if found is None:
                raise InvalidRequest(f"cannot copy {source} beside a here-document: use one COPY for each")
            text = contents[found[2]]
            if found[2] in indented:
                text = re.sub(r"^\t+", "", text, flags=re.MULTILINE)
            files.append((found[2], text if found[1] else _expanded_text(text, stage.variables)))
        target = how[0]
        if not target.endswith("/"):
            if len(files) > 1:
                raise InvalidRequest("cannot copy several sources: the target must be a directory and end with /")
            stage.steps.append(self._uploaded(stage, texts(files), files[0][0], how))
            return
        stage.steps.append(self._uploaded(stage, texts(files), ".", how))

    def _uploaded(self, stage: _Stage, files: Upload, source: str, how: Sequence[str]) -> Step:
        self.uploads[files.digest] = files
        literal = re.sub(r"""([\\$"'])""", r"\\\1", source)
        return _step(stage, StepKind.COPY, [literal, *how], files=files.digest)


def _is_plain_or_gzip(path: Path) -> bool:
    for mode in ("r:", "r:gz"):
        with suppress(tarfile.ReadError), tarfile.open(path, mode):
            return True
    return False


def _step(stage: _Stage, kind: StepKind, args: Sequence[str], **more: Any) -> Step:
    if not args:
        raise InvalidRequest(f"cannot understand {kind.upper()}: it says nothing")
    return Step(kind=kind, args=list(args), variables=stage.args, expand=True, **more)


def _flags(command: Any, known: set[str]) -> dict[str, str]:
    found = {}
    for flag in command.flags:
        name, _, value = flag.removeprefix("--").partition("=")
        if name not in known:
            raise InvalidRequest(f"cannot use {command.cmd} --{name}: it is not supported")
        found[name] = value
    return found


def _command_line(command: Any) -> str | None:
    if command.json:
        return shlex.join(command.value) or None
    return " ".join(command.value) or None


def _script(command: Any) -> str:
    """The text that a shell is given, with its here-documents."""
    line = " ".join(command.value)
    if not command.heredocs:
        return line
    first = command.heredocs[0]
    if _HEREDOC.fullmatch(line.strip()) is None:
        return "\n".join([line, *(f"{text.content}{text.name}" for text in command.heredocs)])
    if not first.content.startswith("#!"):
        return str(first.content)
    return (
        f"script=$(mktemp) && cat >\"$script\" <<'{first.name}'\n{first.content}{first.name}\n"
        'chmod +x "$script" && "$script"; code=$?; rm -f "$script"; exit $code'
    )


def _expanded_text(text: str, variables: Mapping[str, str]) -> str:
    """A here-document has variables, and no quotes; only a dollar can be escaped."""
    quoted = re.sub(r"\\(?!\$)", r"\\\\", text).replace('"', '\\"')
    return expand(f'"{quoted}"', variables)
