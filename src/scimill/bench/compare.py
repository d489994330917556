"""Comparing two traces, or two data sets: read, compare, tell."""

from collections.abc import Mapping
from pathlib import Path

from scimill.bench.params import SimilarityConfig
from scimill.bench.similarity import Part, Trace, compare_traces, localities, overall
from scimill.bench.traces import read_trace
from scimill.files import check_directory

OUR_OWN = "scimill's own metric, see docs/bench.md"


def similarity(config: SimilarityConfig, a: Path, b: Path, picture: Path | None) -> str:
    """Compare A and B and draw them; return the table of the parts.

    Raises
    ------
    InputError : one of them is not there, damaged, or has nothing to compare.
    StorageError : the picture cannot be written.

    """
    if picture:
        check_directory(picture)
    traces = {str(path): read_trace(path, config.time_unit, config.only) for path in (a, b)}
    first, *others = traces.values()
    second = others[0] if others else first
    parts = compare_traces(first, second, config.time)
    if picture:
        from scimill.bench.trace_plots import plot_traces

        plot_traces((str(a), first), (str(b), second), parts, picture)
    return table(parts, _told(first), _told(second))


def table(parts: Mapping[str, Part], *sides: str) -> str:
    """The similarity, its parts, and what was compared, as text."""
    rows = [f"similarity {overall(list(parts.values())):.4f}  ({OUR_OWN})"]
    rows += [f"  {name:<10}{_value(part)}" for name, part in parts.items()]
    return "\n".join([*rows, *(f"  {side}: {text}" for side, text in zip("AB", sides, strict=False))])


def _value(part: Part) -> str:
    """A part's value, and those that it is made of where they are several."""
    if part.value is None:
        return "not told by both"
    several = ", ".join(f"{name} {value:.4f}" for name, value in part.details.items())
    return f"{part.value:.4f}" + (f"  {several}" if len(part.details) > 1 else "")


def _told(trace: Trace) -> str:
    """What a trace holds, in one line."""
    seconds = (trace.end.max() - trace.start.min()) / 1e9
    counts = ", ".join(f"{count:,} {name}" for name, count in trace.counts().items())
    total = sum(localities(trace).values())
    begun = ", ".join(f"{count / total:.1%} {name}" for name, count in localities(trace).items()) if total else ""
    return f"{counts} in {seconds:.4g} s" + (f"; {begun}" if begun else "")
