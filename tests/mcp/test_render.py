"""What answers look like to a model."""

from typing import Any

import pytest
from mcp_types import CallToolResult, ImageContent, TextContent

from skerry import ExecResult, Execution, ShownResult
from skerry.mcp import render
from skerry.models import ExecutionError, ExitReason


def words(answer: CallToolResult) -> str:
    return "\n".join(block.text for block in answer.content if isinstance(block, TextContent))


def test_short_output_is_whole_and_long_output_keeps_both_ends() -> None:
    assert render.shortened("x" * 100, 100) == "x" * 100
    cut = render.shortened("a" * 500 + "b" * 500, 100)
    assert cut == "a" * 50 + "\n[… 900 characters left out …]\n" + "b" * 50


def test_a_failed_command_is_a_result() -> None:
    answer = render.command(ExecResult("x", 3, "out\n", "err\n"))
    assert not answer.is_error
    assert words(answer) == "exit code 3\nstdout:\nout\nstderr:\nerr"
    assert answer.structured_content["exit_code"] == 3


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (ExecResult("x", 137, "", "", ExitReason.TIMEOUT), "exit code 137 (timeout)"),
        (ExecResult("x", 0, "y" * 30_000, ""), "[… 10000 characters left out …]"),
        (ExecResult("x", 0, "y", "", truncated=True), "8 MiB"),
    ],
)
def test_what_is_missing_is_said(done: ExecResult[str], said: str) -> None:
    answer = render.command(done)
    assert said in words(answer)
    assert answer.structured_content["truncated"] is (done.returncode == 0)


def shown(main: bool = False, **data: Any) -> ShownResult:
    return ShownResult({name.replace("_", "/"): content for name, content in data.items()}, main)


def test_code_gives_output_then_results_then_the_mistake() -> None:
    run = Execution(
        [shown(text_plain="displayed"), shown(text_plain="42", text_html="<b>42</b>", main=True)], "printed\n", "warned\n",
        ExecutionError(name="E", value="v", traceback="Traceback\nE: v"),
    )  # fmt: skip
    assert words(render.execution(run)) == (
        "stdout:\nprinted\nstderr:\nwarned\ndisplayed\nresult:\n42\nerror:\nTraceback\nE: v"
    )


def test_a_mistake_is_named_also_where_the_traceback_is_that_of_an_interrupt() -> None:
    error = ExecutionError(name="TimeoutError", value="after 1 s", traceback="Traceback\nKeyboardInterrupt\n")
    assert (
        words(render.execution(Execution(error=error)))
        == "error:\nTraceback\nKeyboardInterrupt\nTimeoutError: after 1 s"
    )


def test_code_without_a_result_says_so() -> None:
    assert words(render.execution(Execution())) == "[it ran, and showed nothing]"
    assert "fresh one" in words(render.execution(Execution(context_restarted=True)))


def test_images_are_images_up_to_a_limit() -> None:
    run = Execution([shown(image_png="AA\nAA", text_plain="<Figure>") for _ in range(render.IMAGES_MAX + 1)])
    answer = render.execution(run)
    images = [block for block in answer.content if isinstance(block, ImageContent)]
    assert len(images) == render.IMAGES_MAX
    assert (images[0].data, images[0].mime_type) == ("AAAA", "image/png")
    assert "left out" in words(answer)
    large = Execution([shown(image_png="A" * (render.IMAGE_MAX + 1), text_plain="<Figure>")])
    assert words(render.execution(large)) == "<Figure>"
