"""Diagnostics of a state: fluxes, energies, their dissipation, budgets and spectra.

Box means are computed from the modes, with the derivatives of the scheme that made the state:

    Γn = −⟨n ∂φ/∂y⟩    Γc = α⟨(φ̃ − ñ)²⟩    E = ½⟨n² + |∇φ|²⟩    U = ½⟨(n − ω)²⟩
    dE/dt = κ Γn − Γc − D_E,    dU/dt = κ Γn − D_U

Source: Camargo, Biskamp and Scott, Phys. Plasmas 2 (1995) 48. With the same diffusion for both fields and κ = 1 these
are the balances that hw2d checks.
"""

import dataclasses

import numba
import numpy as np
from numpy.typing import NDArray

from scimill.turbulence.kernels.equations import FlowPhysics, Symbols, coupling
from scimill.turbulence.kernels.slabs import Team

Modes = NDArray[np.complexfloating]
Numbers = NDArray[np.float64]

SCALARS = {
    "particle_flux": "Γn = −⟨n ∂φ/∂y⟩",
    "resistive_dissipation": "Γc = α⟨(φ − n)²⟩, of what is coupled",
    "energy": "E = ½⟨n² + |∇φ|²⟩",
    "enstrophy": "U = ½⟨(n − ω)²⟩, generalized",
    "density_energy": "½⟨n²⟩",
    "kinetic_energy": "½⟨|∇φ|²⟩",
    "zonal_energy": "kinetic energy of what is constant along y",
    "energy_dissipation": "D_E, energy lost to diffusion per unit time",
    "enstrophy_dissipation": "D_U, generalized enstrophy lost to diffusion per unit time",
    "energy_rate": "dE/dt of the right-hand side",
    "enstrophy_rate": "dU/dt of the right-hand side",
}
"""Names and meanings of the box means, in the order in which `box_means` returns them."""

SPECTRA = {
    "density_spectrum": "½⟨n²⟩ by shell of wave numbers",
    "kinetic_spectrum": "½⟨|∇φ|²⟩ by shell of wave numbers",
    "vorticity_spectrum": "½⟨ω²⟩ by shell of wave numbers",
    "flux_spectrum": "Γn by shell of wave numbers",
}
"""Names and meanings of the spectra, in the order in which `spectra` returns them."""


@dataclasses.dataclass(frozen=True)
class Means:
    """Box means of one state by the names in `SCALARS`, and the residuals of the budgets."""

    values: dict[str, float]
    energy_residual: float
    enstrophy_residual: float


def box_means(physics: FlowPhysics, symbols: Symbols, modes: Modes, rate: Modes, team: Team) -> Means:
    """Compute the box means of a state. Collective.

    Parameters
    ----------
    physics, symbols : the equations, and the symbols of the derivatives at own modes.
    modes, rate : own modes of density and vorticity and of their rates of change, shape (2, own ky, kx).
    team : the ranks; sums are over whole columns in order of ky, so they are the same on any number of ranks.

    """
    columns = np.zeros((len(SCALARS), modes.shape[1]))
    s, p = symbols, physics
    numbers = (p.density_diffusion, p.vorticity_diffusion, p.hyperviscosity, p.order)
    _add_means(modes, rate, s.ky, s.k2, s.diffusive, s.weight, coupling(p, s), s.zonal, *numbers, columns)
    sums = np.concatenate(team.gather_all(columns), axis=1).sum(axis=1)
    values = dict(zip(SCALARS, sums.tolist(), strict=True))
    flux = physics.kappa * values["particle_flux"]
    energy = flux - values["resistive_dissipation"] - values["energy_dissipation"]
    return Means(
        values, values["energy_rate"] - energy, values["enstrophy_rate"] - flux + values["enstrophy_dissipation"]
    )


@numba.njit(cache=True)
def _add_means(  # type: ignore[no-untyped-def]
    modes, rate, ky, k2, diffusive, weight, alpha, zonal, density_diffusion, vorticity_diffusion, hyper, order, out
):
    """Add each mode's contribution to the means, in the order of `SCALARS`, to its column of out."""
    for i in range(modes.shape[1]):
        sums = np.zeros(out.shape[0])
        for j in range(modes.shape[2]):
            n, w = np.complex128(modes[0, i, j]), np.complex128(modes[1, i, j])
            dn, dw = np.complex128(rate[0, i, j]), np.complex128(rate[1, i, j])
            phi = -w / k2[i, j] if k2[i, j] > 0 else 0j
            damped = hyper * diffusive[i, j] ** order
            lost_n = (density_diffusion * diffusive[i, j] + damped) * n
            lost_w = (vorticity_diffusion * diffusive[i, j] + damped) * w
            c = weight[i, j]
            kinetic = -0.5 * c * _product(phi, w)
            density = 0.5 * c * _product(n, n)
            sums[0] += c * ky[i, j] * (n.real * phi.imag - n.imag * phi.real)
            sums[1] += c * alpha[i, j] * _product(phi - n, phi - n)
            sums[2] += density + kinetic
            sums[3] += 0.5 * c * _product(n - w, n - w)
            sums[4] += density
            sums[5] += kinetic
            sums[6] += kinetic if zonal[i, j] else 0.0
            sums[7] += c * (_product(n, lost_n) - _product(phi, lost_w))
            sums[8] += c * _product(n - w, lost_n - lost_w)
            sums[9] += c * (_product(n, dn) - _product(phi, dw))
            sums[10] += c * _product(n - w, dn - dw)
        out[:, i] += sums


@numba.njit(cache=True)
def _product(a, b):  # type: ignore[no-untyped-def]
    """Return the real part of conj(a) b: the contribution of a mode to the box mean of a product of real fields."""
    return a.real * b.real + a.imag * b.imag


def spectra(physics: FlowPhysics, symbols: Symbols, modes: Modes, shells: int, team: Team) -> Numbers:
    """Return spectra by shell |k| = m · 2π/box, m − ½ ≤ … < m + ½, shape (number of spectra, shells). Collective."""
    columns = np.zeros((modes.shape[1], len(SPECTRA), shells))
    _add_spectra(modes, symbols.ky, symbols.k2, symbols.weight, physics.wave_number(1), columns)
    gathered: Numbers = np.concatenate(team.gather_all(columns)).sum(axis=0)
    return gathered


@numba.njit(cache=True)
def _add_spectra(modes, ky, k2, weight, lowest, out):  # type: ignore[no-untyped-def]
    """Add each mode's contribution to the spectra, in the order of `SPECTRA`, to its column and shell of out."""
    for i in range(modes.shape[1]):
        for j in range(modes.shape[2]):
            shell = int(np.sqrt(k2[i, j]) / lowest + 0.5)
            if shell < out.shape[2] and k2[i, j] > 0:
                n, w, c = np.complex128(modes[0, i, j]), np.complex128(modes[1, i, j]), weight[i, j]
                phi = -w / k2[i, j]
                out[i, 0, shell] += 0.5 * c * _product(n, n)
                out[i, 1, shell] -= 0.5 * c * _product(phi, w)
                out[i, 2, shell] += 0.5 * c * _product(w, w)
                out[i, 3, shell] += c * ky[i, j] * (n.real * phi.imag - n.imag * phi.real)
