"""What a suite found, and how it is shown: Markdown tables and JSON. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.stats import Summary, summarize


@dataclass(frozen=True, slots=True)
class Measurement:
    """Samples of one thing. Times are in seconds and shown in milliseconds; other units are shown as they are."""

    name: str
    samples: Sequence[float]
    unit: str = "s"
    note: str = ""

    @property
    def summary(self) -> Summary:
        return summarize(self.samples)


@dataclass(frozen=True, slots=True)
class Ratio:
    """A subject's median by its baseline's. `limit` is the promise: at most that, or (`at_least`) no less."""

    name: str
    subject: Measurement
    baseline: Measurement
    limit: float | None = None
    at_least: bool = False

    @property
    def value(self) -> float:
        return self.subject.summary.median / self.baseline.summary.median

    @property
    def met(self) -> bool | None:
        """Whether the promise holds; None when there is none."""
        if self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True, slots=True)
class Check:
    """A promise that is not a ratio."""

    name: str
    value: str
    limit: str
    met: bool


@dataclass(slots=True)
class SuiteResult:
    """Everything one suite found. `failures` are what makes the run exit with an error."""

    name: str
    title: str
    measurements: list[Measurement] = field(default_factory=list[Measurement])
    ratios: list[Ratio] = field(default_factory=list[Ratio])
    checks: list[Check] = field(default_factory=list[Check])
    facts: dict[str, str] = field(default_factory=dict[str, str])
    failures: list[str] = field(default_factory=list[str])
    seconds: float = 0.0

    def measure(self, name: str, samples: Sequence[float], unit: str = "s", note: str = "") -> Measurement | None:
        """Add a measurement; without samples it is a failure instead, and None."""
        if not samples:
            self.failures.append(f"no samples of: {name}")
            return None
        made = Measurement(name, samples, unit, note)
        self.measurements.append(made)
        return made

    def compare(
        self,
        name: str,
        subject: Measurement | None,
        baseline: Measurement | None,
        limit: float | None = None,
        *,
        at_least: bool = False,
    ) -> None:
        """Add a ratio, unless one of its sides was not measured."""
        if subject is not None and baseline is not None:
            self.ratios.append(Ratio(name, subject, baseline, limit, at_least))


def shown(value: float, unit: str) -> str:
    """A number with three significant digits or so, seconds as milliseconds."""
    if unit == "s":
        value, unit = value * 1000, "ms"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}".rstrip()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table; the first column is text, the others are numbers."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (header, rule, *rows)]


def _verdict(met: bool | None) -> str:
    return "" if met is None else "yes" if met else "**no**"


def _measurement_row(measurement: Measurement) -> list[str]:
    summary, unit = measurement.summary, measurement.unit
    name = f"{measurement.name} ({measurement.note})" if measurement.note else measurement.name
    return [name, str(summary.count), *(shown(value, unit) for value in (summary.median, summary.p95, summary.p99))]


def _ratio_row(ratio: Ratio) -> list[str]:
    sign = "≥" if ratio.at_least else "≤"
    limit = "" if ratio.limit is None else f"{sign} {ratio.limit:g}"
    return [ratio.name, f"{ratio.value:.3f}", limit, _verdict(ratio.met)]


def markdown(result: SuiteResult) -> str:
    """One suite as Markdown: what was promised first, then all that was measured."""
    lines = [f"### {result.title}", ""]
    promises = [_ratio_row(ratio) for ratio in result.ratios]
    promises += [[check.name, check.value, check.limit, _verdict(check.met)] for check in result.checks]
    if promises:
        lines += [*table(("compared", "value", "promised", "met"), promises), ""]
    if result.measurements:
        rows = [_measurement_row(measurement) for measurement in result.measurements]
        lines += [*table(("measured", "n", "median", "p95", "p99"), rows), ""]
    if result.facts:
        lines += [*table(("also", "value"), list(result.facts.items())), ""]
    lines += [f"- **failed:** {failure}" for failure in result.failures]
    lines += [""] if result.failures else []
    return "\n".join(lines)


def as_json(result: SuiteResult) -> dict[str, Any]:
    """One suite for programs: every sample, in the unit named beside it."""
    return {
        "name": result.name,
        "seconds": result.seconds,
        "measurements": [
            {"name": m.name, "unit": m.unit, "note": m.note, "summary": asdict(m.summary), "samples": list(m.samples)}
            for m in result.measurements
        ],
        "ratios": [
            {
                "name": ratio.name,
                "subject": ratio.subject.name,
                "baseline": ratio.baseline.name,
                "value": ratio.value,
                "limit": ratio.limit,
                "at_least": ratio.at_least,
                "met": ratio.met,
            }
            for ratio in result.ratios
        ],
        "checks": [asdict(check) for check in result.checks],
        "facts": result.facts,
        "failures": result.failures,
    }


def replace_between(text: str, name: str, content: str) -> str:
    """`text` with what stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->` replaced.

    Raises:
        ValueError: the markers are not there, once each and in order.
    """
    opening, closing = f"<!-- bench:{name} -->", f"<!-- /bench:{name} -->"
    head, found, rest = text.partition(opening)
    _, ended, tail = rest.partition(closing)
    if not found or not ended:
        raise ValueError(f"cannot place the tables of {name}: no pair of markers {opening} … {closing}")
    return f"{head}{opening}\n\n{content.strip()}\n\n{closing}{tail}"
