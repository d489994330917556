"""Parameters of the benchmark commands.

The defaults of datasets are the ``original`` preset: the distributions that the documentation of the original generator
(discslab-dl-bench/datagen) states.
"""

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, model_validator
from pydantic.dataclasses import dataclass

from scimill.config import REQUIRED, STRICT, File, Kind, Number, PowerOfTwo, Run, Switch, Whole, parameter

Workload = Literal["imseg", "bert", "dlrm"]
Format = Literal["npy", "tfrecord", "text", "npz", "bin", "parquet", "hdf5"]
AnyFormat = Annotated[Format, Kind("one of " + ", ".join(get_args(Format)), "FORMAT")]

FORMATS: dict[str, tuple[Format, ...]] = {
    "imseg": ("npy", "hdf5"),
    "bert": ("tfrecord", "hdf5"),
    "dlrm": ("bin", "npz", "text", "parquet", "npy", "hdf5"),
}
"""Formats of each workload, the usual one first."""

_UNITS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d*)?(?:e\+?\d{1,2})?)\s*([kmgtp]i?)?b?", re.IGNORECASE)


def _parse_size(value: object) -> object:
    """Read "10GiB", "1.5e9" or "30786160607"; GB are 10^9 bytes, GiB 2^30."""
    match = _SIZE.fullmatch(str(value).strip())
    if isinstance(value, bool) or not match:
        raise ValueError(f"{str(value)!r} is not a size")
    number, unit = match.group(1), (match.group(2) or "").lower()
    return int(number) * _UNITS[unit] if number.isdecimal() else round(float(number) * _UNITS[unit])


