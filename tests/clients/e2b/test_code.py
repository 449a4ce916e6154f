"""The code interpreter."""

import pytest
from e2b import TimeoutException
from e2b_code_interpreter import Sandbox


def test_state_streams_and_results(sandbox):
    out, err, shown = [], [], []
    ran = sandbox.run_code(
        "import sys\nx = 41\nprint('out')\nprint('err', file=sys.stderr)\nx + 1",
        on_stdout=lambda message: out.append(message.line),
        on_stderr=lambda message: err.append(message.line),
        on_result=shown.append,
    )
    assert ran.text == "42"
    assert ran.error is None
    assert ran.logs.stdout == out == ["out\n"]
    assert ran.logs.stderr == err == ["err\n"]
    assert shown[0].is_main_result
    again = sandbox.run_code("x")
    assert again.text == "41"
    assert again.execution_count == ran.execution_count + 1
    assert sandbox.run_code("'a string'").text == "a string"


def test_errors_are_results(sandbox):
    failed = sandbox.run_code("1 / 0")
    assert failed.error.name == "ZeroDivisionError"
    assert failed.error.value == "division by zero"
    assert "1 / 0" in failed.error.traceback


def test_rich_results(sandbox):
    plot = sandbox.run_code("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()")
    assert plot.results[0].png
    table = sandbox.run_code("import pandas as pd\npd.DataFrame({'a': [1, 2]})")
    assert "<table" in table.results[0].html
    latex = sandbox.run_code("from IPython.display import Latex\nLatex('$x$')")
    assert latex.results[0].latex == "$x$"


def test_contexts(sandbox):
    context = sandbox.create_code_context(cwd="/tmp")
    assert (context.cwd, context.language) == ("/tmp", "python")
    assert sandbox.run_code("import os\ny = 1\nos.getcwd()", context=context).text == "/tmp"
    assert sandbox.run_code("y").error.name == "NameError"
    assert context.id in [known.id for known in sandbox.list_code_contexts()]
    sandbox.restart_code_context(context)
    assert sandbox.run_code("y", context=context).error.name == "NameError"
    sandbox.remove_code_context(context)
    with pytest.raises(Exception, match="not found"):
        sandbox.run_code("1", context=context)


def test_environments(sandbox):
    ran = sandbox.run_code("import os\nos.environ['GLOBAL'], os.environ['RUN']", envs={"RUN": "of the run"})
    assert ran.text == "('of the sandbox', 'of the run')"
    assert sandbox.run_code("os.environ.get('RUN', 'gone')").text == "gone"


def test_a_run_out_of_time_is_interrupted_and_the_next_one_works(sandbox):
    sandbox.run_code("kept = 5")
    with pytest.raises(TimeoutException):
        sandbox.run_code("import time\ntime.sleep(60)", timeout=1)
    assert sandbox.run_code("kept").text == "5"


async def test_asynchronously(async_sandbox):
    assert (await async_sandbox.run_code("z = 1\nz + 1")).text == "2"
    context = await async_sandbox.create_code_context()
    assert (await async_sandbox.run_code("z", context=context)).error.name == "NameError"
    with pytest.raises(TimeoutException):
        await async_sandbox.run_code("while True: pass", timeout=1)
    assert (await async_sandbox.run_code("z")).text == "1"
    await async_sandbox.run_code("y = 1", context=context)
    await async_sandbox.restart_code_context(context)
    assert (await async_sandbox.run_code("y", context=context)).error.name == "NameError"
    assert context.id in [known.id for known in await async_sandbox.list_code_contexts()]
    await async_sandbox.remove_code_context(context)
    assert context.id not in [known.id for known in await async_sandbox.list_code_contexts()]
    seen = []
    code = "import os, sys\nprint(os.environ['RUN'])\nprint('e', file=sys.stderr)\n7"
    await async_sandbox.run_code(
        code, envs={"RUN": "run"}, on_stdout=lambda line: seen.append(line.line),
        on_stderr=lambda line: seen.append(line.line), on_result=lambda result: seen.append(result.text),
    )  # fmt: skip
    assert sorted(seen) == ["7", "e\n", "run\n"]


def test_charts_and_tables_as_data(sandbox):
    plot = sandbox.run_code("import matplotlib.pyplot as plt\nplt.plot([1, 2], [3, 4])\nplt.title('T')\nplt.show()")
    assert plot.results[0].chart.title == "T"
    assert plot.results[0].chart.elements[0].points == [(1, 3), (2, 4)]
    assert sandbox.run_code("import pandas as pd\npd.DataFrame({'a': [1, 2]})").results[0].data == {"a": [1, 2]}


