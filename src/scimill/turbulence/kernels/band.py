"""Limit corrections to a band of wavenumbers, on slabs."""

import numpy as np
from numpy.typing import NDArray

from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.fourier import Library
from scimill.turbulence.kernels.slabs import Team
from scimill.turbulence.kernels.spectral import Spectral

Grid = NDArray[np.floating]


class Band:
    """Limits two fields on own rows to a band of wavenumbers and to the 2/3 cutoff.

    Parameters
    ----------
    physics, points : the box and its grid points along each side.
    band : smallest and largest wavenumber, inclusive, in units of 2π/box.
    team : the ranks that share the fields.
    library : what transforms.

    """

    def __init__(
        self, physics: FlowPhysics, points: int, band: tuple[float, float], team: Team, library: Library
    ) -> None:
        self._modes = Spectral(physics, points, np.dtype(np.float64), team, library)
        wavenumber = np.sqrt(self._modes.symbols.k2) / physics.wave_number(1)
        rounding = 1e-9  # the wavenumber is a quotient, and the ends of a band are often whole numbers
        self._outside = (wavenumber < band[0] - rounding) | (wavenumber > band[1] + rounding)

    def __call__(self, density: Grid, vorticity: Grid) -> tuple[Grid, Grid]:
        """Limit two fields of own rows; zeros give zeros. Collective."""
        self._modes.load(density, vorticity)
        self._modes.state[:, self._outside] = 0
        return self._modes.fields()
