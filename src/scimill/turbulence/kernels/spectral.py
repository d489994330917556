"""The spectral scheme: exact derivatives, products on the grid, modes above the 2/3 cutoff dropped.

A right-hand side takes seven transforms: velocity (u, v) = (−∂φ/∂y, ∂φ/∂x) and density to the grid, then the products
un, vn, uv and v² − u² back, since

    [φ, n] = ∂x(un) + ∂y(vn),    [φ, ω] = (∂xx − ∂yy)(uv) + ∂xy(v² − u²).

They are computed batch by batch, so the whole velocity and the whole products are never in memory. The truncation is
that of Orszag, J. Atmos. Sci. 28 (1971) 1074: products of the kept modes are exact in the kept modes.
"""

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from scimill.turbulence.kernels import stepping
from scimill.turbulence.kernels.equations import FlowPhysics, linear_operator, propagator, spectral_symbols
from scimill.turbulence.kernels.fourier import Library
from scimill.turbulence.kernels.slabs import Exchange, SlabBatch, Slabs, Team

Modes = NDArray[np.complexfloating]
Grid = NDArray[np.floating]


def highest_mode(points: int) -> int:
    """Return the highest kept mode: the largest one below a third of the points (the 2/3 cutoff)."""
    return (points - 1) // 3