@pytest.fixture(scope="module")
def interpreter():
    sandbox = Sandbox.create(timeout=300, envs={"GLOBAL": "of the sandbox"})  # its own default template
    yield sandbox
    sandbox.kill()


LANGUAGES = {
    # language: (sets x, shows x + 1, prints, shows $GLOBAL, shows $HERE, fails, name of the failure)
    "js": (
        "const x = 41", "x + 1", "console.log('out')", "process.env.GLOBAL", "process.env.HERE ?? 'none'",
        "throw new TypeError('boom')", "TypeError",
    ),
    "ts": (
        "const x: number = 41", "(x as number) + 1", "console.log('out')", "process.env.GLOBAL",
        "process.env.HERE ?? 'none'", "throw new TypeError('boom')", "TypeError",
    ),
    "bash": (
        "x=41", "echo $((x + 1))", "echo out", "echo $GLOBAL", "echo ${HERE:-none}", "nosuchcommand", "Error",
    ),
    "r": (
        "x <- 41", "x + 1", "cat('out\\n')", "Sys.getenv('GLOBAL')", "Sys.getenv('HERE', 'none')", "stop('boom')",
        "ERROR",
    ),
    "java": (
        "int x = 41;", "x + 1", 'System.out.println("out");', 'System.getProperty("GLOBAL")',
        'System.getProperty("HERE", "none")', 'throw new IllegalStateException("boom");',
        "java.lang.IllegalStateException",
    ),
}  # fmt: skip


def shown(ran):
    assert ran.error is None, ran.error
    text = "".join(result.text or "" for result in ran.results) + "".join(ran.logs.stdout)
    return text.strip().removeprefix("[1] ").strip('"')


@pytest.mark.timeout(120)
@pytest.mark.parametrize("language", LANGUAGES)
def test_languages_have_state_output_environment_and_errors(interpreter, language):
    sets, shows, prints, everywhere, here, fails, name = LANGUAGES[language]

    def run(code, **more):
        return interpreter.run_code(code, language=language, timeout=60, **more)

    assert run(sets).error is None
    assert shown(run(shows)) == "42"
    assert shown(run(prints)) == "out"
    assert shown(run(everywhere)) == "of the sandbox"
    assert shown(run(here, envs={"HERE": "now"})) == "now"
    assert shown(run(here)) == "none"
    failed = run(fails)
    assert failed.error.name == name
    assert failed.error.traceback
    assert shown(run(shows)) == "42"


@pytest.mark.parametrize(
    ("language", "code", "name", "place"),
    [
        ("python", "a = 1\nb = = 2", "SyntaxError", "line 2"),
        ("js", "let a = 1\nlet b = ;", "SyntaxError", "2:9"),
        ("ts", "const y: number = ;", "SyntaxError", "1:19"),
        ("r", "a <- 1\nb <- )", "ERROR", "2:6"),
        ("java", "int x = ;", "CompilationException", "illegal start of expression"),
    ],
)
def test_a_mistake_in_the_syntax_is_told_with_its_place(interpreter, language, code, name, place):
    error = interpreter.run_code(code, language=language, timeout=60).error
    assert name in error.name
    assert error.value
    assert place in f"{error.value}\n{error.traceback}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("language", "forever", "then"),
    [
        ("js", "while (true) {}", "1 + 1"),
        ("bash", "sleep 100", "echo 2"),
        ("r", "while (TRUE) {}", "1 + 1"),
        ("java", "while (true) { Thread.sleep(10); }", "1 + 1"),
    ],
)
def test_languages_are_interrupted(interpreter, language, forever, then):
    context = interpreter.create_code_context(language=language)
    with pytest.raises(TimeoutException):
        interpreter.run_code(forever, context=context, timeout=3)
    assert shown(interpreter.run_code(then, context=context, timeout=30)) == "2"


def test_a_kernel_by_its_own_name(interpreter):
    """As one that no entry is for: Julia's, where an image has it."""
    ran = interpreter.run_code("paste('by', 'name')", language="ir", timeout=60)
    assert "by name" in ran.results[0].text
    assert interpreter.run_code("nothing_here", language="ir").error.traceback


def test_a_language_that_is_not_there(interpreter):
    with pytest.raises(Exception, match="no kernel for 'cobol'"):
        interpreter.run_code("1", language="cobol")
    assert {context.language for context in interpreter.list_code_contexts()} >= {"python", "javascript", "r", "java"}