Size = Annotated[int, BeforeValidator(_parse_size), Kind("a size such as 10GiB, 500MB or 1.5e9", "SIZE")]
WholeRange = Annotated[
    tuple[Whole, Whole],
    BeforeValidator(lambda value: tuple(value.split(":")) if isinstance(value, str) else value),
    Kind("low:high, whole numbers", "LOW:HIGH"),
]
Share = Annotated[float, Kind("a share from 0 to 1", "SHARE")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WorkloadOptions:
    """The dataset."""

    workload: Workload = parameter(REQUIRED, "the trainer to make data for")
    format: AnyFormat | None = parameter(None, "file format; if not given, the usual one of the workload")
    fit: Literal["at-least", "at-most", "nearest"] = parameter(
        "at-least", "how the dataset may differ from the requested size; by less than one record"
    )

    @model_validator(mode="after")
    def _known_format(self) -> Self:
        if self.format is not None and self.format not in FORMATS[self.workload]:
            pairs = "; ".join(f"{workload}: {', '.join(formats)}" for workload, formats in FORMATS.items())
            raise ValueError(f"{self.workload} has no format {self.format} ({pairs})")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Images:
    """imseg volumes."""

    depth_range: WholeRange = parameter((128, 471), "slices per case", unit="voxels")
    width_range: WholeRange = parameter((186, 444), "edge length of the square slices", unit="voxels")
    case_sizes: Literal["uniform", "normal"] = parameter(
        "uniform",
        "uniform: depth and width are uniform; normal: bytes per case are normal, with case_mean and case_deviation",
    )
    case_mean: Size = parameter("146600628", "mean case size", unit="bytes", ge=2**24, le=2**40)
    case_deviation: Size = parameter("68341808", "standard deviation of the case size", unit="bytes", le=2**40)
    labels: Literal["random", "blobs"] = parameter(
        "random", "random: 0 or 1 per voxel; blobs: two ellipsoids (1) and a tumour (2), connected like real organs"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TokenSequences:
    """bert sequences."""

    instances_range: WholeRange = parameter((195_754, 260_461), "instances per file", unit="instances")
    sequences: Literal["random", "sentences"] = parameter(
        "random",
        "random: unrelated tokens; sentences: [CLS] A [SEP] B [SEP], some tokens frequent, masked as in BERT",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Clicks:
    """dlrm click logs."""

    rows_per_file: Whole = parameter(6_548_660, "rows per npz, npy or parquet file", ge=1, le=10**10)
    ids: Literal["uniform", "skewed"] = parameter(
        "uniform", "distribution of the features; skewed: values repeat, as in real data"
    )
    missing: Share = parameter(0.0, "share of missing features: empty in text, 0 in other formats", ge=0, le=0.99)
    binary_name: Literal["terabyte_processed", "preprocessed"] = parameter(
        "terabyte_processed", "name of the bin files; preprocessed writes one file, preprocessed.bin"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Evaluation:
    """Evaluation data."""

    evaluation_share: Share = parameter(
        0.02, "share of the data in the evaluation file, for bert and dlrm bin", gt=0, le=0.5
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WriteOptions:
    """Writing."""

    block_size: PowerOfTwo | None = parameter(
        None,
        "block size, the unit of work, writing and resuming; if not given: 4 MiB for files, 16 MiB for a store, and "
        "the input's for a scaled store",
        unit="bytes", ge=2**16, le=2**24,
    )  # fmt: skip
    direct: Switch = parameter(True, "bypass the page cache if the file system supports it", affects_data=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PlanConfig(WorkloadOptions, Images, TokenSequences, Clicks, Evaluation, WriteOptions, File, Run):
    """Parameters that determine the contents of a dataset."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, least in (("depth_range", 128), ("width_range", 128), ("instances_range", 1)):
            low, high = getattr(self, name)
            if not least <= low <= high <= 10**9:
                raise ValueError(f"{name} = {low}:{high} must be low:high with {least} <= low <= high")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BenchGenerateConfig(PlanConfig):
    """The dataset."""

    size: Size = parameter(REQUIRED, "size of the dataset; for hdf5, of its data", unit="bytes", ge=1, le=2**60)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Clients:
    """Client machines."""

    hosts: Whole = parameter(1, "number of client machines", ge=1, le=10**6, affects_data=False)
    memory: Size = parameter("0", "memory of one client machine", unit="bytes", affects_data=False)
    memory_factor: Number = parameter(
        5.0,
        "least size of the dataset, as a multiple of the memory of all clients",
        unit="times",
        ge=0,
        le=1000,
        affects_data=False,
    )
    accelerators: Whole = parameter(
        1, "number of accelerators on all client machines", ge=1, le=10**7, affects_data=False
    )
    batch_size: Whole = parameter(1, "samples per accelerator per step", ge=1, le=10**7, affects_data=False)
    steps: Whole = parameter(500, "least number of steps per epoch", ge=0, le=10**9, affects_data=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SizeConfig(Clients, PlanConfig):
    """The benchmark."""

    size: Size = parameter(
        "0", "least size of the dataset, in addition to the other rules", unit="bytes", le=2**60, affects_data=False
    )


def format_of(config: WorkloadOptions) -> Format:
    """Return the format that a configuration asks for, or the usual one of its workload."""
    return config.format or FORMATS[config.workload][0]


def block_size_of(config: "PlanConfig | ScaleConfig") -> int:
    """Return the bytes per block that a configuration asks for, or the default.

    A store holds its ledger in the same file, so a ledger write waits while another rank writes a block. Larger blocks
    make this rarer.
    """
    return config.block_size or (2**24 if format_of(config) == "hdf5" else 2**22)


# ---- similarity and traces --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TraceFilter:
    """Operations to keep."""

    only: str = parameter(
        "*", "keep only operations on files whose path matches this pattern, such as '/data/*'", min_length=1
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimilarityConfig(TraceFilter):
    """Comparison."""

    time_unit: Literal["ns", "us", "ms", "s"] = parameter("ns", "unit of the start and end times in a CSV trace")
    seed: Whole = parameter(1, "seed of the random places where datasets are sampled", ge=0, lt=2**63)
    time: Switch = parameter(True, "also compare gaps and durations, which depend on the speed of the disk")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TraceConfig(TraceFilter):
    """The trace."""


# ---- scaling ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScaleOptions(WorkloadOptions):
    """Scaling."""

    size: Size = parameter(REQUIRED, "size of the scaled dataset", ge=1, le=2**60)
    mode: Literal["perturb", "permute", "copy", "reflink"] = parameter(
        "perturb",
        "how to make repeated records; perturb: resample them from the same distribution; permute: reorder them; "
        "copy: copy them; reflink: clone files, which then share the input's blocks (imseg only)",
    )

    @model_validator(mode="after")
    def _whole_files(self) -> Self:
        if self.mode == "reflink" and self.workload != "imseg":
            raise ValueError("mode = reflink shares whole files, so it works for imseg only; use mode: copy")
        return self

    skip_damaged: Switch = parameter(False, "skip the damaged files of the input")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Perturbation:
    """Perturbed records."""

    noise: Share = parameter(0.005, "largest change of an intensity, as a share of the intensity range", ge=0, le=1)
    duplicates: Share = parameter(0.0, "share of the repeated pieces that are copied unchanged", ge=0, le=1)
    compressible: Share = parameter(0.0, "share of the values in repeated records that repeat other values", ge=0, le=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScaleConfig(ScaleOptions, Perturbation, WriteOptions, File, Run):
    """The scaled dataset."""
