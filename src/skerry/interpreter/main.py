"""Entry: `python3 -u /opt/skerry/interpreter/main.py [--warm | --kernel LANGUAGE]`.

The files beside this one become the package `skerry_interpreter`, so that none of their names can be imported, or
hidden, by the code that runs here.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import site
import sys
from pathlib import Path

_PACKAGE = "skerry_interpreter"


def _load() -> None:
    directory = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        _PACKAGE, directory / "__init__.py", submodule_search_locations=[str(directory)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[_PACKAGE] = package
    spec.loader.exec_module(package)


def _open_user_site() -> None:
    """`%pip install` puts packages there when the user is not root: Python looks only where there was a directory.
    Programs that come with them are found too."""
    directory = site.getusersitepackages()
    if os.geteuid() != 0 and directory not in sys.path:
        with contextlib.suppress(OSError):
            os.makedirs(directory, exist_ok=True)
            site.addsitedir(directory)
    programs = os.path.join(site.getuserbase(), "bin")
    path = os.environ.get("PATH", os.defpath)
    if os.geteuid() != 0 and programs not in path.split(os.pathsep):
        os.environ["PATH"] = programs + os.pathsep + path


if __name__ == "__main__":
    sys.path[0] = ""  # as in an interactive Python: imports look in the working directory
    arguments, sys.argv = sys.argv[1:], [""]
    _open_user_site()
    _load()
    if arguments[:1] == ["--kernel"]:
        importlib.import_module(f"{_PACKAGE}.kernels").main(arguments[1])
    else:
        importlib.import_module(f"{_PACKAGE}.loop").main(warm_up="--warm" in arguments)
