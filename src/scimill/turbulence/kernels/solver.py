"""The solver: advances a state in time with either scheme, on any number of ranks."""

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scimill.turbulence.kernels import diagnostics
from scimill.turbulence.kernels.arakawa import Arakawa
from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.fourier import Choice, choose_library
from scimill.turbulence.kernels.slabs import SingleRankTeam, Team
from scimill.turbulence.kernels.spectral import Spectral
from scimill.turbulence.kernels.stepping import StepControl

Grid = NDArray[np.floating]

SCHEMES: dict[str, type[Spectral | Arakawa]] = {"spectral": Spectral, "arakawa": Arakawa}
RK4_REACH = 2.78  # RK4 is stable for λh down to −2.78 on the real axis and up to ±2.83 on the imaginary axis
STABILITY = {"spectral": RK4_REACH * 3 / (2 * math.pi), "arakawa": RK4_REACH}
"""Courant number (|u| + |v|) · step / spacing above which RK4 is unstable. The largest wavenumber is 2π/3 per spacing
with the 2/3 cutoff, and 1 for a central difference."""


class DivergenceError(ArithmeticError):
    """A step gave NaN or infinite values, or would be too long to be stable.

    Attributes
    ----------
    step, time : number of steps taken, and the time reached.

    """

    def __init__(self, what: str, step: int, time: float) -> None:
        super().__init__(f"{what} after step {step}, at time {time:.6g}")
        self.step, self.time = step, time


class FlowSolver:
    """Advances a state of density and vorticity in time.

    Parameters
    ----------
    physics : parameters of the equations and the size of the box.
    points : grid points along each side, even.
    scheme : "spectral" or "arakawa".
    precision : "float64" or "float32".
    team : the ranks that share the fields, such as `parallel.world.World`; None for this rank alone.
    courant, longest_step : limits of the steps that `advance` chooses.
    fft : library of Fourier transforms, see `choose_library`.

    Attributes
    ----------
    library : the one that was chosen.
    time : time of the state.
    steps : number of steps taken.
    rows : first row (x) of the slab of this rank, and one past the last.

    """

    def __init__(
        self,
        physics: FlowPhysics,
        points: int,
        scheme: Literal["spectral", "arakawa"] = "spectral",
        precision: Literal["float64", "float32"] = "float64",
        team: Team | None = None,
        *,
        courant: float = 0.7,
        longest_step: float = math.inf,
        fft: Choice = "auto",
    ) -> None:
        self.physics, self.points = physics, points
        self._team: Team = team or SingleRankTeam()
        self.library = choose_library(fft)
        self._scheme = SCHEMES[scheme](physics, points, np.dtype(precision), self._team, self.library)
        self._limit, self._courant, self._longest = STABILITY[scheme], courant, longest_step
        self._stiffness = self._scheme.stiffness()
        self.rows = self._scheme.slabs.rows
        self.time, self.steps, self.last_step = 0.0, 0, 0.0

    def load(self, density: Grid, vorticity: Grid, time: float = 0.0) -> None:
        """Load density and vorticity on own rows, each of shape (own rows, points). Collective.

        The spectral scheme drops modes above the 2/3 cutoff.
        """
        self._scheme.load(density, vorticity)
        self.time, self.last_step = time, 0.0

    def fields(self) -> tuple[Grid, Grid]:
        """Return density and vorticity on own rows, each of shape (own rows, points). Collective."""
        return self._scheme.fields()

    def potential(self) -> Grid:
        """Return the potential on own rows, shape (own rows, points), with box mean 0. Collective."""
        return self._scheme.potential()

    def speed(self) -> float:
        """Return the largest |u| + |v| of the whole field, in grid spacings per unit time. Collective.

        Raises
        ------
        DivergenceError : the state has NaN or infinite values.
        """
        local = self._scheme.speed()
        if not math.isfinite(local):
            raise DivergenceError("NaN or infinite values", self.steps, self.time)
        fastest: float = max(self._team.gather_all(local))
        return fastest

    def diagnose(self) -> diagnostics.Means:
        """Return box means of the state: fluxes, energies, dissipation, budgets. Collective."""
        scheme = self._scheme
        return diagnostics.box_means(self.physics, scheme.symbols, scheme.modes(), scheme.rate(), self._team)

    def spectra(self) -> NDArray[np.float64]:
        """Return spectra of the state by shell, shape (4, points/2); see `diagnostics.SPECTRA`. Collective."""
        scheme = self._scheme
        return diagnostics.spectra(self.physics, scheme.symbols, scheme.modes(), self.points // 2, self._team)

    def step(self, length: float) -> None:
        """Take one step of RK4 without checking its length. Collective."""
        self._scheme.step(length)
        self.time += length
        self.steps += 1
        self.last_step = length

    def advance(self, duration: float, step: float | None = None) -> None:
        """Advance by a duration in steps of equal length that end exactly there. Collective.

        Parameters
        ----------
        duration : time to advance.
        step : longest step, whatever the flow; chosen by the Courant number if None.

        Raises
        ------
        DivergenceError : the state has NaN or infinite values, or the given step is too long to be stable.
        """
        end = self.time + duration
        longest = min(self._longest, 0.9 * RK4_REACH / self._stiffness) if self._stiffness else self._longest
        control = StepControl(duration, step, self._courant, longest, self._limit)
        done = duration <= 0
        while not done:
            speed = self.speed()
            length = control.next(speed)
            self._check(length, speed)
            self.step(length)
            done = control.count_step()
        self.time = end

    def _check(self, length: float, speed: float) -> None:
        """Refuse a step that is too long for RK4 to be stable."""
        limits = self._stable(speed)
        if length > min(limits):
            cause = "the flow allows" if limits[0] < limits[1] else "the linear terms allow"
            what = f"a step of {length:.4g} is too long ({cause} at most {min(limits):.4g})"
            raise DivergenceError(what, self.steps, self.time)

    def _stable(self, speed: float) -> tuple[float, float]:
        """Return the longest steps for which RK4 is stable, with the flow and with the linear terms."""
        by_flow = self._limit / speed if speed else math.inf
        return by_flow, RK4_REACH / self._stiffness if self._stiffness else math.inf

    def longest_stable_step(self) -> float:
        """Return the longest step for which RK4 is stable from this state; infinite if nothing limits it. Collective.

        Raises
        ------
        DivergenceError : the state has NaN or infinite values.
        """
        return min(self._stable(self.speed()))

    def add(self, density: Grid, vorticity: Grid) -> None:
        """Add increments on own rows to the state; zero increments change no bit of it. Collective."""
        self._scheme.add(density, vorticity)


def potential(vorticity: Grid, box: float) -> Grid:
    """Return the potential of a whole field of vorticity (…, points, points): ∇²φ = ω, box mean 0."""
    points = vorticity.shape[-1]
    k = np.fft.fftfreq(points, box / points / (2 * np.pi))
    k2 = k[:, None] ** 2 + np.abs(k[: points // 2 + 1]) ** 2
    k2[0, 0] = 1
    modes = np.fft.rfft2(vorticity.astype(np.float64)) / -k2
    modes[..., 0, 0] = 0
    return np.fft.irfft2(modes, vorticity.shape[-2:]).astype(vorticity.dtype)
