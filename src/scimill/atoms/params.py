"""Parameters of the atoms commands."""

from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from scimill.config import REQUIRED, STRICT, Hints, Number, Run, Switch, Whole, Widths, parameter
from scimill.training.params import TrainingConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InputFiles:
    """Input."""

    files: tuple[str, ...] = parameter(
        REQUIRED, "structure files: .xyz, .extxyz, .db, .json, .h5, .npz, or folders of .npy", min_length=1
    )
    properties: Hints = parameter(
        {}, "columns and units of the properties in the files: source=column:unit, e.g. dft_energy=energy:Hartree"
    )
    test_fraction: Number = parameter(0.0, "share of the structures to hold out permanently as test data", ge=0, le=1)
    nan_labels: Literal["refuse", "missing"] = parameter("refuse", "how to treat NaN in a label")
    duplicates: Literal["keep", "skip", "refuse"] = parameter(
        "keep", "what to do with a geometry that is already in the database, to 1e-4 Å"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AddConfig(InputFiles, Run):
    """Structures."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AtomsImportConfig(InputFiles, Run):
    """Import."""

    piece_size: Whole = parameter(4096, "structures that a rank reads at once", affects_data=False, ge=1, le=2**20)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReduceConfig:
    """Reduction."""

    fraction: Number = parameter(0.1, "share of the structures to train on first", ge=0, le=1)
    number: Whole | None = parameter(None, "number of structures to train on first, instead of a share", ge=0)
    seed: Whole = parameter(1, "seed of the random draw", ge=0, lt=2**63)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SelectionConfig:
    """Selection."""

    reduction: str | None = parameter(None, "reduction that selects the structures; all except test data if not given")
    iteration: Whole | None = parameter(None, "iteration of the reduction; the newest if not given", ge=0)
    select: Literal["train", "unused", "anomalous", "test", "all"] = parameter("train", "which structures to use")
    use_uncompressed_data: Switch = parameter(False, "also use uncompressed structures; they count as unused")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CacheConfig(SelectionConfig):
    """Caches."""

    train_fraction: Number = parameter(0.8, "share of the structures that each member trains on", ge=0, le=1)
    valid_fraction: Number = parameter(0.1, "share of the structures that each member validates on", ge=0, le=1)
    n_caches: Whole = parameter(8, "members of the ensemble", ge=1, le=4096)
    format: Literal["h5", "npz", "npy", "json", "extxyz", "ase-db", "index"] = parameter(
        "h5", "file format: h5 for ALF, npz or npy for hippynn, index for row numbers only"
    )
    seed: Whole = parameter(1, "seed of the order of the structures", ge=0, lt=2**63)

    @model_validator(mode="after")
    def _fractions_fit(self) -> Self:
        if self.train_fraction + self.valid_fraction > 1 + 1e-12:
            raise ValueError("train_fraction and valid_fraction add up to more than 1")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ExportConfig(SelectionConfig):
    """Export."""

    format: Literal["h5", "npz", "npy", "json", "extxyz", "ase-db"] = parameter("extxyz", "file format")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig(Run):
    """Evaluation."""

    calculator: str = parameter(
        "emt", "ASE calculator by name (emt) or import path (tblite.ase:TBLite); separate several with commas"
    )
    arguments: Hints = parameter({}, "its arguments, e.g. method=GFN2-xTB; numbers are recognised")
    ensemble: str | None = parameter(
        None,
        "run of `scimill atoms train` to use instead of a calculator; its members form the committee",
    )
    select: Literal["unused", "test", "train", "anomalous", "all"] = parameter("unused", "which structures to evaluate")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class UpdateConfig:
    """Update."""

    fraction: Number = parameter(0.1, "share of the evaluated, not excluded structures to add", gt=0, le=1)
    procedure: Literal["highest", "random", "farthest", "stratified"] = parameter(
        "highest", "highest scores, random ones above the threshold, the most different, or the highest of each formula"
    )
    score: Literal["energy", "force", "deviation"] = parameter(
        "energy", "error of the energy per atom, largest error of a force, or largest force deviation in the committee"
    )
    exclude_high_error: str | None = parameter(
        None, "score above which structures are anomalous: a number, percentile:99 or mad:8"
    )
    threshold: Number | None = parameter(
        None, "lowest score for procedure random; the 75th percentile if not given", unit="eV or eV/Å", ge=0
    )
    exclude_failed: Switch = parameter(False, "also mark structures on which the calculator failed as anomalous")
    seed: Whole = parameter(1, "seed of procedure random", ge=0, lt=2**63)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AtomsTrainConfig(TrainingConfig):
    """Potential."""

    reduction: str | None = parameter(None, "reduction to train on; all structures except test data if not given")
    iteration: Whole | None = parameter(None, "iteration of the reduction; the newest if not given", ge=0)
    caches: str | None = parameter(
        None, "folder of `cache --format index`: member m trains and validates on its sets, instead of on shares"
    )
    members: Whole = parameter(4, "networks in the ensemble", ge=1, le=1000)
    cutoff: Number = parameter(5.0, "distance within which atoms are neighbours", unit="Å", gt=1.6, le=20)
    radial: Whole = parameter(24, "Gaussians of the distance, per element of the neighbour", ge=2, le=256)
    hidden: Widths = parameter((32, 32), "neurons in each hidden layer")
    energy_scale: Number = parameter(0.01, "error of the energy per atom that counts as 1 in the loss", unit="eV", gt=0)
    force_scale: Number = parameter(0.1, "error of a force that counts as 1 in the loss", unit="eV/Å", gt=0)
    block_size: Whole = parameter(4, "structures per block, the unit of shuffling and loading", ge=1, le=4096)
    batch_size: Whole = parameter(8, "structures per step, over all ranks", ge=1, le=2**31)
    epochs: Whole = parameter(60, "passes over the training blocks", ge=1, le=10**6)
    warmup_steps: Whole = parameter(20, "steps over which the learning rate rises from 0", ge=0, le=10**9)
    validation_share: Number = parameter(
        0.1, "share of the structures that a member validates on after each epoch; differs by member", ge=0, lt=1
    )
    test_share: Number = parameter(0.0, "share of the structures that a member never sees", ge=0, lt=1)
    window: Whole = parameter(64, "blocks held in memory and shuffled together; at least one per rank", ge=1)
    threads: Whole | None = parameter(
        1, "threads per rank; a network this small is fastest with one", affects_data=False, ge=1, le=1024
    )
