"""Parameters of the atoms commands."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from scimill.config import REQUIRED, STRICT, Hints, Number, Run, Switch, Whole, Widths, parameter
from scimill.training.params import TrainingConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Files:
    """What comes in."""

    files: tuple[str, ...] = parameter(
        REQUIRED, "files of structures: .xyz, .extxyz, .db, .json, .h5, .npz, folders of .npy", min_length=1
    )
    properties: Hints = parameter(
        {}, "names and units of the files' properties: source=column:unit, such as dft_energy=energy:Hartree"
    )
    test_fraction: Number = parameter(0.0, "share of the structures that is held out as test data for good", ge=0, le=1)
    nan_labels: Literal["refuse", "missing"] = parameter("refuse", "what NaN in a label is")
    duplicates: Literal["keep", "skip", "refuse"] = parameter(
        "keep", "what is done with a geometry that is there already, to 1e-4 Å"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AddConfig(Files, Run):
    """Structures."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AtomsImportConfig(Files, Run):
    """Imported structures."""

    piece_size: Whole = parameter(4096, "structures that a rank reads at a time", affects_data=False, ge=1, le=2**20)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReduceConfig:
    """The reduction."""

    fraction: Number = parameter(0.1, "share of the structures that is trained on first", ge=0, le=1)
    number: Whole | None = parameter(None, "number of them, in place of a share", ge=0)
    seed: Whole = parameter(1, "seed of the draw", ge=0, lt=2**63)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Choice:
    """Which structures."""

    reduction: str | None = parameter(None, "reduction that selects them; all that are no test data if not given")
    iteration: Whole | None = parameter(None, "its iteration, the newest if not given", ge=0)
    select: Literal["train", "unused", "anomalous", "test", "all"] = parameter("train", "which of its structures")
    use_uncompressed_data: Switch = parameter(False, "take uncompressed structures too; they count as unused")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CacheConfig(Choice):
    """The caches."""

    train_fraction: Number = parameter(0.8, "share of the structures that a member trains on", ge=0, le=1)
    valid_fraction: Number = parameter(0.1, "share that it validates on", ge=0, le=1)
    n_caches: Whole = parameter(8, "members of the ensemble", ge=1, le=4096)
    format: Literal["h5", "npz", "npy", "json", "extxyz", "ase-db", "index"] = parameter(
        "h5", "files: h5 as ALF's, npz and npy as hippynn's, index: rows of the database only"
    )
    seed: Whole = parameter(1, "seed of their order", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.train_fraction + self.valid_fraction > 1 + 1e-12:
            raise ValueError("train_fraction and valid_fraction add to more than 1")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExportConfig(Choice):
    """The exported set."""

    format: Literal["h5", "npz", "npy", "json", "extxyz", "ase-db"] = parameter("extxyz", "kind of the file")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig(Run):
    """Evaluation."""

    calculator: str = parameter(
        "emt", "ASE's calculator by name (emt, lj, …) or import path (tblite.ase:TBLite); several: a committee"
    )
    arguments: Hints = parameter({}, "its arguments, such as method=GFN2-xTB; texts that look like numbers are numbers")
    ensemble: str | None = parameter(
        None,
        "run of `scimill atoms train`: its members are the committee, many structures at once, and no calculator is",
    )
    select: Literal["unused", "test", "train", "anomalous", "all"] = parameter("unused", "which structures")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UpdateConfig:
    """The next iteration."""

    fraction: Number = parameter(0.1, "share of the evaluated, not excluded structures that is added", gt=0, le=1)
    procedure: Literal["highest", "random", "farthest", "stratified"] = parameter(
        "highest", "which: of the highest scores, random above the threshold, most different, highest of each formula"
    )
    score: Literal["energy", "force", "deviation"] = parameter(
        "energy", "error of the energy per atom, largest error of a force, or the committee's largest deviation of one"
    )
    exclude_high_error: str | None = parameter(
        None, "score above which a structure is anomalous: a number, percentile:99 or mad:8"
    )
    threshold: Number | None = parameter(
        None, "least score for random; the 75th percentile if not given", unit="eV or eV/Å", ge=0
    )
    exclude_failed: Switch = parameter(False, "structures with which the calculator failed are anomalous")
    seed: Whole = parameter(1, "seed of random", ge=0, lt=2**63)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AtomsTrainConfig(TrainingConfig):
    """Potential."""

    reduction: str | None = parameter(None, "reduction to train on; all data except test data if not given")
    iteration: Whole | None = parameter(None, "its iteration, the newest if not given", ge=0)
    caches: str | None = parameter(
        None, "folder of `cache --format index`: member m trains and validates on its sets, in the place of the shares"
    )
    members: Whole = parameter(4, "networks of the ensemble", ge=1, le=1000)
    cutoff: Number = parameter(5.0, "distance up to which atoms see each other", unit="Å", gt=1.6, le=20)
    radial: Whole = parameter(24, "Gaussians of the distance per element", ge=2, le=256)
    hidden: Widths = parameter((32, 32), "neurons of each hidden layer")
    energy_scale: Number = parameter(0.01, "error of the energy per atom that counts as 1", unit="eV", gt=0)
    force_scale: Number = parameter(0.1, "error of a force that counts as 1", unit="eV/Å", gt=0)
    block_size: Whole = parameter(4, "structures per block: the unit of mixing and loading", ge=1, le=4096)
    batch_size: Whole = parameter(8, "structures per step, of all ranks together", ge=1, le=2**31)
    epochs: Whole = parameter(60, "passes over the training blocks", ge=1, le=10**6)
    warmup_steps: Whole = parameter(20, "steps over which the learning rate rises from 0", ge=0, le=10**9)
    validation_share: Number = parameter(
        0.1, "share of the structures that a member validates on after each epoch; each on another", ge=0, lt=1
    )
    test_share: Number = parameter(0.0, "share of the structures that a member never sees", ge=0, lt=1)
    window: Whole = parameter(64, "blocks whose samples are mixed and held in memory; at least one per rank", ge=1)
    threads: Whole | None = parameter(
        1, "threads per rank; so small a network is fastest with one", affects_data=False, ge=1, le=1024
    )
