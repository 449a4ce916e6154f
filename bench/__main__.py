"""`python -m bench [suite…] [--quick] [--thousand] [--results FILE] [--docs]`: measure, print tables, write every
sample as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import anyio

from bench import churn, computesdk, density, e2b_client, images, machine, report, start, state, work
from bench.report import SuiteResult
from bench.settings import Settings, base_rootfs

SUITES: dict[str, Callable[[Settings], Awaitable[SuiteResult]]] = {
    "start": start.run,
    "computesdk": computesdk.run,
    "work": work.run,
    "density": density.run,
    "churn": churn.run,
    "e2b": e2b_client.run,
    "images": images.run,
    "state": state.run,
}
DOCS = Path(__file__).parent.parent / "docs" / "explanation" / "performance.md"
RESULTS = Path("build/bench.json")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"some of {', '.join(SUITES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few samples of everything, to see that it runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"where the JSON goes (default: {RESULTS})")
    parser.add_argument("--thousand", action="store_true", help="1,000 sandboxes at rest in `state`, not 100")
    parser.add_argument("--docs", action="store_true", help=f"also put the tables into {DOCS.name}")
    parsed = parser.parse_args(argv)
    if unknown := set(parsed.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    return parsed


async def measure(name: str, settings: Settings) -> SuiteResult:
    """One suite; if it breaks off, a result that says so, so that the others still run."""
    begun = time.monotonic()
    try:
        result = await SUITES[name](settings)
    except Exception as error:
        traceback.print_exc()
        result = SuiteResult(name, name, failures=[f"{type(error).__name__}: {error}"])
    result.seconds = time.monotonic() - begun
    return result


async def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    before, results = machine.look(), list[SuiteResult]()
    with tempfile.TemporaryDirectory(prefix="skerry-bench-") as scratch:
        settings = Settings(options.quick, base_rootfs(), Path(scratch), options.thousand)
        for name in options.suites or SUITES:
            print(f"measuring: {name} …", file=sys.stderr, flush=True)
            results.append(await measure(name, settings))
            print(report.markdown(results[-1]), flush=True)
    after = machine.look()
    print(machine.markdown(before, after))
    options.results.parent.mkdir(parents=True, exist_ok=True)
    everything = {
        "quick": options.quick,
        "before": asdict(before),
        "after": asdict(after),
        "suites": [report.as_json(result) for result in results],
    }
    options.results.write_text(json.dumps(everything, indent=1) + "\n")
    if options.docs:
        update_docs(results, machine.markdown(before, after))
    return 1 if any(result.failures for result in results) else 0


def update_docs(results: Sequence[SuiteResult], about: str) -> None:
    """Put the tables between their markers in the performance page."""
    text = DOCS.read_text()
    for result in results:
        text = report.replace_between(text, result.name, f"{report.markdown(result)}\n{about}")
    DOCS.write_text(text)


if __name__ == "__main__":
    sys.exit(anyio.run(main, sys.argv[1:], backend_options={"use_uvloop": True}))