class Spectral:
    """The spectral scheme on one rank's slab.

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
    state : its modes of density and vorticity, shape (2, own ky, kx); kx is 0 … highest, −highest … −1.

    """

    def __init__(self, physics: FlowPhysics, points: int, dtype: np.dtype[Any], team: Team, library: Library) -> None:
        self.physics, self.points, self.dtype, self._library = physics, points, dtype, library
        self.highest = highest_mode(points)
        self.slabs = Slabs(points, self.highest + 1, team)
        mx = np.concatenate([np.arange(self.highest + 1), np.arange(-self.highest, 0)])
        my = np.arange(*self.slabs.columns)
        self.symbols = spectral_symbols(physics.wave_number(1) * mx[None, :], physics.wave_number(1) * my[:, None])
        kx, ky = ((physics.wave_number(1) * m).astype(dtype) for m in (mx, my))
        with np.errstate(divide="ignore"):
            self._poisson = np.where(self.symbols.k2 > 0, -1 / self.symbols.k2, 0).astype(dtype)
        self._constants = self._poisson, kx, ky
        kind = np.result_type(dtype, np.complex64)
        self._flow, self._products = (Exchange(self.slabs, fields, kind, library) for fields in (3, 4))
        self.state: Modes
        self.state, self._stage, self._total = np.zeros((3, 2, len(my), len(mx)), kind)
        self._rate = np.zeros((2, self.slabs.batch, len(mx)), kind)
        self._propagator: tuple[float, Modes] = (0.0, self._rate)
        self._speed: float | None = None

    # ---- to and from the grid ---------------------------------------------------------------------------------

    def _place(self, batch: SlabBatch) -> tuple[int, ...]:
        """Return the position of the modes of a batch of columns in its buffer and in the state."""
        return self.highest, self.points, self.slabs.batch, batch.start, batch.stop

    @cached_property
    def _pair(self) -> Exchange:
        return Exchange(self.slabs, 2, self.state.dtype, self._library)

    def load(self, density: Grid, vorticity: Grid) -> None:
        """Load the fields of own rows and drop modes above the 2/3 cutoff. Collective."""
        pair, b = self._pair, self.slabs.batch
        for batch in self.slabs.row_batches:
            rows = batch.stop - batch.start
            for at, field in ((0, density), (b, vorticity)):
                pair.grid[at : at + rows, : self.points] = field[batch.start : batch.stop]
            pair.rows_out(batch)
        pair.to_columns()
        for batch in self.slabs.column_batches:
            pair.columns_in(batch)
            _gather_modes(pair.columns, self.state, *self._place(batch))
        self.state *= self.dtype.type(self.points**-2.0)
        self._speed = None

    def add(self, density: Grid, vorticity: Grid) -> None:
        """Add increments of own rows, in Fourier space since transforming the state would round it. Collective."""
        state = self.state.copy()
        self.load(density, vorticity)
        self.state += state

    def grid_of(self, modes: Modes) -> tuple[Grid, Grid]:
        """Return the values of two fields on own rows, from their own modes (2, own ky, kx). Collective."""
        pair, b = self._pair, self.slabs.batch
        for batch in self.slabs.column_batches:
            _scatter_modes(modes, pair.columns, *self._place(batch))
            pair.columns_out(batch)
        pair.to_rows()
        first, second = np.empty((2, self.slabs.height, self.points), self.dtype)
        for batch in self.slabs.row_batches:
            values, rows = pair.rows_in(batch), batch.stop - batch.start
            first[batch.start : batch.stop] = values[:rows, : self.points]
            second[batch.start : batch.stop] = values[b : b + rows, : self.points]
        return first, second

    def fields(self) -> tuple[Grid, Grid]:
        """Return density and vorticity of own rows, shape (rows, points). Collective."""
        return self.grid_of(self.state)

    def potential(self) -> Grid:
        """Return the potential of own rows, shape (rows, points). Collective."""
        phi: Modes = self._poisson * self.state[1]
        return self.grid_of(np.array([phi, phi]))[0]

    def modes(self) -> Modes:
        """Return own modes of density and vorticity, shape (2, own ky, kx)."""
        return self.state

    def stiffness(self) -> float:
        """Return the largest rate of the linear part that limits a stable step: 0, since the linear part is exact."""
        return 0.0

    # ---- rates and steps --------------------------------------------------------------------------------------

    def speed(self) -> float:
        """Return the largest |u| + |v| of own rows, in grid spacings per unit time. Collective."""
        if self._speed is None:
            self._speed = self._to_products(self.state) * self.points / self.physics.box
        return self._speed

    def _to_products(self, state: Modes) -> float:
        """Transform a state to the grid, multiply, and transform the products back; return the largest speed."""
        flow, products, b = self._flow, self._products, self.slabs.batch
        for batch in self.slabs.column_batches:
            _fill_flow(state, *self._constants, flow.columns, *self._place(batch))
            flow.columns_out(batch)
        flow.to_rows()
        fastest = 0.0
        for batch in self.slabs.row_batches:
            values = flow.rows_in(batch)
            fastest = max(fastest, float(_multiply(values, products.grid, self.points, b, batch.stop - batch.start)))
            if not math.isfinite(values[0, 0]):  # NaN in one mode is NaN everywhere on the grid
                fastest = math.nan
            products.rows_out(batch)
        products.to_columns()
        return fastest

    def _rates(self) -> Iterator[tuple[int, int]]:
        """Set `_rate` to the rate of the nonlinear part, one batch of own columns at a time; yield its ends."""
        products = self._products
        for batch in self.slabs.column_batches:
            products.columns_in(batch)
            _, kx, ky = self._constants
            _tendency(products.columns, kx, ky, self._rate, *self._place(batch))
            yield batch.start, batch.stop

    def rate(self) -> Modes:
        """Return the rate of change of own modes, shape (2, own ky, kx). Collective."""
        self.speed()
        rate: Modes = np.einsum("ab...,b...->a...", linear_operator(self.physics, self.symbols), self.state)
        for start, stop in self._rates():
            rate[:, start:stop] += self._rate[:, : stop - start]
        return rate

    def step(self, length: float) -> None:
        """Take one step. Collective."""
        self.speed()
        state, stage, total = self.state, self._stage, self._total
        e = self._factor(length)
        h, half, third, sixth = (self.dtype.type(length / part) for part in (1, 2, 3, 6))
        rate = self._rate
        for ends in self._rates():
            stepping.first(state, rate, e, half, sixth, total, stage, *ends)
        self._to_products(stage)
        for ends in self._rates():
            stepping.second(state, rate, half, third, total, stage, *ends)
        self._to_products(stage)
        for ends in self._rates():
            stepping.third(state, rate, e, h, third, total, stage, *ends)
        self._to_products(stage)
        for ends in self._rates():
            stepping.fourth(state, rate, sixth, total, *ends)
        self._speed = None

    def _factor(self, length: float) -> Modes:
        """Return the integrating factor of half a step; recomputed only if the length of the step changes."""
        if self._propagator[0] != length:
            factor = propagator(self.physics, self.symbols, length / 2)
            self._propagator = (length, factor.astype(self.state.dtype))
        return self._propagator[1]


