"""The (modified) Hasegawa–Wakatani equations in density and vorticity, doubly periodic.

    ∂n/∂t + [φ, n] = α(φ − n) − κ ∂φ/∂y − D_n(n)        [f, g] = ∂f/∂x ∂g/∂y − ∂f/∂y ∂g/∂x
    ∂ω/∂t + [φ, ω] = α(φ − n) − D_ω(ω)                  ω = ∇²φ

In Fourier space D is D k² + ν k^{2N}. The modified equations exclude the zonal average (over y) from the coupling. All
quantities are in the usual drift-wave units (ρ_s, L_n/c_s). The box mean of the potential is a gauge, chosen so that
the coupling conserves the mean density. Source: Hasegawa and Wakatani, Phys. Rev. Lett. 50 (1983) 682; Camargo,
Biskamp and Scott, Phys. Plasmas 2 (1995) 48; modified: Numata, Ball and Dewar, Phys. Plasmas 14 (2007) 102312.
"""

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.floating]
Complex = NDArray[np.complexfloating]


@dataclasses.dataclass(frozen=True)
class FlowPhysics:
    """Parameters of the equations, in drift-wave units.

    Parameters
    ----------
    alpha : adiabaticity α, the strength of the coupling.
    kappa : gradient κ of the background density.
    density_diffusion, vorticity_diffusion : coefficients D_n and D_ω of D∇².
    hyperviscosity, order : ν and N in (−1)^{N+1} ν∇^{2N}, for both fields.
    modified : whether the coupling excludes the zonal average.
    box : side of the square box.

    """

    alpha: float = 1.0
    kappa: float = 1.0
    density_diffusion: float = 0.0
    vorticity_diffusion: float = 0.0
    hyperviscosity: float = 0.0
    order: int = 1
    modified: bool = False
    box: float = 2 * math.pi / 0.15

    def wave_number(self, mode: int) -> float:
        """Return the wavenumber of a mode of the box."""
        return 2 * math.pi * mode / self.box


@dataclasses.dataclass(frozen=True)
class Symbols:
    """Symbols of the derivatives of a scheme: factors for each mode (kx, ky), in arrays of the shape of the modes.

    Parameters
    ----------
    kx, ky : first derivatives divided by i.
    k2 : −∇² of the Poisson equation.
    diffusive : −∇² of the diffusion.
    zonal : whether the mode is constant along y.
    weight : number of modes it represents: 2 if its conjugate at −ky is not stored, 1 if it has none.

    """

    kx: Real
    ky: Real
    k2: Real
    diffusive: Real
    zonal: NDArray[np.bool_]
    weight: Real


def spectral_symbols(kx: Real, ky: Real) -> Symbols:
    """Return symbols of exact derivatives; the wavenumbers are broadcast together."""
    kx, ky = (np.ascontiguousarray(k) for k in np.broadcast_arrays(kx, ky))
    k2 = kx**2 + ky**2
    return Symbols(kx, ky, k2, k2, ky == 0, np.where(ky == 0, 1.0, 2.0))


def difference_symbols(kx: Real, ky: Real, spacing: float) -> Symbols:
    """Return symbols of central differences and the five-point Laplacian, with the exact Poisson equation."""
    kx, ky = (np.ascontiguousarray(k) for k in np.broadcast_arrays(kx, ky))
    laplacian = (4 - 2 * np.cos(kx * spacing) - 2 * np.cos(ky * spacing)) / spacing**2
    x, y = np.sin(kx * spacing) / spacing, np.sin(ky * spacing) / spacing
    is_unpaired = (ky == 0) | np.isclose(ky * spacing, np.pi)
    return Symbols(x, y, kx**2 + ky**2, laplacian, ky == 0, np.where(is_unpaired, 1.0, 2.0))


def damping(physics: FlowPhysics, diffusive: Any) -> tuple[Any, Any]:
    """Return the damping rates of density and vorticity by diffusion and hyperviscosity, where −∇² is `diffusive`."""
    hyper = physics.hyperviscosity * diffusive**physics.order
    return physics.density_diffusion * diffusive + hyper, physics.vorticity_diffusion * diffusive + hyper


def coupling(physics: FlowPhysics, symbols: Symbols) -> Real:
    """Return the adiabaticity of each mode: 0 for the box mean, and for all zonal modes of the modified equations."""
    left_out = symbols.zonal if physics.modified else symbols.k2 == 0
    return np.where(left_out, 0.0, physics.alpha)


def linear_operator(physics: FlowPhysics, symbols: Symbols) -> Complex:
    """Return the linear part of the equations in (n̂, ω̂), shape (2, 2, *modes)."""
    with np.errstate(divide="ignore"):
        inverse = np.where(symbols.k2 > 0, 1 / symbols.k2, 0.0)
    alpha = coupling(physics, symbols)
    density, vorticity = damping(physics, symbols.diffusive)
    gradient = (-alpha + 1j * physics.kappa * symbols.ky) * inverse
    return np.array([[-alpha - density + 0j, gradient], [-alpha + 0j, -alpha * inverse - vorticity + 0j]])


def propagator(physics: FlowPhysics, symbols: Symbols, time: float) -> Complex:
    """Return the exponential of the linear operator times `time`, shape (2, 2, *modes).

    exp(L t) = e^{st} (cosh δt + sinh(δt)/δ (L − s)), with s half the trace and δ² minus the determinant of L − s.
    """
    (a, b), (c, d) = linear_operator(physics, symbols)
    mean, half = (a + d) / 2, (a - d) / 2
    delta = np.sqrt(half**2 + b * c)
    up, down = np.exp((mean + delta) * time), np.exp((mean - delta) * time)  # these do not overflow; sinh alone would
    small = np.abs(delta * time) < 1e-4
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(small, np.exp(mean * time) * time * (1 + (delta * time) ** 2 / 6), (up - down) / (2 * delta))
    even = (up + down) / 2
    return np.array([[even + ratio * half, ratio * b], [ratio * c, even - ratio * half]])
