"""Parameters of the turbulence commands.

The defaults are hw2d's standard case on a grid that the spectral scheme resolves it with; the presets are the published
set-ups. Lengths are in ρs and times in Ln/cs, the units of drift waves.
"""

import math
from typing import Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from scimill.config import REQUIRED, STRICT, File, Number, Run, Switch, Whole, Widths, parameter
from scimill.training.params import TrainingConfig


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Flow:
    """Equations."""

    alpha: Number = parameter(1.0, "adiabaticity, the strength of the coupling of density and potential", ge=0, le=1e4)
    kappa: Number = parameter(1.0, "gradient of the background density", ge=-1e4, le=1e4)
    density_diffusion: Number = parameter(0.0, "diffusion of density", unit="ρs² cs/Ln", ge=0)
    vorticity_diffusion: Number = parameter(0.0, "diffusion of vorticity", unit="ρs² cs/Ln", ge=0)
    hyperviscosity: Number = parameter(
        0.0, "coefficient ν of (−1)^(N+1) ν∇^(2N), on both fields", unit="ρs^(2N) cs/Ln", ge=0
    )
    order: Whole = parameter(1, "order N of the hyperviscosity", ge=1, le=8)
    modified: Switch = parameter(False, "leave the zonal average out of the coupling (modified Hasegawa–Wakatani)")
    box: Number = parameter(2 * math.pi / 0.15, "side of the periodic, square box", unit="ρs", gt=0, le=1e6)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Numerics:
    """Numerics."""

    points: Whole = parameter(256, "grid points along each side, even", ge=16, le=65536)
    scheme: Literal["spectral", "arakawa"] = parameter(
        "spectral", "spectral, dealiased by the 2/3 rule, or Arakawa's of second order"
    )
    precision: Literal["float64", "float32"] = parameter("float64", "arithmetic, and what is stored")
    step: Number | None = parameter(None, "fixed step, at most; chosen by the Courant number if not given",
                                    unit="Ln/cs", gt=0)  # fmt: skip
    courant: Number = parameter(1.0, "Courant number (|u| + |v|) · step / spacing of steps that are chosen", gt=0, le=2)
    longest_step: Number | None = parameter(None, "longest step that is chosen", unit="Ln/cs", gt=0)

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.points % 2:
            raise ValueError(f"points is {self.points}; it must be even")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SnapshotSchedule:
    """Snapshots."""

    snapshots: Whole = parameter(REQUIRED, "snapshots of each member after the initial one", ge=1, le=10**7)
    interval: Number = parameter(1.0, "time between snapshots", unit="Ln/cs", gt=0, le=1e6)
    samples: Whole = parameter(1, "diagnostics from one snapshot to the next", ge=1, le=10**5)
    members: Whole = parameter(1, "runs from different initial states", ge=1, le=10**5)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Beginning:
    """Initial state."""

    from_: str | None = parameter(
        None, "begin from a store, a BOUT++ restart or dump file, or a file of hw2d; from noise if not given"
    )
    snapshot: Whole = parameter(-1, "which snapshot of that file, from 0; -1 is the last", ge=-1)
    resample: Switch = parameter(False, "begin from a store's snapshot on another grid: its Fourier modes are kept")
    amplitude: Number = parameter(0.01, "root mean square of the noise's density", ge=0, le=1e3)
    noise_modes: Whole = parameter(16, "highest mode of the noise", ge=1, le=4096)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimulateConfig(Flow, Numerics, SnapshotSchedule, Beginning, File, Run):
    """The simulation."""

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        if self.from_ is None and 3 * self.noise_modes >= self.points:
            raise ValueError(f"noise_modes is {self.noise_modes}; three times it must be below points, {self.points}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Coarsening:
    """The coarse grid."""

    factor: Whole = parameter(4, "fine cells per coarse cell, in each direction", ge=1, le=1024)
    coarsening: Literal["spectral", "mean", "sample"] = parameter(
        "spectral",
        "keep the modes that the coarse grid resolves, average over its cells, or take every factor-th point",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Fine:
    """The fine run."""

    fine: str = parameter(REQUIRED, "store of the fine run", affects_data=False)
    start_time: Number = parameter(0.0, "leave out the snapshots before this time", unit="Ln/cs")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CoarsenConfig(Fine, Coarsening, File, Run):
    """Coarse states."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CoarseStepConfig:
    """The coarse step."""

    steps: Whole = parameter(1, "intervals between the fine run's snapshots per coarse step", ge=1, le=10**6)
    substeps: Whole | None = parameter(
        None, "equal Runge–Kutta steps that make a coarse step; as few as are stable if not given", ge=1, le=10**6
    )
    scheme: Literal["spectral", "arakawa"] = parameter("spectral", "scheme of the coarse step")
    precision: Literal["float32", "float64"] = parameter("float32", "type of what is stored; computed in float64")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CorrectionsConfig(Fine, Coarsening, CoarseStepConfig, File, Run):
    """Corrections."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FineRunRecord:
    """Of the fine run's store."""

    points: Whole = parameter(REQUIRED, "points of the coarse grid along each side")
    fine_crc32c: Whole = parameter(REQUIRED, "CRC-32C of the checksums of the fine store's blocks")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CoarsenRecord(Flow, CoarsenConfig, FineRunRecord):
    """What a store of coarse states keeps of its making."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CorrectionsRecord(Flow, CorrectionsConfig, FineRunRecord):
    """What a store of corrections keeps of its making: the configuration with all that followed from the fine run."""

    duration: Number = parameter(REQUIRED, "time of a coarse step", unit="Ln/cs", gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CorrectionNetworkShape:
    """Network."""

    hidden: Widths = parameter((16, 16, 16), "channels of each hidden layer of 3 x 3 convolutions")
    activation: Literal["relu", "silu", "tanh", "gelu"] = parameter("relu", "activation of the hidden layers")
    lowest_mode: Number = parameter(16.0, "least wavenumber that is corrected", unit="2π/box", ge=0, le=1e6)
    highest_mode: Number | None = parameter(
        None,
        "greatest wavenumber that is corrected; all that the dealiased grid resolves if not given",
        unit="2π/box",
        gt=0,
        le=1e6,
    )
    unroll: Whole = parameter(1, "coarse steps that a sample goes on for, with the solver between them", ge=1, le=64)
    weights: str | None = parameter(None, "begin with the weights of this run, or model.pt")
    augment: Switch = parameter(True, "shift and reflect training samples at random")

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> Self:
        if self.highest_mode is not None and self.highest_mode < self.lowest_mode:
            raise ValueError(f"highest_mode {self.highest_mode:g} is below lowest_mode {self.lowest_mode:g}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TurbulenceTrainConfig(CorrectionNetworkShape, TrainingConfig):
    """Samples and threads."""

    batch_size: Whole = parameter(8, "samples per step, of all ranks together", ge=1, le=2**31)
    learning_rate: Number = parameter(4e-3, "largest learning rate, after the warm-up", gt=0, le=1e3)
    warmup_steps: Whole = parameter(50, "steps over which the learning rate rises from 0", ge=0, le=10**9)
    epochs: Whole = parameter(20, "passes over the training pairs", ge=1, le=10**6)
    window: Whole = parameter(256, "pairs that are mixed and held in memory; at least one per rank", ge=1)
    validation_share: Number = parameter(0.1, "share of the members for validation after each epoch", ge=0, lt=1)
    threads: Whole | None = parameter(
        1, "threads per rank; so small a network is fastest with one", affects_data=False, ge=1, le=1024
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Correcting:
    """Correction."""

    model: str = parameter(REQUIRED, "a run, a file of turbulence export, or redis://host:port/key")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RolloutConfig(Correcting, File, Run):
    """Rollout."""

    from_: str = parameter(REQUIRED, "the store whose snapshot to begin from, on the model's grid")
    snapshot: Whole = parameter(-1, "which snapshot of that store, from 0; -1 is the last", ge=-1)
    snapshots: Whole = parameter(REQUIRED, "snapshots of each member after the initial one", ge=1, le=10**7)
    every: Whole = parameter(1, "coarse steps from one snapshot to the next", ge=1, le=10**6)
    coarse_step: Number | None = parameter(
        None, "time of a coarse step; it must be the model's, which is taken if not given", unit="Ln/cs", gt=0
    )
    precision: Literal["float64", "float32"] = parameter("float64", "arithmetic of the solver, and what is stored")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RolloutRecord(SimulateConfig, Correcting):
    """What the store of a corrected run says that it was made by."""

    every: Whole = parameter(1, "coarse steps from one snapshot to the next", ge=1, le=10**6)
    coarse_step: Number = parameter(
        REQUIRED, "time of a coarse step, after each of which there is a correction", unit="Ln/cs", gt=0
    )
    model_identity: str = parameter(REQUIRED, "SHA-256 of the model")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CompareConfig(Correcting):
    """Comparison."""

    starts: Whole = parameter(8, "snapshots of the truth to begin from, evenly spaced over it", ge=1, le=10_000)
    duration: Number = parameter(5.2, "how long after each start the errors are followed", unit="Ln/cs", gt=0)
    statistics: Number = parameter(
        0.0, "how long after the first start of each member fluxes and spectra are averaged", unit="Ln/cs", ge=0
    )
    correlation: Number = parameter(0.98, "correlation of the vorticity at which the horizon ends", gt=0, lt=1)