@numba.njit(cache=True)
def _fill_flow(state, poisson, kx, ky, columns, highest, points, pitch, start, stop):  # type: ignore[no-untyped-def]
    """Fill columns of u, v and n from the modes of n and ω; φ = −ω/k², u = −i ky φ, v = i kx φ."""
    phi = np.empty_like(state[0, 0])
    for b in range(stop - start):
        n, w, inverse, k = state[0, start + b], state[1, start + b], poisson[start + b], ky[start + b]
        for j in range(len(kx)):
            phi[j] = inverse[j] * w[j]
        u, v, density = columns[b], columns[pitch + b], columns[2 * pitch + b]
        for first, last, shift in ((0, highest + 1, 0), (highest + 1, len(kx), points - len(kx))):
            _multiply_by_ik(phi[first:last], -k, u[first + shift : last + shift])
            _multiply_each_by_ik(phi[first:last], kx[first:last], v[first + shift : last + shift])
            density[first + shift : last + shift] = n[first:last]
        for row in (u, v, density):
            row[highest + 1 : points - highest] = 0


@numba.njit(cache=True)
def _multiply_by_ik(modes, k, out):  # type: ignore[no-untyped-def]
    """Set out = i k modes."""
    for j in range(len(modes)):
        out[j] = complex(-k * modes[j].imag, k * modes[j].real)


@numba.njit(cache=True)
def _multiply_each_by_ik(modes, k, out):  # type: ignore[no-untyped-def]
    """Set out = i k modes, with a k for each mode."""
    for j in range(len(modes)):
        out[j] = complex(-k[j] * modes[j].imag, k[j] * modes[j].real)


@numba.njit(cache=True)
def _scatter_modes(modes, columns, highest, points, pitch, start, stop):  # type: ignore[no-untyped-def]
    """Fill columns of two fields from their modes."""
    for field in range(2):
        for b in range(stop - start):
            row, own = columns[field * pitch + b], modes[field, start + b]
            row[: highest + 1] = own[: highest + 1]
            row[highest + 1 : points - highest] = 0
            row[points - highest : points] = own[highest + 1 :]


@numba.njit(cache=True)
def _gather_modes(columns, modes, highest, points, pitch, start, stop):  # type: ignore[no-untyped-def]
    """Copy the kept modes of two fields from their columns."""
    for field in range(2):
        for b in range(stop - start):
            row, own = columns[field * pitch + b], modes[field, start + b]
            own[: highest + 1] = row[: highest + 1]
            own[highest + 1 :] = row[points - highest : points]


@numba.njit(cache=True)
def _multiply(grid, out, points, pitch, rows):  # type: ignore[no-untyped-def]
    """Fill un, vn, uv and v² − u² from u, v and n; return the largest |u| + |v|."""
    fastest = np.zeros(points, grid.dtype)
    for b in range(rows):
        u, v, n = grid[b, :points], grid[pitch + b, :points], grid[2 * pitch + b, :points]
        un, vn, uv, squares = out[b], out[pitch + b], out[2 * pitch + b], out[3 * pitch + b]
        for y in range(points):
            un[y] = u[y] * n[y]
        for y in range(points):
            vn[y] = v[y] * n[y]
        for y in range(points):
            uv[y] = u[y] * v[y]
        for y in range(points):
            squares[y] = (v[y] - u[y]) * (v[y] + u[y])
        for y in range(points):
            speed = abs(u[y]) + abs(v[y])
            fastest[y] = speed if speed > fastest[y] else fastest[y]
    return fastest.max()


@numba.njit(cache=True)
def _tendency(products, kx, ky, rate, highest, points, pitch, start, stop):  # type: ignore[no-untyped-def]
    """Compute the rates of n and ω from the modes of the products, which are points² too large."""
    scale = kx.dtype.type(1) / kx.dtype.type(points * points)
    for b in range(stop - start):
        k = ky[start + b]
        for first, last, shift in ((0, highest + 1, 0), (highest + 1, len(kx), points - len(kx))):
            low, high = first + shift, last + shift
            un, vn = products[b, low:high], products[pitch + b, low:high]
            uv, squares = products[2 * pitch + b, low:high], products[3 * pitch + b, low:high]
            n, w, kxs = rate[0, b, first:last], rate[1, b, first:last], kx[first:last]
            for j in range(len(kxs)):
                flux = (kxs[j] * un[j] + k * vn[j]) * scale
                n[j] = complex(flux.imag, -flux.real)
            for j in range(len(kxs)):
                w[j] = ((kxs[j] * kxs[j] - k * k) * uv[j] + kxs[j] * k * squares[j]) * scale
