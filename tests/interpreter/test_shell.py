"""Values, displays, errors, magics and commands."""

from __future__ import annotations

from tests.interpreter.rig import Interpreter


def test_the_last_expression_is_the_result(shared: Interpreter) -> None:
    ran = shared.run("x = 20\nx * 2 + 2")
    assert ran.text == "42"
    assert ran.order == ["result", "done"]


def test_a_semicolon_or_a_statement_gives_no_result(shared: Interpreter) -> None:
    assert shared.run("1 + 1;").order == ["done"]
    assert shared.run("y = 1").order == ["done"]
    assert shared.run("'a;b'").text == "'a;b'"


def test_variables_stay_and_modules_of_the_interpreter_do_not_show(shared: Interpreter) -> None:
    shared.run("kept = [1]")
    assert shared.run("kept.append(2); kept").text == "[1, 2]"
    assert shared.run("import loop").error["name"] == "ModuleNotFoundError"
    assert shared.run("__name__").text == "'__main__'"
    assert shared.run("import pickle\nclass P: pass\ntype(pickle.loads(pickle.dumps(P()))).__name__").text == "'P'"


def test_top_level_await_and_tasks_that_go_on_in_the_next_cell(shared: Interpreter) -> None:
    shared.run("import asyncio\nseen = []\nasync def later():\n    await asyncio.sleep(0.01)\n    seen.append(1)")
    assert shared.run("task = asyncio.create_task(later())\nawait asyncio.sleep(0)\n'away'").text == "'away'"
    assert shared.run("await task\nseen").text == "[1]"
    assert shared.run("asyncio.run(later())\nseen").text == "[1, 1]"


def test_displays_come_in_their_order_with_output(shared: Interpreter) -> None:
    ran = shared.run("print('a')\ndisplay(1)\nprint('b')\ndisplay(2)\n3")
    shown = [event.get("text") or event["data"]["text/plain"] for event in ran.events[:-1]]
    assert [text.strip() for text in shown if text.strip()] == ["a", "1", "b", "2", "3"]


def test_rich_results(shared: Interpreter) -> None:
    shared.run("from IPython.display import *\nimport base64")
    cases = {
        "HTML('<b>x</b>')": ("text/html", "<b>x</b>"),
        "Markdown('# x')": ("text/markdown", "# x"),
        "Latex('$x$')": ("text/latex", "$x$"),
        "SVG('<svg/>')": ("image/svg+xml", "<svg/>"),
        "JSON({'a': [1]})": ("application/json", {"a": [1]}),
        "Javascript('1')": ("application/javascript", "1"),
        r"Image(b'\x89PNG\r\n\x1a\n', format='png')": ("image/png", "iVBORw0KGgo="),
        r"Image(b'\xff\xd8\xff', format='jpeg')": ("image/jpeg", "/9j/"),
    }
    for code, (mime, content) in cases.items():
        data = shared.run(code).shown[0]
        found = data[mime]
        assert (found.strip() if isinstance(found, str) else found) == content, code
        assert "text/plain" in data
    pdf = "class P:\n    def _repr_pdf_(self): return b'%PDF'\nP()"
    assert shared.run(pdf).shown[0]["application/pdf"] == "JVBERg=="
    table = shared.run("import pandas\npandas.DataFrame({'col': [7]})").shown[0]
    assert "<table" in table["text/html"]
    assert "col" in table["text/plain"]


def test_formatters_that_users_register_for_plain_types_count(fresh: Interpreter) -> None:
    by = "get_ipython().display_formatter.formatters['text/html']"
    fresh.run(f"{by}.for_type(int, lambda n: f'<b>{{n}}</b>')")
    fresh.run(f"{by}.for_type_by_name('builtins', 'str', lambda s: f'<i>{{s}}</i>')")
    assert fresh.run("5").of("result")[0]["data"] == {"text/plain": "5", "text/html": "<b>5</b>"}
    assert fresh.run("'a'").of("result")[0]["data"] == {"text/plain": "'a'", "text/html": "<i>a</i>"}
    fresh.run(f"{by}.for_type(object, lambda value: 'any')")
    assert fresh.run("[1]").of("result")[0]["data"] == {"text/plain": "[1]", "text/html": "any"}
    fresh.run("%precision 2")
    assert fresh.run("1 / 3").text == "0.33"


