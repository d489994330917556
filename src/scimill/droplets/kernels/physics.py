"""Condensation and heat exchange of a single droplet in air of a given state.

The unknowns are the droplet's radius r (m) and temperature T (K). With the vapour excess

    G = RH·e/Tf − (e/T)·exp[ Λ(1/Tf − 1/T) + κ/(r T) − σ S/r³ ]        (Pa/K)

the equations of the NTLP cloud model (Richter, MacMillan & Wainwright 2021, Boundary-Layer Meteorology; Helgans &
Richter 2016, Int. J. Multiphase Flow) read, in u = r²:

    du/dt = 2 a G
    dT/dt = [ℓ a G − b ρ (T − Tf)]/u

Tf air temperature (K), RH relative humidity, ρ air density (kg/m³), e saturation vapour pressure at Tf (Pa), S solute
term (kg). In u the first equation has no 1/r, and the radius cannot become negative.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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
    """Combine physical constants (SI units) into those of the equations."""
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


def vapour_excess(r: Array, T: Array, S: Array, Tf: Array, RH: Array, e: Array, k: Constants) -> Array:
    """Compute G of the module's equations, Pa/K: positive if the droplet grows."""
    exponent = k.clapeyron * (1 / Tf - 1 / T) + k.kelvin / (r * T) - k.raoult * S / r**3
    return RH * e / Tf - e / T * np.exp(np.clip(exponent, -690.0, 690.0))
