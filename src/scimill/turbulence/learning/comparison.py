"""Results of a comparison of runs: the measurements of each run from each start."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from scimill.turbulence.kernels.resemblance import Agreement, horizon
from scimill.turbulence.learning.network import CorrectionNetworkSpec

Numbers = NDArray[np.float64]
UNCORRECTED, CORRECTED, FINER = RUNS = ("uncorrected", "corrected", "finer")
DIVERGED = Agreement(np.nan, np.nan, np.nan)


@dataclasses.dataclass(frozen=True)
class Start:
    """The snapshot from which all runs start."""

    member: int
    snapshot: int


@dataclasses.dataclass
class TrackedRun:
    """A run from one start: its agreement with the truth at each snapshot, and the CPU time it took."""

    agreements: list[Agreement]
    cpu: float


@dataclasses.dataclass
class RunAverages:
    """Flux over time and mean spectrum of the vorticity, of a run or the truth."""

    flux: list[float]
    spectrum: Numbers


@dataclasses.dataclass
class Comparison:
    """All measurements of a comparison."""

    spec: CorrectionNetworkSpec
    points: dict[str, int]
    """points along each side, by run"""
    times: Numbers
    starts: list[Start]
    followed: dict[str, list[TrackedRun]]
    """by run, for each start"""
    averaged: dict[str, list[RunAverages]]
    """by run and of the truth, for each member; empty if no statistics were requested"""
    interval: float
    threshold: float
    truth_points: int
    truth_cost: float

    def cost(self, run: str) -> float:
        """Return CPU seconds per unit of time."""
        runs = self.followed[run]
        return sum(each.cpu for each in runs) / (len(runs) * float(self.times[-1]))

    def measures(self, run: str) -> Numbers:
        """Return the agreement with the truth over time, shape (starts, times, 3)."""
        return np.array([each.agreements for each in self.followed[run]])

    def horizons(self, run: str) -> Numbers:
        """Return the horizon from each start."""
        return np.array([horizon(self.times, each[:, 2], self.threshold) for each in self.measures(run)])

    def mean_flux(self, run: str) -> float:
        """Return the flux averaged over time and members."""
        return float(np.mean([each.flux for each in self.averaged[run]])) if self.averaged else np.nan