def test_displays_from_several_threads_at_once(fresh: Interpreter) -> None:
    code = """
import threading
threads = [threading.Thread(target=lambda n=n: [display(n) for _ in range(50)]) for n in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    assert len(fresh.run(code).of("result")) == 200


def test_what_is_no_json_is_shown_as_text(shared: Interpreter) -> None:
    data = shared.run("display({'application/json': {'x': float('nan')}, 'text/plain': 'p'}, raw=True)").shown[0]
    assert data == {"application/json": "{'x': nan}", "text/plain": "p"}
    assert shared.run(r"'\ud800'").text == r"'\ud800'"
    assert shared.run(r"display({'text/plain': '\ud800'}, raw=True)").shown[0]["text/plain"] == "?"


def test_a_result_beyond_the_line_limit_is_replaced(shared: Interpreter) -> None:
    ran = shared.run("'x' * (17 * 1024 * 1024)")
    assert "left out" in ran.text
    assert len(ran.text) < 20_000


def test_an_error_names_the_cell_and_no_frame_of_ours(shared: Interpreter) -> None:
    ran = shared.run("def f():\n    return 1 / 0\nf()")
    assert ran.error["name"] == "ZeroDivisionError"
    assert ran.error["value"] == "division by zero"
    traceback = ran.error["traceback"]
    assert traceback.startswith('Traceback (most recent call last):\n  File "<cell ')
    assert "return 1 / 0" in traceback
    assert "skerry" not in traceback
    assert "IPython" not in traceback
    assert "\x1b" not in traceback
    assert len(ran.of("error")) == 1


def test_chained_and_grouped_errors(shared: Interpreter) -> None:
    chained = shared.run("try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e").error
    assert chained["name"] == "ValueError"
    assert "direct cause" in chained["traceback"]
    assert "KeyError: 'k'" in chained["traceback"]
    assert "sub-exception" in shared.run("raise ExceptionGroup('g', [ValueError(1)])").error["traceback"]


def test_errors_that_cannot_show_themselves(shared: Interpreter) -> None:
    ran = shared.run("class E(Exception):\n    def __str__(self): raise RuntimeError\nraise E")
    assert ran.error["name"] == "E"
    long = shared.run("raise ValueError('x' * 5_000_000)").error
    assert len(long["value"]) < 1_100_000
    assert "left out" in long["value"]
    assert shared.run("class R:\n    def __repr__(self): raise RuntimeError('no')\nR()").error["value"] == "no"


def test_syntax_errors(shared: Interpreter) -> None:
    ran = shared.run("x = (")
    assert ran.error["name"] == "SyntaxError"
    assert "never closed" in ran.error["value"]
    assert shared.run("if True:\nx").error["name"] == "IndentationError"
    assert shared.run("return 1").error["name"] == "SyntaxError"


def test_leaving_is_an_error_and_ends_nothing(shared: Interpreter) -> None:
    shared.run("mark = 1")
    for code in ("import sys; sys.exit(3)", "exit()", "quit()", "raise SystemExit"):
        ran = shared.run(code)
        assert ran.error["name"] == "SystemExit", code
        assert ran.stderr == ""
    assert shared.run("mark").text == "1"


def test_input_says_why_it_cannot_work(shared: Interpreter) -> None:
    assert "nobody can answer" in shared.run("input('? ')").error["value"]
    assert shared.run("import sys; sys.stdin.read()").text == "''"


def test_magics(shared: Interpreter) -> None:
    assert "Wall time" in shared.run("%time 1").stdout
    assert shared.run("%%bash\necho $((1+1))").stdout == "2\n"
    assert shared.run("%nonesuch").error["name"] == "UsageError"
    assert shared.run("%pip --version").stdout.startswith("pip ")


def test_commands_and_their_exit_codes(shared: Interpreter) -> None:
    ran = shared.run("print('first')\n!echo out; echo err >&2; exit 3")
    assert ran.stdout == "first\nout\n"
    assert ran.stderr == "err\n"
    assert shared.run("_exit_code").text == "3"
    shared.run("word = 'inter'")
    assert shared.run("!echo {word}polated").stdout == "interpolated\n"
    assert shared.run("lines = !printf 'a\\nb\\n'\nlines").text == "['a', 'b']"


def test_numbers_and_outputs_as_in_ipython(fresh: Interpreter) -> None:
    assert fresh.run("41").of("done")[0]["execution_count"] == 1
    assert fresh.run("_ + 1").text == "42"
    assert fresh.run("Out[1], _2, In[1]").text == "(41, 42, '41')"
    assert fresh.run("").of("done")[0]["execution_count"] == 4


def test_nothing_is_written_to_the_home_directory(fresh: Interpreter) -> None:
    fresh.run("1")
    assert fresh.run("import os; os.path.exists(os.path.expanduser('~/.ipython'))").text == "False"
