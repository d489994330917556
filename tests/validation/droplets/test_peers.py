"""Growth rates and critical supersaturations agree with pyrcel and PySDM, within 0.1 %, where the physics coincides.

`scripts/record_droplet_peers.py` ran both packages with their own constants, which are recorded, too. Both linearise
in the supersaturation, so the comparison is made near equilibrium. pyrcel's form of the transition is ``jump`` with
both accommodations; PySDM's LoweEtAl2019 is ``jump`` without thermal accommodation; its FuchsSutugin is
``fuchs-sutugin`` with other mean free paths.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq

from droplets_reference import rates
from scimill.droplets import arguments
from scimill.droplets.kernels import koehler
from scimill.droplets.kernels.physics import interpolate
from scimill.droplets.params import SolveConfig

PEERS = json.loads((Path(__file__).parents[2] / "data" / "droplet-peers.json").read_text("utf-8"))
VISCOSITY = 1.5e-5  # m²/s; only its ratio to the diffusivities matters here
PRECISION = 1e-3


def constants(case, **more):
    """Make our constants from a peer's: Schmidt and Prandtl numbers from its diffusivities."""
    same = ("air_heat_capacity", "latent_heat", "surface_tension", "water_density", "water_molar_mass",
            "air_molar_mass", "gas_constant")  # fmt: skip
    values = {
        "schmidt": VISCOSITY / case["vapour_diffusivity"],
        "prandtl": VISCOSITY * case["air_density"] * case["air_heat_capacity"] / case["conductivity"],
        "air_viscosity": VISCOSITY,
        **{name: case[name] for name in same if name in case},
    }
    return arguments.constants(SolveConfig(**values | more))


def growth(case, k, S):
    """Compute dr/dt at the temperature at which a droplet neither warms nor cools."""
    T, rho, e, RH = (
        case["air_temperature"], case["air_density"], case["saturation_pressure"], 1 + case["supersaturation"]
    )  # fmt: skip
    found = []
    for r, solute in zip(case["radius"], S, strict=True):
        steady = brentq(lambda t, r=r, s=solute: rates(r, t, s, T, RH, rho, e, k)[1], T - 1, T + 1, xtol=1e-13)
        found.append(float(rates(r, steady, solute, T, RH, rho, e, k)[0]))
    return np.array(found)


@pytest.fixture(params=PEERS["pyrcel growth"], ids=lambda case: f"{case['air_temperature']} K")
def pyrcel(request):
    """A case of pyrcel: droplets of 30 nm to 100 µm, salty enough to be in equilibrium with saturated air."""
    case = request.param
    assert case["radius"][0] == pytest.approx(30e-9)
    assert case["radius"][-1] == pytest.approx(100e-6)
    return case


def like_pyrcel(case, accommodation, **more):
    heat = case["thermal_accommodation"]
    return constants(case, mass_accommodation=float(accommodation), thermal_accommodation=heat, **more)


@pytest.mark.parametrize("accommodation", ["1.0", "0.1"])
def test_growth_of_water_at_its_equilibrium_equals_pyrcel(accommodation, pyrcel):
    """Neither surface tension nor salt: pyrcel's rate depends on them only through the supersaturation."""
    k = like_pyrcel(pyrcel, accommodation, surface_tension=0.0)
    found = growth(pyrcel, k, np.zeros(len(pyrcel["radius"])))
    np.testing.assert_allclose(found, pyrcel["growth"][accommodation], rtol=PRECISION)


@pytest.mark.parametrize("accommodation", ["1.0", "0.1"])
def test_growth_of_salty_droplets_equals_pyrcel(accommodation, pyrcel):
    """Pyrcel leaves out how curvature depends on temperature, which changes the rate by 0.2 % at 30 nm."""
    kappa, radius = pyrcel["hygroscopicity"], np.array(pyrcel["radius"])
    k = like_pyrcel(pyrcel, accommodation, water_activity="kappa-koehler", hygroscopicity=kappa)
    S = kappa * np.array(pyrcel["dry_radius"]) ** 3 / k.raoult
    error = np.abs(growth(pyrcel, k, S) / pyrcel["growth"][accommodation] - 1)
    assert error[radius > 60e-9].max() < PRECISION
    assert error.max() < 2 * PRECISION


def for_pysdm(case):
    """Add what our constants need and PySDM's growth equation does not."""
    rho = case["pressure"] / case["dry_air_gas_constant"] / case["air_temperature"]
    masses = {"water_molar_mass": 8.314 / case["vapour_gas_constant"], "gas_constant": 8.314}
    return case | masses | {"air_density": rho, "air_heat_capacity": 1005.0, "surface_tension": 0.0}


def our_form(case):
    """Return the constants of the form of ours that coincides with the case."""
    if case["kinetics"] == "FuchsSutugin":
        root = np.sqrt(case["air_temperature"])
        vapour = interpolate(case["vapour_path"] * root, case["mass_accommodation"])
        heat = interpolate(case["heat_path"] * root, case["thermal_accommodation"])
        k = constants(case, mass_accommodation=1.0, thermal_accommodation=1.0, transition="fuchs-sutugin")
        names = ("vapour_shift", "vapour_length", "vapour_area", "heat_shift", "heat_length", "heat_area")
        return k._replace(**dict(zip(names, (*vapour, *heat), strict=True)))
    is_corrected = case["kinetics"] != "Neglect"
    return constants(case, mass_accommodation=case["mass_accommodation"] if is_corrected else None)


def name_of(case):
    return f"{case['kinetics']}-{case['mass_accommodation']}-{case['air_temperature']} K"


@pytest.mark.parametrize("case", PEERS["PySDM growth"], ids=name_of)
def test_growth_equals_pysdm(case):
    case = for_pysdm(case)
    found = growth(case, our_form(case), np.zeros(len(case["radius"])))
    np.testing.assert_allclose(found, case["growth"], rtol=PRECISION)


@pytest.mark.parametrize("peer", ["pyrcel", "PySDM"])
@pytest.mark.parametrize("case", PEERS["critical"], ids=lambda case: f"{case['air_temperature']} K")
def test_critical_supersaturation(case, peer):
    theirs = dict(case[peer])
    expected = theirs.pop("supersaturation")
    for rd, kappa, supersaturation in zip(case["dry_radius"], case["hygroscopicity"], expected, strict=True):
        k = arguments.constants(SolveConfig(water_activity="kappa-koehler", hygroscopicity=kappa, **theirs))
        S, T = np.array(kappa * rd**3 / k.raoult), np.array(case["air_temperature"])
        radius = koehler.critical_radius(S, T, k)
        assert koehler.critical_humidity(radius, S, T, k) - 1 == pytest.approx(supersaturation, rel=1e-6)
