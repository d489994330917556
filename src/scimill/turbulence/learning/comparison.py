"""Results of a comparison of runs: what was measured of each run, from each start."""

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
    """Where the errors of all runs are followed from."""

    member: int
    snapshot: int


@dataclasses.dataclass
class TrackedRun:
    """A run from a start: how agreements it is to the truth at its snapshots, and the CPU time that it took."""

    agreements: list[Agreement]
    cpu: float


@dataclasses.dataclass
class RunAverages:
    """A run's, or the truth's, flux along time and mean spectrum of the vorticity."""

    flux: list[float]
    spectrum: Numbers


@dataclasses.dataclass
class Comparison:
    """All that was measured."""

    spec: CorrectionNetworkSpec
    points: dict[str, int]
    """of each run's grid"""
    times: Numbers
    starts: list[Start]
    followed: dict[str, list[TrackedRun]]
    """of each run, from each start"""
    averaged: dict[str, list[RunAverages]]
    """of the truth and each run, of each member; empty where no statistics were asked for"""
    interval: float
    threshold: float
    truth_points: int
    truth_cost: float

    def cost(self, run: str) -> float:
        """CPU seconds per unit of time."""
        runs = self.followed[run]
        return sum(each.cpu for each in runs) / (len(runs) * float(self.times[-1]))

    def measures(self, run: str) -> Numbers:
        """Agreement along time, shape (starts, times, 3)."""
        return np.array([each.agreements for each in self.followed[run]])

    def horizons(self, run: str) -> Numbers:
        """Horizon from each start."""
        return np.array([horizon(self.times, each[:, 2], self.threshold) for each in self.measures(run)])

    def mean_flux(self, run: str) -> float:
        """Flux, averaged over time and members."""
        return float(np.mean([each.flux for each in self.averaged[run]])) if self.averaged else np.nan
