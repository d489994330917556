"""The second-order scheme: Arakawa's bracket, central differences, an exact Poisson equation.

One pass over the grid computes the rates of both fields and their next stage. Source: Arakawa, J. Comput. Phys. 1
(1966) 119, equation 46 (J1 + J2 + J3)/3, which conserves energy and enstrophy.
"""

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scimill.turbulence.kernels.equations import FlowPhysics, damping, difference_symbols
from scimill.turbulence.kernels.fourier import Library
from scimill.turbulence.kernels.slabs import Exchange, Slabs, Team

Grid = NDArray[np.floating]
Modes = NDArray[np.complexfloating]


class Arakawa:
    """Arakawa's scheme on one rank's slab.

    Parameters
    ----------
    physics, points : the equations and the grid points along each side.
    dtype : float64 or float32.
    team : the ranks that share the fields.
    library : what transforms.

    Attributes
    ----------
    slabs : rows and columns of the rank.
    symbols : symbols of the derivatives at its modes.

    """

    def __init__(self, physics: FlowPhysics, points: int, dtype: np.dtype[Any], team: Team, library: Library) -> None:
        self.physics, self.points, self.dtype, self.team = physics, points, dtype, team
        self.slabs = Slabs(points, points // 2 + 1, team)
        mx = np.fft.fftfreq(points, 1 / points)
        my = np.arange(*self.slabs.columns)
        k0, self._spacing = physics.wave_number(1), physics.box / points
        self.symbols = difference_symbols(k0 * mx[None, :], k0 * my[:, None], self._spacing)
        with np.errstate(divide="ignore"):
            inverse = np.where(self.symbols.k2 > 0, -1 / self.symbols.k2, 0)
        self._poisson = (inverse / points**2).astype(dtype)
        self._exchange = Exchange(self.slabs, 1, np.result_type(dtype, np.complex64), library)
        shape = (2, self.slabs.height + 2, points + 2)  # one extra row and column on each side
        self._state, self._one, self._two, self._total = (np.zeros(shape, dtype) for _ in range(4))
        self._phi, self._hyper = (
            np.zeros(shape[1:], dtype),
            np.zeros(shape if self._is_hyperviscous else (2, 1, 1), dtype),
        )
        self._mean = 0.0
        self._speed: float | None = None

    @property
    def _is_hyperviscous(self) -> bool:
        return self.physics.order > 1 and self.physics.hyperviscosity > 0

    # ---- to and from the grid ---------------------------------------------------------------------------------

    def load(self, density: Grid, vorticity: Grid) -> None:
        """Load the fields of own rows. Collective."""
        self._state[0, 1:-1, 1:-1], self._state[1, 1:-1, 1:-1] = density, vorticity
        means = np.concatenate(self.team.gather_all(density.mean(axis=1, dtype=np.float64)))
        self._mean = 0.0 if self.physics.modified else float(means.mean())
        self.invalidate()

    def add(self, density: Grid, vorticity: Grid) -> None:
        """Add increments of own rows. Collective."""
        own = self.fields()
        self.load(own[0] + density, own[1] + vorticity)

    def invalidate(self) -> None:
        """Refresh the borders and discard cached values after the state has changed. Collective."""
        for field in self._state:
            self._wrap(field)
        self._speed = None

    def fields(self) -> tuple[Grid, Grid]:
        """Return density and vorticity of own rows, shape (rows, points)."""
        density, vorticity = np.ascontiguousarray(self._state[:, 1:-1, 1:-1])
        return density, vorticity

    def potential(self) -> Grid:
        """Return the potential of own rows, shape (rows, points). Collective."""
        self.speed()
        return np.ascontiguousarray(self._phi[1:-1, 1:-1])

    def _wrap(self, field: Grid) -> None:
        """Fill the border of a field from the other side of the box. Collective."""
        field[:, 0], field[:, -1] = field[:, -2], field[:, 1]
        self.team.pass_around(field[-2], field[0], 1)
        self.team.pass_around(field[1], field[-1], -1)

    def _solve(self, vorticity: Grid) -> None:
        """Compute the potential from a vorticity with borders. Collective."""
        exchange = self._exchange
        for batch in self.slabs.row_batches:
            rows = slice(batch.start + 1, batch.stop + 1)
            exchange.grid[: batch.stop - batch.start, : self.points] = vorticity[rows, 1:-1]
            exchange.rows_out(batch)
        exchange.to_columns()
        for batch in self.slabs.column_batches:
            exchange.columns_in(batch)
            _invert(exchange.columns, self._poisson[batch.start : batch.stop])
            exchange.columns_out(batch)
        exchange.to_rows()
        for batch in self.slabs.row_batches:
            values = exchange.rows_in(batch)
            self._phi[batch.start + 1 : batch.stop + 1, 1:-1] = values[: batch.stop - batch.start, : self.points]
        self._wrap(self._phi)

    def modes(self) -> Modes:
        """Return own modes of density and vorticity, shape (2, own ky, kx). Collective."""
        return np.array([self._modes_of(field) for field in self._state])

    def _modes_of(self, field: Grid) -> Modes:
        exchange = self._exchange
        modes = np.empty((self.slabs.width, self.points), exchange.columns.dtype)
        for batch in self.slabs.row_batches:
            exchange.grid[: batch.stop - batch.start, : self.points] = field[batch.start + 1 : batch.stop + 1, 1:-1]
            exchange.rows_out(batch)
        exchange.to_columns()
        for batch in self.slabs.column_batches:
            exchange.columns_in(batch)
            modes[batch.start : batch.stop] = exchange.columns[: batch.stop - batch.start, : self.points]
        modes *= self.dtype.type(self.points**-2.0)
        return modes

    def stiffness(self) -> float:
        """Return the largest rate of the linear part, which limits a stable step."""
        p, lowest = self.physics, self.physics.wave_number(1)
        return float(p.alpha * (1 + lowest**-2) + max(damping(p, 8 / self._spacing**2)))

    # ---- rates and steps --------------------------------------------------------------------------------------

    def speed(self) -> float:
        """Return the largest |u| + |v| of own rows, in grid spacings per unit time. Collective."""
        if self._speed is None:
            self._solve(self._state[1])
            fastest = float(_fastest(self._phi)) / (2 * self._spacing**2)
            is_number = self.slabs.height == 0 or math.isfinite(self._phi[1, 1] + self._state[0, 1, 1])
            self._speed = fastest if is_number else math.nan
        return self._speed

    def rate(self) -> Modes:
        """Return own modes of the rates of change of density and vorticity, shape (2, own ky, kx). Collective."""
        self.speed()
        zero = np.zeros_like(self._state)
        self._stage(self._state, zero, zero, self._one, self._two, 1.0, 0.0)
        return np.array([self._modes_of(field) for field in self._one])

    def step(self, length: float) -> None:
        """Take one step. Collective."""
        self.speed()
        h, state, one, two, total = length, self._state, self._one, self._two, self._total
        self._stage(state, state, state, one, total, h / 2, h / 6)
        self._prepare_stage(one)
        self._stage(one, state, total, two, total, h / 2, h / 3)
        self._prepare_stage(two)
        self._stage(two, state, total, one, total, h, h / 3)
        self._prepare_stage(one)
        self._stage(one, total, total, two, state, 0.0, h / 6)
        self.invalidate()

    def _prepare_stage(self, stage: Grid) -> None:
        for field in stage:
            self._wrap(field)
        self._solve(stage[1])

    def _stage(self, at: Grid, base: Grid, sums: Grid, out: Grid, total: Grid, part: float, share: float) -> None:
        """Set out = base + part · rate and total = sums + share · rate, with the rate of `at` and its potential."""
        p, kind = self.physics, self.dtype.type
        if self._is_hyperviscous:
            self._apply_hyperviscosity(at)
        laplacian = p.hyperviscosity if p.order == 1 else 0.0
        d = (
            kind((diffusion + laplacian) / self._spacing**2)
            for diffusion in (p.density_diffusion, p.vorticity_diffusion)
        )
        numbers = (p.alpha, self._mean, p.kappa / (2 * self._spacing), 1 / (12 * self._spacing**2), part, share)
        _advance(self._phi, at, base, sums, out, total, self._hyper, p.modified, *d, *(kind(x) for x in numbers))

    def _apply_hyperviscosity(self, at: Grid) -> None:
        """Compute the hyperviscous rate by repeated Laplacians. Collective."""
        p = self.physics
        for field, target in zip(at, self._hyper, strict=True):
            source = field
            for _ in range(p.order):
                made = np.empty_like(target)
                _laplacian(source, made, self.dtype.type(-1 / self._spacing**2))
                self._wrap(made)
                source = made
            target[:] = -self.dtype.type(p.hyperviscosity) * source


@numba.njit(cache=True)
def _invert(columns, poisson):  # type: ignore[no-untyped-def]
    for b in range(poisson.shape[0]):
        for j in range(poisson.shape[1]):
            columns[b, j] *= poisson[b, j]


@numba.njit(cache=True)
def _laplacian(field, out, scale):  # type: ignore[no-untyped-def]
    """Set out = scale · (sum of the four neighbours − 4 · the point)."""
    four = field.dtype.type(4)
    for i in range(1, field.shape[0] - 1):
        for j in range(1, field.shape[1] - 1):
            around = field[i + 1, j] + field[i - 1, j] + field[i, j + 1] + field[i, j - 1]
            out[i, j] = scale * (around - four * field[i, j])


@numba.njit(cache=True, fastmath={"nnan", "nsz"})
def _fastest(phi):  # type: ignore[no-untyped-def]
    """Return the largest |Δx φ| + |Δy φ| of a point, with differences over two spacings."""
    fastest = phi.dtype.type(0)
    for i in range(1, phi.shape[0] - 1):
        for j in range(1, phi.shape[1] - 1):
            fastest = max(fastest, abs(phi[i + 1, j] - phi[i - 1, j]) + abs(phi[i, j + 1] - phi[i, j - 1]))
    return fastest


@numba.njit(cache=True, fastmath={"reassoc", "nsz"})
def _mean_difference(a, b):  # type: ignore[no-untyped-def]
    total = a.dtype.type(0)
    for j in range(1, len(a) - 1):
        total += a[j] - b[j]
    return total / a.dtype.type(len(a) - 2)


@numba.njit(cache=True)
def _advance(  # type: ignore[no-untyped-def]
    phi, at, base, sums, out, total, hyper, modified, dn, dw, alpha, mean, drive, bracket, part, share
):
    """Add a rate to two fields; see `Arakawa._stage`. Every array has a border of one."""
    four = phi.dtype.type(4)
    rate = np.empty((2, phi.shape[1]), phi.dtype)  # known not to overlap, so the compiler uses wide vectors
    for i in range(1, phi.shape[0] - 1):
        pm, p0, pp = phi[i - 1], phi[i], phi[i + 1]
        nm, n0, np_ = at[0, i - 1], at[0, i], at[0, i + 1]
        wm, w0, wp = at[1, i - 1], at[1, i], at[1, i + 1]
        offset = -_mean_difference(p0, n0) if modified else mean
        for j in range(1, phi.shape[1] - 1):
            # Coefficients of the neighbours of a field in Arakawa's bracket.
            east = p0[j - 1] + pp[j - 1] - p0[j + 1] - pp[j + 1]
            west = p0[j + 1] + pm[j + 1] - p0[j - 1] - pm[j - 1]
            north = pp[j] + pp[j + 1] - pm[j] - pm[j + 1]
            south = pm[j] + pm[j - 1] - pp[j] - pp[j - 1]
            northeast, northwest = pp[j] - p0[j + 1], p0[j + 1] - pm[j]
            southeast, southwest = p0[j - 1] - pp[j], pm[j] - p0[j - 1]
            jn = (
                east * np_[j] + west * nm[j] + north * n0[j + 1] + south * n0[j - 1]
                + northeast * np_[j + 1] + northwest * nm[j + 1] + southeast * np_[j - 1] + southwest * nm[j - 1]
            )  # fmt: skip
            jw = (
                east * wp[j] + west * wm[j] + north * w0[j + 1] + south * w0[j - 1]
                + northeast * wp[j + 1] + northwest * wm[j + 1] + southeast * wp[j - 1] + southwest * wm[j - 1]
            )  # fmt: skip
            coupled = alpha * (p0[j] - n0[j] + offset)
            ln = np_[j] + nm[j] + n0[j + 1] + n0[j - 1] - four * n0[j]
            lw = wp[j] + wm[j] + w0[j + 1] + w0[j - 1] - four * w0[j]
            rate[0, j] = coupled - drive * (p0[j + 1] - p0[j - 1]) - bracket * jn + dn * ln
            rate[1, j] = coupled - bracket * jw + dw * lw
        for f in range(2):
            if hyper.shape[1] > 1:
                for j in range(1, phi.shape[1] - 1):
                    rate[f, j] += hyper[f, i, j]
            for j in range(1, phi.shape[1] - 1):
                out[f, i, j] = base[f, i, j] + part * rate[f, j]
            for j in range(1, phi.shape[1] - 1):
                total[f, i, j] = sums[f, i, j] + share * rate[f, j]
