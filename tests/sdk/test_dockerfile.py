"""What the instructions of a Dockerfile become."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from skerry import Image
from skerry.errors import InvalidRequest
from skerry.models import Recipe, Step

SH = ["/bin/sh", "-c"]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in ("app.py", "lib/util.py", "lib/data.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    for name in ("packed.tar.gz", "other.tar.gz"):
        with tarfile.open(tmp_path / name, "w:gz") as tar:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    (tmp_path / "link.tar").symlink_to("/etc/passwd")
    return tmp_path


def image(context: Path, text: str, **how: object) -> Image:
    (context / "Dockerfile").write_text(text)
    return Image.from_dockerfile(context / "Dockerfile", **how)  # type: ignore[arg-type]


def recipe(context: Path, text: str, **how: object) -> Recipe:
    return image(context, text, **how).recipe


def last(context: Path, instructions: str) -> Step:
    return recipe(context, f"FROM debian\nARG MODE=prod\nENV HOME_DIR=/srv\n{instructions}\n").steps[-1]


def test_a_whole_one(context: Path) -> None:
    made = recipe(
        context,
        """# syntax=docker/dockerfile:1
ARG VERSION=3.12
FROM python:${VERSION}-slim AS Build
ARG VERSION
ARG EXTRA=x
WORKDIR /src
RUN echo $VERSION && \\
    # a comment
    make
