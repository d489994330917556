"""Parameters of the turbulence commands.

The defaults are hw2d's standard case on a grid fine enough for the spectral scheme; the presets are published set-ups.
Lengths are in ρs and times in Ln/cs, the units of drift waves.
"""

import math
from typing import Any, Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from scimill.config import REQUIRED, STRICT, File, Number, Run, Switch, Whole, Widths, parameter
from scimill.training.params import TrainingConfig
from scimill.turbulence.kernels.fourier import Choice


def fft_choice() -> Any:
    """Declare the library of Fourier transforms. What is stored is the one that was used."""
    return parameter("auto", "library of Fourier transforms; auto: fftw, which is faster, or scipy without pyfftw")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Flow:
    """Equations."""

    alpha: Number = parameter(1.0, "adiabaticity: how strongly density and potential are coupled", ge=0, le=1e4)
    kappa: Number = parameter(1.0, "gradient of the background density", ge=-1e4, le=1e4)
    density_diffusion: Number = parameter(0.0, "diffusion of density", unit="ρs² cs/Ln", ge=0)
    vorticity_diffusion: Number = parameter(0.0, "diffusion of vorticity", unit="ρs² cs/Ln", ge=0)
    hyperviscosity: Number = parameter(
        0.0, "coefficient ν of (−1)^(N+1) ν∇^(2N), on both fields", unit="ρs^(2N) cs/Ln", ge=0
    )
    order: Whole = parameter(1, "order N of the hyperviscosity", ge=1, le=8)
    modified: Switch = parameter(False, "exclude the zonal average from the coupling (modified Hasegawa–Wakatani)")
    box: Number = parameter(2 * math.pi / 0.15, "side of the periodic square box", unit="ρs", gt=0, le=1e6)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Numerics:
    """Numerics."""

    points: Whole = parameter(256, "grid points along each side, even", ge=16, le=65536)
    scheme: Literal["spectral", "arakawa"] = parameter(
        "spectral", "spectral, dealiased by the 2/3 rule, or Arakawa's second-order scheme"
    )
    precision: Literal["float64", "float32"] = parameter("float64", "precision of arithmetic and stored fields")
    step: Number | None = parameter(None, "longest time step; follows from the Courant number if not given",
                                    unit="Ln/cs", gt=0)  # fmt: skip
    courant: Number = parameter(1.0, "Courant number (|u| + |v|) · step / spacing, if step is not given", gt=0, le=2)
    longest_step: Number | None = parameter(None, "longest time step if step is not given", unit="Ln/cs", gt=0)
    fft: Choice = fft_choice()

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.points % 2:
            raise ValueError(f"points must be even, got {self.points}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SnapshotSchedule:
    """Snapshots."""

    snapshots: Whole = parameter(REQUIRED, "snapshots per member, not counting the initial one", ge=1, le=10**7)
    interval: Number = parameter(1.0, "time between snapshots", unit="Ln/cs", gt=0, le=1e6)
    samples: Whole = parameter(1, "diagnostic samples per snapshot interval", ge=1, le=10**5)
    members: Whole = parameter(1, "runs from different initial states", ge=1, le=10**5)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class InitialState:
    """Initial state."""

    from_: str | None = parameter(
        None, "start from this store, BOUT++ restart or dump file, or hw2d file; from noise if not given"
    )
    snapshot: Whole = parameter(-1, "number of the snapshot in that file, counted from 0; -1 is the last", ge=-1)
    resample: Switch = parameter(False, "accept a store with another grid and keep its Fourier modes")
    amplitude: Number = parameter(0.01, "root mean square of the density of the noise", ge=0, le=1e3)
    noise_modes: Whole = parameter(16, "highest mode of the noise", ge=1, le=4096)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SimulateConfig(Flow, Numerics, SnapshotSchedule, InitialState, File, Run):
    """The simulation."""

    @model_validator(mode="after")
    def _resolved(self) -> Self:
        if self.from_ is None and 3 * self.noise_modes >= self.points:
            raise ValueError(f"noise_modes must be below a third of points ({self.points}), got {self.noise_modes}")
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
class FineRunSelection:
    """The fine run."""

    fine: str = parameter(REQUIRED, "store of a finished fine run", affects_data=False)
    start_time: Number = parameter(0.0, "ignore snapshots before this time", unit="Ln/cs")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CoarsenConfig(FineRunSelection, Coarsening, File, Run):
    """Coarse states."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CoarseStepConfig:
    """The coarse step."""

    steps: Whole = parameter(1, "snapshot intervals of the fine run per coarse step", ge=1, le=10**6)
    substeps: Whole | None = parameter(
        None, "equal Runge–Kutta steps per coarse step; the fewest that are stable if not given", ge=1, le=10**6
    )
    scheme: Literal["spectral", "arakawa"] = parameter("spectral", "scheme of the coarse step")
    fft: Choice = fft_choice()
    precision: Literal["float32", "float64"] = parameter(
        "float32", "precision of stored fields; arithmetic is in float64"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CorrectionsConfig(FineRunSelection, Coarsening, CoarseStepConfig, File, Run):
    """Corrections."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FineRunRecord:
    """The fine run."""

    points: Whole = parameter(REQUIRED, "points of the coarse grid along each side")
    fine_crc32c: Whole = parameter(REQUIRED, "CRC-32C of the block checksums of the fine store")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CoarsenRecord(Flow, CoarsenConfig, FineRunRecord):
    """Configuration stored with coarse states."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CorrectionsRecord(Flow, CorrectionsConfig, FineRunRecord):
    """Configuration stored with corrections, completed with what follows from the fine run."""

    duration: Number = parameter(REQUIRED, "length of a coarse step", unit="Ln/cs", gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CorrectionNetworkShape:
    """Network."""

    hidden: Widths = parameter((16, 16, 16), "channels of each hidden layer (3 x 3 convolutions)")
    activation: Literal["relu", "silu", "tanh", "gelu"] = parameter("relu", "activation of the hidden layers")
    lowest_mode: Number = parameter(16.0, "smallest wavenumber to correct", unit="2π/box", ge=0, le=1e6)
    highest_mode: Number | None = parameter(
        None,
        "largest wavenumber to correct; the largest that the dealiased grid resolves if not given",
        unit="2π/box",
        gt=0,
        le=1e6,
    )
    unroll: Whole = parameter(1, "coarse steps per training sample, with the solver run in between", ge=1, le=64)
    weights: str | None = parameter(None, "start from the weights of this run directory or model.pt")
    augment: Switch = parameter(True, "shift and reflect training samples at random")

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> Self:
        if self.highest_mode is not None and self.highest_mode < self.lowest_mode:
            raise ValueError(f"highest_mode {self.highest_mode:g} is below lowest_mode {self.lowest_mode:g}")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TurbulenceTrainConfig(CorrectionNetworkShape, TrainingConfig):
    """Samples and threads."""

    batch_size: Whole = parameter(8, "samples per step, over all ranks", ge=1, le=2**31)
    learning_rate: Number = parameter(4e-3, "largest learning rate, reached after the warm-up", gt=0, le=1e3)
    warmup_steps: Whole = parameter(50, "steps over which the learning rate rises from 0", ge=0, le=10**9)
    epochs: Whole = parameter(20, "passes over the training pairs", ge=1, le=10**6)
    window: Whole = parameter(256, "pairs that are shuffled together in memory; at least one per rank", ge=1)
    validation_share: Number = parameter(0.1, "share of the members held out for validation", ge=0, lt=1)
    threads: Whole | None = parameter(
        1, "threads per rank; a network this small is fastest with one", affects_data=False, ge=1, le=1024
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelReference:
    """Correction."""

    model: str = parameter(REQUIRED, "a run directory, a file written by turbulence export, or redis://host:port/key")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RolloutConfig(ModelReference, File, Run):
    """Rollout."""

    from_: str = parameter(REQUIRED, "store with the snapshot to start from, on the grid of the model")
    snapshot: Whole = parameter(-1, "number of the snapshot in that store, counted from 0; -1 is the last", ge=-1)
    snapshots: Whole = parameter(REQUIRED, "snapshots per member, not counting the initial one", ge=1, le=10**7)
    every: Whole = parameter(1, "coarse steps between snapshots", ge=1, le=10**6)
    coarse_step: Number | None = parameter(
        None, "length of a coarse step; must equal that of the model, which is used if not given", unit="Ln/cs", gt=0
    )
    precision: Literal["float64", "float32"] = parameter("float64", "precision of solver and stored fields")
    fft: Choice = fft_choice()


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RolloutRecord(SimulateConfig, ModelReference):
    """Configuration stored with a corrected run."""

    every: Whole = parameter(1, "coarse steps between snapshots", ge=1, le=10**6)
    coarse_step: Number = parameter(REQUIRED, "length of a coarse step; a correction follows each", unit="Ln/cs", gt=0)
    model_identity: str = parameter(REQUIRED, "SHA-256 of the model")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CompareConfig(ModelReference):
    """Comparison."""

    starts: Whole = parameter(8, "number of snapshots of the truth to start from, evenly spaced", ge=1, le=10_000)
    duration: Number = parameter(5.2, "time over which to measure errors from each start", unit="Ln/cs", gt=0)
    statistics: Number = parameter(
        0.0, "time over which to average fluxes and spectra, from the first snapshot of each member", unit="Ln/cs", ge=0
    )
    correlation: Number = parameter(0.98, "vorticity correlation at which the horizon ends", gt=0, lt=1)
