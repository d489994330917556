"""Condensation and heat exchange of a single droplet in air of a given state.

The unknowns are the droplet's radius r (m) and temperature T (K). With the vapour excess

    G = RH·e/Tf − (e/T)·w·exp[ Λ(1/Tf − 1/T) + κ/(r T) − σ S/r³ ]      (Pa/K)

the equations of the NTLP cloud model (Richter, MacMillan & Wainwright 2021, Boundary-Layer Meteorology; Helgans &
Richter 2016, Int. J. Multiphase Flow) read, in u = r²:

    du/dt = 2 a φv G
    dT/dt = [ℓ a φv G − b ρ φh (T − Tf)]/u

Tf air temperature (K), RH relative humidity, ρ air density (kg/m³), e saturation vapour pressure at Tf (Pa), S solute
term (kg). In u the first equation has no 1/r, and the radius cannot become negative.

In the original model w = φv = φh = 1, and the constants are `Constants`. With `CloudConstants`:

    w = (r³ − rd³)/(r³ − rd³ + σS),  rd³ = σS/kappa       κ-Köhler with a dry core of radius rd; then exp has no σ S/r³
    φ = (r² + m r)/(r² + p r + q) · (1 + c √Re)           transition to the free-molecular regime, and ventilation
    Re = 2 r (v + Vt)/ν,  Vt = 4 B r²/(18 ν + √(6 C B) r^1.5)

Both φ have the same form; m, p, q (m, m, m²) and c belong to vapour or heat; see `transition` and `Ventilation`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Lengths = tuple[float, float, float]
"""m √Tf (m √K), p √Tf (m √K) and q Tf (m² K) of `transition`"""


class Constants(NamedTuple):
    """Combined constants of the equations; see `combine`."""

    growth: float
    """a = Sh ν Mw/(2 Sc ρw Ru), m² K/(Pa s)"""
    conduction: float
    """b = 3 Nu ν cpa/(2 Pr cpp ρw), m⁵/(kg s)"""
    latent: float
    """ℓ = 3 Lv/cpp, K"""
    clapeyron: float
    """Λ = Lv Mw/Ru, K"""
    kelvin: float
    """κ = 2 Mw Γ/(Ru ρw), m K"""
    raoult: float
    """σ = 3/(4 π ρw), m³/kg"""


class CloudConstants(NamedTuple):
    """Combined constants of the equations with corrections for small, salty and falling droplets; see `extend`.

    The first six are those of `Constants`. A correction that is off has constants for which it is exactly 1.
    """

    growth: float
    conduction: float
    latent: float
    clapeyron: float
    kelvin: float
    raoult: float
    vapour_shift: float
    """m √Tf for vapour, m √K; see `transition`"""
    vapour_length: float
    """p √Tf for vapour, m √K"""
    vapour_area: float
    """q Tf for vapour, m² K"""
    heat_shift: float
    heat_length: float
    heat_area: float
    """the same for heat"""
    core: float
    """1/kappa, or 0 without a dry core: rd³ = core·σS"""
    slip: float
    """v, relative velocity of droplet and air besides the terminal velocity, m/s"""
    gravity: float
    """g, m/s², or 0 without terminal velocity"""
    water_density: float
    """ρw, kg/m³"""
    viscosity: float
    """ν, kinematic viscosity of air, m²/s"""
    vapour_ventilation: float
    """c for vapour"""
    heat_ventilation: float
    """c for heat"""


AnyConstants = Constants | CloudConstants


class Ventilation(NamedTuple):
    """Motion of the droplet through air; a slip and a gravity of 0 turn ventilation off.

    Sh = Sh₀ + 0.6 Re^½ Sc^⅓ and Nu = Nu₀ + 0.6 Re^½ Pr^⅓ (Ranz & Marshall 1952, Chem. Eng. Prog. 48, 141).
    """

    slip: float
    """m/s"""
    gravity: float
    """m/s²; 0 without terminal velocity"""
    water_density: float
    """kg/m³"""
    viscosity: float
    """kinematic, of air, m²/s"""
    vapour: tuple[float, float]
    """Sc and Sh₀"""
    heat: tuple[float, float]
    """Pr and Nu₀"""


CONTINUUM = (0.0, 0.0, 0.0)
"""m √Tf, p √Tf, q Tf of `transition` without a correction"""
SMALLEST_SLIP = 1e-30  # m/s; keeps the derivative of √Re finite, and changes no digit of it
RANZ_MARSHALL = 0.6
DRAG_COEFFICIENT = 0.5
"""C of the terminal velocity: drag coefficient of a fast sphere. With 0.5, the velocity agrees with the table of Gunn &
Kinzer 1949 (J. Meteor. 6, 243) within 13 % for diameters of 0.08 to 2 mm; below, Stokes' law is exact."""


