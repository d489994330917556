"""A band of wavenumbers, on slabs: what of a correction lies in it."""

import numpy as np
from numpy.typing import NDArray

from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.slabs import Team
from scimill.turbulence.kernels.spectral import Spectral

Grid = NDArray[np.floating]


class Band:
    """The part of two fields on own rows whose wavenumbers lie in a band and that the dealiased grid resolves.

    Parameters
    ----------
    physics, points : the box and its grid points along each side.
    band : least and greatest wavenumber, in units of 2π/box, ends included.
    team : the ranks that share the fields.

    """

    def __init__(self, physics: FlowPhysics, points: int, band: tuple[float, float], team: Team) -> None:
        self._modes = Spectral(physics, points, np.dtype(np.float64), team)
        wavenumber = np.sqrt(self._modes.symbols.k2) / physics.wave_number(1)
        rounding = 1e-9  # of the wavenumber, a quotient; a band's ends are often whole numbers
        self._outside = (wavenumber < band[0] - rounding) | (wavenumber > band[1] + rounding)

    def __call__(self, density: Grid, vorticity: Grid) -> tuple[Grid, Grid]:
        """Limit two fields of own rows; of zeros it gives zeros. Collective."""
        self._modes.load(density, vorticity)
        self._modes.state[:, self._outside] = 0
        return self._modes.fields()