FROM build AS test
RUN make test
FROM debian:12
LABEL a=b
EXPOSE 80
ENV A=1 PATH="/opt/a b:$PATH"
COPY --from=build --chown=user:user /src/out* /app/
COPY --from=busybox:1 /bin/busybox /bin/
USER app:app
HEALTHCHECK --interval=5s CMD curl -f localhost || exit 1
ENTRYPOINT ["python3", "-m"]
CMD ["http.server", "a b"]
""",
        build_args={"EXTRA": "given"},
    )
    build, test, tools = made.stages["build"], made.stages["test"], made.stages["image:busybox:1"]
    assert (build.from_image, build.as_image, test.from_stage, tools.from_image) == (
        "python:3.12-slim", True, "build", "busybox:1",
    )  # fmt: skip
    run = build.steps[1]
    assert (run.args, run.shell, run.variables) == (
        ["echo $VERSION && \\\n    make"] if "\n" in run.args[0] else ["echo $VERSION &&     make"], SH,
        {"VERSION": "3.12", "EXTRA": "given"},
    )  # fmt: skip
    env, copied, tool, user = made.steps
    assert (env.args, env.expand) == (["A", "1", "PATH", '"/opt/a b:$PATH"'], True)
    assert (copied.args, copied.from_stage) == (["/src/out*", "/app/", "user:user", ""], "build")
    assert (tool.args, tool.from_stage) == (["/bin/busybox", "/bin/", "root", ""], "image:busybox:1")
    assert user.args == ["app"]
    assert made.start_command == "python3 -m http.server 'a b'"
    assert made.ready_command == "curl -f localhost || exit 1"


def test_a_target_ends_the_reading(context: Path) -> None:
    text = "FROM a AS one\nRUN x\nFROM b AS two\nRUN y\nFROM nosuch\nBROKEN"
    assert recipe(context, text, target="two").from_image == "b"
    assert recipe(context, text, target="0").from_image == "a"
    with pytest.raises(InvalidRequest, match="no stage 'three'"):
        recipe(context, "FROM a AS one\n", target="three")


def test_templates_are_sources_too(context: Path) -> None:
    assert recipe(context, "FROM template:base\n").from_template == "base"


def test_run_in_its_forms(context: Path) -> None:
    assert last(context, 'RUN ["echo", "a b"]').args == ["echo 'a b'"]
    assert last(context, 'SHELL ["/bin/bash", "-ec"]\nRUN x').shell == ["/bin/bash", "-ec"]
    assert last(context, "RUN --mount=type=cache,target=/root/.cache pip install x").args == ["pip install x"]
    assert last(context, "RUN <<EOF\nset -e\necho $MODE\nEOF").args == ["set -e\necho $MODE\n"]
    assert last(context, "RUN python3 <<EOF\nprint(1)\nEOF").args == ["python3 <<EOF\nprint(1)\nEOF"]
    script = last(context, "RUN <<EOF\n#!/usr/bin/env python3\nprint(1)\nEOF").args[0]
    assert "#!/usr/bin/env python3\nprint(1)\nEOF\n" in script
    assert last(context, "RUN x").variables == {"MODE": "prod"}


def test_copies_of_the_context(context: Path) -> None:
    assert last(context, "COPY app.py $HOME_DIR/").args == [".", "$HOME_DIR/", "root", ""]
    assert last(context, "COPY --chown=1000 --chmod=755 app.py /a").args == ["app.py", "/a", "1000", "755"]
    assert last(context, 'COPY ["app.py", "/a b"]').args == ["app.py", "/a b", "root", ""]
    made = image(context, "FROM a\nARG D=lib\nCOPY $D /x\nADD app.py /y\nADD packed.tar.gz /z\n")
    copied, added, unpacked = made.recipe.steps
    assert (copied.args, added.args, unpacked.args) == (
        [".", "/x/", "root", ""], ["app.py", "/y", "root", ""], [".", "/z/", "root", ""],
    )  # fmt: skip
    assert set(made.uploads) == {copied.files, added.files, unpacked.files}


def test_archives_are_added_each_by_itself(context: Path) -> None:
    made = image(context, "FROM a\nADD app.py packed.tar.gz other.tar.gz /x\nADD o*.tar.gz /y\n")
    assert [step.args for step in made.recipe.steps] == [
        [".", "/x/", "root", ""], [".", "/x/", "root", ""], [".", "/x/", "root", ""], [".", "/y/", "root", ""],
    ]  # fmt: skip
    assert len({step.files for step in made.recipe.steps}) == 3
    assert set(made.uploads) == {step.files for step in made.recipe.steps}


def test_a_dot_is_a_directory(context: Path) -> None:
    assert last(context, "COPY app.py lib/util.py .").args == [".", "./", "root", ""]
    assert recipe(context, "FROM a AS b\nFROM a\nCOPY --from=b /x /y .\n").steps[-1].args == ["/y", "./", "root", ""]


def test_an_image_and_a_later_stage_of_one_name_differ(context: Path) -> None:
    made = recipe(context, "FROM a\nCOPY --from=nginx /x /x\nFROM b AS nginx\nFROM c\nCOPY --from=nginx /y /y\n")
    assert made.stages["image:nginx"].from_image == "nginx"
    assert made.stages["nginx"].from_image == "b"
    assert made.stages["0"].steps[0].from_stage == "image:nginx"
    assert made.steps[0].from_stage == "nginx"


def test_start_commands(context: Path) -> None:
    assert recipe(context, "FROM a\nENTRYPOINT ./run.sh\nCMD a\n").start_command == "./run.sh"
    assert recipe(context, 'FROM a\nENTRYPOINT ["./run.sh"]\nCMD ["a b"]\n').start_command == "./run.sh 'a b'"
    assert recipe(context, "FROM a\nCMD x\nENTRYPOINT y\n").start_command == "y"
    assert recipe(context, 'FROM a\nENV B="${C:?of the image}"\nCMD x\n').start_command == "x"


def test_here_documents_become_files(context: Path) -> None:
    made = image(
        context,
        "FROM a\nENV A=1\nCOPY <<EOF /etc/conf\nit's \"$A\" \\$A \\n\nEOF\nCOPY <<'EOF' /etc/\n$A\nEOF\nCOPY <<-EOF /x\n\t\ttabs\n\tEOF\n",
    )
    texts = []
    for step in made.recipe.steps[1:]:
        assert step.files is not None
        out = io.BytesIO()
        made.uploads[step.files].write(out)  # type: ignore[union-attr]
        out.seek(0)
        with tarfile.open(fileobj=out) as tar:
            content = tar.extractfile("EOF")
            assert content is not None
            texts.append(content.read().decode())
    assert texts == ['it\'s "1" $A \\n\n', "$A\n", "tabs\n"]
    assert made.recipe.steps[1].args == ["EOF", "/etc/conf", "root", ""]


def test_healthcheck_without_a_command_is_none(context: Path) -> None:
    assert recipe(context, "FROM a\nHEALTHCHECK CMD x\n").ready_command is None
    assert recipe(context, "FROM a\nCMD y\nHEALTHCHECK CMD x\nHEALTHCHECK NONE\n").ready_command is None
    assert recipe(context, "FROM a AS b\nCMD y\nFROM b\n").start_command == "y"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no instructions"), ("ARG A\n", "no FROM"), ("RUN x\n", "line 1: cannot use RUN before FROM"), ("FROM scratch\n", "empty image"),
        ("FROM a b\n", "line 1: cannot understand FROM"), ("FROM $NOTHING\n", "is empty"),
        ("FROM a\nONBUILD RUN x\n", "line 2: cannot use ONBUILD"), ("FROM a\nNONSENSE x\n", "cannot use NONSENSE"),
        ("FROM a\nRUN --mount=type=secret,id=x y\n", "not supported"), ("FROM a\nCOPY app.py\n", "names sources"),
        ("FROM a\nCOPY nosuch /x\n", "line 2: cannot copy nosuch"), ("FROM a\nCOPY ../x /x\n", "cannot copy"),
        ("FROM a\nCOPY --parents app.py /x\n", "--parents"), ("FROM a\nADD https://x.example/y /y\n", "fetch it"),
        ("FROM a AS b\nCOPY --from=b /x /y\n", "from itself"), ("FROM a\nARG A=${B%x}\n", "not understood"),
        ("FROM a\nSHELL bash\n", "it is a list"), ("FROM a\nCOPY app.py lib/util.py /x\n", "must be a directory"),
        ("FROM a\nCOPY --from=b /x /y /z\n", "must be a directory"),
        ("FROM a\nADD ../secret.tar /x\n", "cannot copy"), ("FROM a\nADD link.tar /x\n", "leads out of"),
        ("FROM a\nCOPY --from=0bad! /x /y\n", "line 2"), ("FROM a\nCOPY **x /x/\n", "cannot copy"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_line(context: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        recipe(context, text)


def test_a_dockerfile_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot read"):
        Image.from_dockerfile(tmp_path / "Dockerfile")
