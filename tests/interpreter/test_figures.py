from __future__ import annotations

from tests.interpreter.rig import Interpreter

PNG = "iVBORw0KGgo"


def test_a_figure_is_shown_without_being_asked_for(shared: Interpreter) -> None:
    ran = shared.run("import matplotlib.pyplot as plt\nplt.plot([1, 2])\nprint('drawn')")
    assert ran.stdout == "drawn\n"
    assert [data["image/png"][:11] for data in ran.shown] == [PNG]
    assert shared.run("plt.get_fignums()").text == "[]"


def test_show_shows_at_once_and_only_once(shared: Interpreter) -> None:
    ran = shared.run("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()\nprint('after')")
    assert ran.order[0] == "result"
    assert len(ran.shown) == 1
    assert ran.stderr == ""


def test_a_figure_as_value_is_shown_once(shared: Interpreter) -> None:
    ran = shared.run("import matplotlib.pyplot as plt\nfig, ax = plt.subplots()\nax.plot([1])\nfig")
    assert len(ran.shown) == 1
    assert ran.shown[0]["image/png"].startswith(PNG)


def test_several_figures_and_one_before_an_error(shared: Interpreter) -> None:
    ran = shared.run("import matplotlib.pyplot as plt\nfor n in (1, 2):\n    plt.figure()\n    plt.plot([n])\n1/0")
    assert len(ran.shown) == 2
    assert ran.error["name"] == "ZeroDivisionError"


def test_an_empty_figure_is_not_shown(shared: Interpreter) -> None:
    assert shared.run("import matplotlib.pyplot as plt\nf = plt.figure()").shown == []


def test_notebook_magics_for_figures(fresh: Interpreter) -> None:
    assert fresh.run("%matplotlib inline").order == ["done"]
    assert fresh.run("%config InlineBackend.figure_format = 'svg'").error is None
    ran = fresh.run("import matplotlib.pyplot as plt\nplt.plot([1]);")
    assert "<svg" in ran.shown[0]["image/svg+xml"]


def test_a_figure_that_cannot_be_drawn_is_an_error(shared: Interpreter) -> None:
    ran = shared.run("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.title('$\\\\nonesuch{$')")
    assert ran.error["name"] == "ValueError"
    assert shared.run("plt.get_fignums()").text == "[]"


def test_subprocesses_get_no_backend_of_ours(shared: Interpreter) -> None:
    ran = shared.run("!python3 -c 'import matplotlib.pyplot as p; print(p.get_backend())'")
    assert ran.stdout.strip().lower() == "agg"


def test_matplotlib_is_not_loaded_before_it_is_asked_for(fresh: Interpreter) -> None:
    assert fresh.run("import sys; 'matplotlib' in sys.modules").text == "False"
    ran = fresh.run("import matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()\nprint('after')")
    assert ran.order[0] == "result"
    assert ran.stderr == ""
    assert ran.shown[0]["image/png"].startswith(PNG)


def test_figures_and_tables_as_data_when_asked_for(fresh: Interpreter) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2], [3, 4])\nplt.title('T')\nplt.show()"
    assert "e2b/chart" not in fresh.run(code).shown[0]
    chart = fresh.run(code, structured=True).shown[0]["e2b/chart"]
    assert (chart["type"], chart["title"]) == ("line", "T")
    assert chart["elements"][0]["points"] == [[1, 3], [2, 4]]
    table = "import pandas as pd\npd.DataFrame({'a': [1, None], 'b': [pd.Timestamp(0), 'x']})"
    assert fresh.run(table, structured=True).shown[0]["e2b/data"] == {
        "a": [1.0, None],
        "b": ["1970-01-01T00:00:00", "x"],
    }
    assert "e2b/data" not in fresh.run("_").shown[0]
