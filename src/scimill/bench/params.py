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
"""Formats of each workload; the first one is its usual one."""

_UNITS = {
    "": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50,
}  # fmt: skip
_SIZE = re.compile(r"(\d+(?:\.\d*)?(?:e\+?\d{1,2})?)\s*([kmgtp]i?)?b?", re.IGNORECASE)


def _bytes(value: object) -> object:
    """Read "10GiB", "1.5e9" or "30786160607"; GB are 10^9 bytes, GiB 2^30."""
    match = _SIZE.fullmatch(str(value).strip())
    if isinstance(value, bool) or not match:
        raise ValueError(f"{str(value)!r} is not a size")
    number, unit = match.group(1), (match.group(2) or "").lower()
    return int(number) * _UNITS[unit] if number.isdecimal() else round(float(number) * _UNITS[unit])


Size = Annotated[int, BeforeValidator(_bytes), Kind("a size such as 10GiB, 500MB or 1.5e9", "SIZE")]
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
    format: AnyFormat | None = parameter(None, "format of the files; the usual one of the workload if not given")
    fit: Literal["at-least", "at-most", "nearest"] = parameter(
        "at-least", "which side of the size to end on; the difference is less than a record"
    )

    @model_validator(mode="after")
    def _known_format(self) -> Self:
        if self.format is not None and self.format not in FORMATS[self.workload]:
            pairs = "; ".join(f"{workload}: {', '.join(formats)}" for workload, formats in FORMATS.items())
            raise ValueError(f"{self.workload} has no format {self.format} ({pairs})")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Images:
    """Volumes of imseg."""

    depth_range: WholeRange = parameter((128, 471), "slices of a case", unit="voxels")
    width_range: WholeRange = parameter((186, 444), "rows and columns of a slice, which is square", unit="voxels")
    case_sizes: Literal["uniform", "normal"] = parameter(
        "uniform", "uniform: of depth and width; normal: of the bytes of a case, by case_mean and case_deviation"
    )
    case_mean: Size = parameter("146600628", "mean size of a case", unit="bytes", ge=2**24, le=2**40)
    case_deviation: Size = parameter("68341808", "standard deviation of the size of a case", unit="bytes", le=2**40)
    labels: Literal["random", "blobs"] = parameter(
        "random", "random: 0 or 1 per voxel; blobs: two ellipsoids (1) and a tumour (2), as connected as real ones"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TokenSequences:
    """Sequences of bert."""

    instances_range: WholeRange = parameter((195_754, 260_461), "instances per file", unit="instances")
    sequences: Literal["random", "sentences"] = parameter(
        "random", "random: tokens without order; sentences: [CLS] A [SEP] B [SEP], frequent tokens, masked as in BERT"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Clicks:
    """Clicks of dlrm."""

    rows_per_file: Whole = parameter(6_548_660, "rows per file of npz, npy and parquet", ge=1, le=10**10)
    ids: Literal["uniform", "skewed"] = parameter(
        "uniform", "distribution of the features; skewed: they repeat, as real ones do"
    )
    missing: Share = parameter(0.0, "share of missing features: empty in text, 0 in all other formats", ge=0, le=0.99)
    binary_name: Literal["terabyte_processed", "preprocessed"] = parameter(
        "terabyte_processed", "name of the bin files; preprocessed is one file preprocessed.bin without companions"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Evaluation:
    """Evaluation data."""

    evaluation_share: Share = parameter(0.02, "share of the evaluation file of bert and of dlrm bin", gt=0, le=0.5)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Writing:
    """Writing."""

    block_size: PowerOfTwo | None = parameter(
        None,
        "bytes per block, the unit of work, writing and resuming; 4 MiB if not given, in a store 16 MiB; in a scaled "
        "store as in its input",
        unit="bytes", ge=2**16, le=2**24,
    )  # fmt: skip
    direct: Switch = parameter(
        True, "write past the page cache where the file system takes it; false: through it", affects_data=False
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PlanConfig(WorkloadOptions, Images, TokenSequences, Clicks, Evaluation, Writing, File, Run):
    """What decides what a dataset of a size holds."""

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

    size: Size = parameter(
        REQUIRED, "size of the dataset, of its data where the format is hdf5", unit="bytes", ge=1, le=2**60
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Clients:
    """The machines that read."""

    hosts: Whole = parameter(1, "client machines", ge=1, le=10**6, affects_data=False)
    memory: Size = parameter("0", "memory of one client machine", unit="bytes", affects_data=False)
    memory_factor: Number = parameter(
        5.0,
        "how many times the memory of all clients the data must have",
        unit="times",
        ge=0,
        le=1000,
        affects_data=False,
    )
    accelerators: Whole = parameter(1, "accelerators of all client machines", ge=1, le=10**7, affects_data=False)
    batch_size: Whole = parameter(1, "samples per accelerator and step", ge=1, le=10**7, affects_data=False)
    steps: Whole = parameter(500, "steps that an epoch must have", ge=0, le=10**9, affects_data=False)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SizeConfig(Clients, PlanConfig):
    """The benchmark."""

    size: Size = parameter(
        "0", "size that the dataset must have at least, beside the rules", unit="bytes", le=2**60, affects_data=False
    )


def format_of(config: WorkloadOptions) -> Format:
    """The format that a configuration asks for, or the usual one of its workload."""
    return config.format or FORMATS[config.workload][0]


def block_size_of(config: "PlanConfig | ScaleConfig") -> int:
    """Bytes per block that a configuration asks for, or the usual ones.

    The ledger of a store is in the file itself, where writing to it waits for the data of a block that another rank is
    writing; with larger blocks it does so less often.
    """
    return config.block_size or (2**24 if format_of(config) == "hdf5" else 2**22)


# ---- similarity and traces --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Operations:
    """Operations."""

    only: str = parameter(
        "*", "keep operations on files whose path matches this pattern, such as '/data/*'", min_length=1
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimilarityConfig(Operations):
    """Comparison."""

    time_unit: Literal["ns", "us", "ms", "s"] = parameter("ns", "unit of start and end in a CSV trace")
    seed: Whole = parameter(1, "seed of the random places at which datasets are sampled", ge=0, lt=2**63)
    time: Switch = parameter(True, "compare gaps and durations too; without them a faster disk makes no difference")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TraceConfig(Operations):
    """The trace."""


# ---- scaling ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Scaling(WorkloadOptions):
    """Scaling."""

    size: Size = parameter(REQUIRED, "size of the scaled dataset", ge=1, le=2**60)
    mode: Literal["perturb", "permute", "copy", "reflink"] = parameter(
        "perturb",
        "repeated records are, perturb: resampled from the same distribution; permute: reordered; copy: unchanged; "
        "reflink: files that share the input's blocks (imseg only)",
    )

    @model_validator(mode="after")
    def _whole_files(self) -> Self:
        if self.mode == "reflink" and self.workload != "imseg":
            raise ValueError("mode = reflink shares whole files, which are records of imseg only; mode: copy")
        return self

    skip_damaged: Switch = parameter(False, "use the sound files of an input that has defects")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Perturbing:
    """Perturbed records."""

    noise: Share = parameter(0.005, "largest change of an intensity, as a share of their range", ge=0, le=1)
    duplicates: Share = parameter(0.0, "share of the repeated pieces that are copied unchanged", ge=0, le=1)
    compressible: Share = parameter(0.0, "share of the values in repeated records that repeat others", ge=0, le=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScaleConfig(Scaling, Perturbing, Writing, File, Run):
    """The scaled dataset."""