def combine(
    *,
    sherwood: float,
    nusselt: float,
    schmidt: float,
    prandtl: float,
    air_viscosity: float,
    air_heat_capacity: float,
    water_density: float,
    water_heat_capacity: float,
    water_molar_mass: float,
    gas_constant: float,
    surface_tension: float,
    latent_heat: float,
) -> Constants:
    """Combine physical constants (SI units) into those of the original equations."""
    return Constants(
        growth=sherwood * air_viscosity * water_molar_mass / (2 * schmidt * water_density * gas_constant),
        conduction=3
        * nusselt
        * air_viscosity
        * air_heat_capacity
        / (2 * prandtl * water_heat_capacity * water_density),
        latent=3 * latent_heat / water_heat_capacity,
        clapeyron=latent_heat * water_molar_mass / gas_constant,
        kelvin=2 * water_molar_mass * surface_tension / (gas_constant * water_density),
        raoult=3 / (4 * math.pi * water_density),
    )


def saturation_pressure(T: Array, e0: float, a: float, b: float) -> Array:
    """Compute the saturation vapour pressure over water, Pa: e0·exp[a (T − 273.15)/(b + T − 273.15)].

    Magnus form; e0 = 610.94 Pa, a = 17.6257 and b = 243.04 K are from Alduchov & Eskridge 1996, J. Appl. Meteor. 35.
    """
    celsius = T - 273.15
    return e0 * np.exp(a * celsius / (b + celsius))


def jump_lengths(diffusivity: float, accommodation: float, molar_mass: float, gas_constant: float) -> Lengths:
    """Compute m √Tf, p √Tf, q Tf of `transition`, with φ = r/(r + p), p = D/α √(2 π M/(Ru Tf)).

    Seinfeld & Pandis, Atmospheric Chemistry and Physics, chapter 17 (Fukuta & Walter 1970), without a vapour jump
    distance; pyrcel uses this form.

    Parameters
    ----------
    diffusivity : of vapour, or of heat, m²/s.
    accommodation : mass or thermal accommodation coefficient α, 0 < α <= 1.
    molar_mass, gas_constant : of the gas that diffuses, or of air (kg/mol); J/(mol K).

    """
    return 0.0, diffusivity / accommodation * math.sqrt(2 * math.pi * molar_mass / gas_constant), 0.0


def fuchs_sutugin_lengths(diffusivity: float, accommodation: float, molar_mass: float, gas_constant: float) -> Lengths:
    """Compute m √Tf, p √Tf, q Tf of `transition` in the form of Fuchs & Sutugin 1971; see `interpolate`.

    The mean free path is that of kinetic theory, λ = 3 D/c, c = √(8 Ru Tf/(π M)): for tiny droplets this form and
    `jump_lengths` have the same limit. Parameters are those of `jump_lengths`.
    """
    _, length, _ = jump_lengths(diffusivity, 1.0, molar_mass, gas_constant)
    return interpolate(0.75 * length, accommodation)


def interpolate(path: float, accommodation: float) -> Lengths:
    """Compute m, p, q of φ = (1 + Kn)/(1 + (4/(3α) + 0.377) Kn + 4/(3α) Kn²), Kn = λ/r, from λ (m √K) and α."""
    steepness = 4 / (3 * accommodation)
    return path, (steepness + 0.377) * path, steepness * path**2


def extend(k: Constants, vapour: Lengths, heat: Lengths, kappa: float | None, air: Ventilation) -> CloudConstants:
    """Add the constants of the corrections.

    Parameters
    ----------
    k : constants of the original model.
    vapour, heat : from `jump_lengths` or `fuchs_sutugin_lengths`, or CONTINUUM.
    kappa : hygroscopicity, above 0; None without a dry core.
    air : motion of the droplet through air.

    """
    return CloudConstants(
        *k, *vapour, *heat, 1 / kappa if kappa else 0.0, max(air.slip, SMALLEST_SLIP), air.gravity, air.water_density,
        air.viscosity, _ventilation(air, *air.vapour), _ventilation(air, *air.heat),
    )  # fmt: skip


