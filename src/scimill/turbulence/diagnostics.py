"""What a state of turbulence is measured by: fluxes, energies, what dissipates them, budgets and spectra.

Box means, from the modes, with the derivatives of the scheme that made them:

    Γn = −⟨n ∂φ/∂y⟩    Γc = α⟨(φ̃ − ñ)²⟩    E = ½⟨n² + |∇φ|²⟩    U = ½⟨(n − ω)²⟩
    dE/dt = κ Γn − Γc − D_E,    dU/dt = κ Γn − D_U

Source: Camargo, Biskamp and Scott, Phys. Plasmas 2 (1995) 48. With one wave number of diffusion for both fields and
κ = 1 these are the balances that hw2d checks.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from scimill.turbulence.equations import Physics, Symbols, coupling, damping
from scimill.turbulence.slabs import Team

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
"""Names and meanings of the box means, in the order in which `of_modes` returns them."""

SPECTRA = {
    "density_spectrum": "½⟨n²⟩ by shell of wave numbers",
    "kinetic_spectrum": "½⟨|∇φ|²⟩ by shell of wave numbers",
    "vorticity_spectrum": "½⟨ω²⟩ by shell of wave numbers",
    "flux_spectrum": "Γn by shell of wave numbers",
}
"""Names and meanings of the spectra, in the order in which `spectra` returns them."""


@dataclasses.dataclass(frozen=True)
class Means:
    """Box means of one state by the names of `SCALARS`, and what is left of the budgets."""

    values: dict[str, float]
    energy_residual: float
    enstrophy_residual: float


def of_modes(physics: Physics, symbols: Symbols, modes: Modes, rate: Modes, team: Team) -> Means:
    """Measure a state. Collective.

    Parameters
    ----------
    physics, symbols : the equations, and the derivatives at own modes.
    modes, rate : own modes of density and vorticity and of their rates of change, shape (2, own ky, kx).
    team : the ranks; the sums are over whole columns in the order of ky, the same on any number of ranks.

    """
    columns = _by_column(physics, symbols, modes.astype(np.complex128), rate.astype(np.complex128))
    sums = np.concatenate(team.gather_all(columns), axis=1).sum(axis=1)
    values = dict(zip(SCALARS, sums.tolist(), strict=True))
    flux = physics.kappa * values["particle_flux"]
    energy = flux - values["resistive_dissipation"] - values["energy_dissipation"]
    return Means(
        values, values["energy_rate"] - energy, values["enstrophy_rate"] - flux + values["enstrophy_dissipation"]
    )


def _by_column(physics: Physics, symbols: Symbols, modes: Modes, rate: Modes) -> Numbers:
    """Contribution of each column (ky) to the means, shape (number of means, own ky)."""
    (n, w), (dn, dw) = modes, rate
    phi = -w * _inverse(symbols)
    damp_n, damp_w = damping(physics, symbols.diffusive)
    alpha = coupling(physics, symbols)
    lost_n, lost_w = damp_n * n, damp_w * w
    densities = (
        _product(n, -1j * symbols.ky * phi),
        alpha * _product(phi - n, phi - n),
        0.5 * (_product(n, n) - _product(phi, w)),
        0.5 * _product(n - w, n - w),
        0.5 * _product(n, n),
        -0.5 * _product(phi, w),
        np.where(symbols.zonal, -0.5 * _product(phi, w), 0),
        _product(n, lost_n) - _product(phi, lost_w),
        _product(n - w, lost_n - lost_w),
        _product(n, dn) - _product(phi, dw),
        _product(n - w, dn - dw),
    )
    weight = symbols.weight
    return np.array([(weight * density).sum(axis=1) for density in densities])


def spectra(physics: Physics, symbols: Symbols, modes: Modes, shells: int, team: Team) -> Numbers:
    """Spectra by shell |k| = m · 2π/box, m − ½ ≤ … < m + ½, shape (number of spectra, shells). Collective."""
    n, w = modes.astype(np.complex128)
    phi = -w * _inverse(symbols)
    weight = symbols.weight
    densities = (
        0.5 * _product(n, n),
        -0.5 * _product(phi, w),
        0.5 * _product(w, w),
        _product(n, -1j * symbols.ky * phi),
    )
    shell = np.rint(np.sqrt(symbols.k2) / physics.wave_number(1)).astype(int)
    columns = np.zeros((n.shape[0], len(densities), shells))
    for column, target in enumerate(columns):
        inside = shell[column] < shells
        for density, row in zip(densities, target, strict=True):
            row[:] = np.bincount(shell[column][inside], (weight * density)[column][inside], minlength=shells)
    gathered: Numbers = np.concatenate(team.gather_all(columns)).sum(axis=0)
    return gathered


def _product(a: Modes, b: Modes) -> Numbers:
    """Contribution of each mode to the box mean of a product of real fields."""
    product: Numbers = (a.conj() * b).real
    return product


def _inverse(symbols: Symbols) -> Numbers:
    with np.errstate(divide="ignore"):
        return np.where(symbols.k2 > 0, 1 / symbols.k2, 0.0)
