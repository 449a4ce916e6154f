"""A child's side: one JSON line in is one call, one JSON line out its result. The standard library only, for it runs in
interpreters that have nothing else of ours."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Action = Callable[..., Any]


def serve(actions: Mapping[str, Action]) -> None:
    """Answer until standard input ends. What an action prints goes to standard error, apart from the answers."""
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        call = json.loads(line)
        try:
            answer = {"result": actions[call["do"]](**call["with"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def expect(found: object, wanted: object) -> None:
    """Raises RuntimeError: a wrong answer that came fast is worth nothing."""
    if found != wanted:
        raise RuntimeError(f"expected {wanted!r}, and it is {found!r}")


def length(chunks: Iterable[bytes]) -> int:
    """Of all of them together; they are thrown away."""
    return sum(map(len, chunks))