def _ventilation(air: Ventilation, number: float, still: float) -> float:
    """Return c of the module's equations, from Sc and Sh₀, or Pr and Nu₀; 0 in still air."""
    return RANZ_MARSHALL * number ** (1 / 3) / still if air.slip or air.gravity else 0.0


def restore_constants(values: Sequence[float]) -> AnyConstants:
    """Restore constants from a list: six are those of the original model."""
    return Constants(*values) if len(values) == len(Constants._fields) else CloudConstants(*values)


def dry_core(S: Array, k: AnyConstants) -> Array:
    """Compute the cube of the dry core's radius, rd³ (m³), from the solute term S (kg); 0 without a core."""
    return (k.core if isinstance(k, CloudConstants) else 0.0) * k.raoult * S


def has_core(k: AnyConstants) -> bool:
    """Check whether droplets have a dry core."""
    return isinstance(k, CloudConstants) and k.core > 0


def water_activity(r: Array, S: Array, k: AnyConstants) -> Array:
    """Compute the water activity: exp(−σS/r³), or with a dry core that of Petters & Kreidenweis 2007.

    Petters & Kreidenweis 2007, Atmos. Chem. Phys. 7, 1961: (r³ − rd³)/(r³ − rd³ (1 − kappa)).
    """
    if not has_core(k):
        dilute: Array = np.exp(-k.raoult * S / r**3)
        return dilute
    water = np.maximum(r**3 - dry_core(S, k), 0.0)
    with np.errstate(divide="ignore"):  # no water: the activity is 0
        activity: Array = 1 / (1 + k.raoult * S / water)
    return activity


def transition(r: Array, Tf: Array, shift: float, length: float, area: float) -> Array:
    """Compute (r² + m r)/(r² + p r + q), with m = shift/√Tf, p = length/√Tf and q = area/Tf.

    It is the ratio of diffusion to a small droplet (vapour, or heat) to that in a continuum.
    """
    root = np.sqrt(Tf) * r
    return (1 + shift / root) / (1 + length / root + area / root**2)


def terminal_velocity(r: Array, rho: Array, k: CloudConstants) -> Array:
    """Compute the terminal velocity, m/s, in air of density rho (kg/m³): from Stokes' law to constant drag.

    Ferguson & Church 2004, J. Sediment. Res. 74, 933: B d²/(18 ν + √(0.75 C B d³)), d = 2 r, B = g (ρw/ρ − 1).
    """
    buoyancy = k.gravity * (k.water_density / rho - 1)
    return 4 * buoyancy * r**2 / (18 * k.viscosity + np.sqrt(6 * DRAG_COEFFICIENT * buoyancy) * r**1.5)


def transfer(r: Array, Tf: Array, rho: Array, k: AnyConstants) -> tuple[Array, Array]:
    """Compute φv and φh of the module's equations: exchange of vapour and of heat relative to the original model."""
    if not isinstance(k, CloudConstants):
        return np.ones_like(r), np.ones_like(r)
    reynolds = 2 * r / k.viscosity * (k.slip + terminal_velocity(r, rho, k))
    vapour = transition(r, Tf, k.vapour_shift, k.vapour_length, k.vapour_area)
    heat = transition(r, Tf, k.heat_shift, k.heat_length, k.heat_area)
    root = np.sqrt(reynolds)
    return vapour * (1 + k.vapour_ventilation * root), heat * (1 + k.heat_ventilation * root)


def vapour_excess(r: Array, T: Array, S: Array, Tf: Array, RH: Array, e: Array, k: AnyConstants) -> Array:
    """Compute G of the module's equations, Pa/K: positive if the droplet grows."""
    exponent = k.clapeyron * (1 / Tf - 1 / T) + k.kelvin / (r * T)
    if has_core(k):
        return RH * e / Tf - e / T * water_activity(r, S, k) * np.exp(np.clip(exponent, -690.0, 690.0))
    exponent = exponent - k.raoult * S / r**3
    return RH * e / Tf - e / T * np.exp(np.clip(exponent, -690.0, 690.0))
