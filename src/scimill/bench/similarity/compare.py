"""Comparing two traces or two datasets: read both, compare them, describe the result."""

from collections.abc import Mapping
from pathlib import Path

from scimill.bench import CAMPAIGN
from scimill.bench.kernels.similarity import SimilarityPart, Trace, compare_traces, localities, overall_similarity
from scimill.bench.params import SimilarityConfig
from scimill.bench.similarity.contents import Redundancy, compare_data, measure_redundancy
from scimill.bench.similarity.samples import DatasetSample, is_store, list_files, take_sample
from scimill.bench.traces.formats import is_trace, read_trace
from scimill.errors import InputError
from scimill.files import check_picture
from scimill.parallel.report import human
from scimill.parallel.streams import campaign_stream

MOST_DETAILS = 8  # a part with more details shows only its value
METRIC_NOTE = "scimill's own metric, see docs/bench.md"


def describe_similarity(config: SimilarityConfig, a: Path, b: Path, picture: Path | None) -> str:
    """Compare A and B, draw them if asked, and describe the parts of their similarity.

    Raises
    ------
    InputError : one of them is missing, damaged, or has nothing to compare.
    ConfigError : the picture's name does not end in .png.
    StorageError : the picture cannot be written.

    """
    if picture:
        check_picture(picture, "--plot")
    if not (is_trace(a) and is_trace(b)):
        return _describe_data_similarity(config, a, b, picture)
    traces = {str(path): read_trace(path, config.time_unit, config.only) for path in (a, b)}
    first, *others = traces.values()
    second = others[0] if others else first
    parts = compare_traces(first, second, config.time)
    if picture:
        from scimill.bench.pictures.trace_plots import plot_traces

        plot_traces((str(a), first), (str(b), second), parts, picture)
    return describe_parts(parts, _describe_trace(first), _describe_trace(second))


def _describe_data_similarity(config: SimilarityConfig, a: Path, b: Path, picture: Path | None) -> str:
    """Compare two datasets; see `describe_similarity`."""
    for path in (a, b):
        if not path.exists():
            raise InputError("no such file", where=str(path))
    for path, other in ((a, b), (b, a)):
        if is_store(path) or not path.is_file():
            continue
        if other.is_dir() or is_store(other):
            raise InputError("a trace and a dataset cannot be compared", where=f"{path} and {other}")
        read_trace(path, config.time_unit, config.only)  # raises an error that says why it is not a trace
    seen = [sample_dataset(config, path) for path in (a, b)]
    parts = compare_data(*seen)
    if picture:
        from scimill.bench.pictures.data_plots import plot_pair

        plot_pair((a.name, seen[0][0]), (b.name, seen[1][0]), parts, picture)
    return describe_parts(parts, *(_describe_sample(*one) for one in seen))


def sample_dataset(config: SimilarityConfig, folder: Path) -> tuple[DatasetSample, Redundancy]:
    """Sample a dataset at random places, which are the same in every call."""
    files = list_files(folder)
    random = campaign_stream(config.seed, CAMPAIGN.number)
    return take_sample(files, random, str(folder)), measure_redundancy(files, random)


def _describe_sample(sample: DatasetSample, redundancy: Redundancy) -> str:
    """Describe a dataset in one line."""
    kinds = ", ".join(f"{len(sizes):,} {kind}" for kind, sizes in sample.sizes.items())
    size = sum(int(sizes.sum()) for sizes in sample.sizes.values())
    return (
        f"{sample.form}, {human(size)} ({kinds}); compressed by zlib to {redundancy.compressed:.1%}, "
        f"{redundancy.duplicates:.1%} duplicate blocks"
    )


def describe_parts(parts: Mapping[str, SimilarityPart], *sides: str) -> str:
    """Describe the similarity, its parts, and what was compared."""
    rows = [f"similarity {overall_similarity(list(parts.values())):.4f}  ({METRIC_NOTE})"]
    rows += [f"  {name:<12}{_describe_part(part)}" for name, part in parts.items()]
    return "\n".join([*rows, *(f"  {side}: {text}" for side, text in zip("AB", sides, strict=False))])


def _describe_part(part: SimilarityPart) -> str:
    """Describe a part: its value, and its details if there are several."""
    if part.value is None:
        return "not compared"
    several = ", ".join(f"{name} {value:.4f}" for name, value in part.details.items())
    return f"{part.value:.4f}" + (f"  {several}" if 1 < len(part.details) <= MOST_DETAILS else "")


def _describe_trace(trace: Trace) -> str:
    """Describe a trace in one line."""
    seconds = (trace.end.max() - trace.start.min()) / 1e9
    counts = ", ".join(f"{count:,} {name}" for name, count in trace.counts().items())
    total = sum(localities(trace).values())
    places = ", ".join(f"{count / total:.1%} {name}" for name, count in localities(trace).items()) if total else ""
    return f"{counts} in {seconds:.4g} s" + (f"; transfers: {places}" if places else "")
