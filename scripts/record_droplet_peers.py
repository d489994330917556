#!/usr/bin/env python3
"""Write what pyrcel and PySDM compute to tests/data/droplet-peers.json, with which the tests compare the droplets.

    python -m venv peers
    peers/bin/pip install pyrcel==2.0.0 pysdm==3.0.1
    peers/bin/python scripts/record_droplet_peers.py

Their dependencies are large (jax among them), so the tests read the recorded values, and no lock has them.
"""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyrcel.constants as c
from pyrcel.parcel_aux import parcel_ode_sys
from pyrcel.thermo import Seq, dv_cont, es, ka_cont, sigma_w
from PySDM import Formulae
from scipy.optimize import brentq, minimize_scalar

OUTPUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "droplet-peers.json"
RADII = np.geomspace(30e-9, 100e-6, 15)  # m
DRY_RADII = np.geomspace(5e-9, 1e-6, 8)  # m
KAPPAS = (0.1, 0.61, 1.28)
AIR = ((273.15, 9.0e4), (283.15, 9.0e4), (300.0, 6.0e4))  # K, Pa
SUPERSATURATION = 1e-4  # both peers linearise in it

Case = dict[str, Any]


def record_pyrcel_growth(T: float, p: float) -> Case:
    """Record dr/dt of pyrcel's parcel model, where the droplet's own supersaturation is 0 at the start.

    There its linearised heat transfer is exact but for the temperature dependence of curvature.
    """
    vapour = 0.622 * float(es(T - 273.15)) / (p - float(es(T - 273.15)))
    dry = np.array([balancing_dry_radius(r, lambda r, rd: float(Seq(r, rd, T, KAPPAS[1]))) for r in RADII])
    state = jnp.array([0.0, p, T, vapour, 1e-3, 0.0, SUPERSATURATION, *RADII])
    rates = {}
    for accommodation in (1.0, 0.1):
        aerosol = (jnp.array(dry), jnp.zeros(len(RADII)), jnp.full(len(RADII), KAPPAS[1]))
        found = parcel_ode_sys(0.0, state, (*aerosol, accommodation, 0.0))
        rates[str(accommodation)] = np.asarray(found)[-len(RADII) :].tolist()
    rho = p / c.Rd / ((1.0 + 0.61 * vapour) * T)
    return {
        "air_temperature": T, "air_density": rho, "saturation_pressure": float(es(T - 273.15)),
        "vapour_diffusivity": float(dv_cont(T, p)), "conductivity": float(ka_cont(T)), "air_heat_capacity": c.Cp,
        "latent_heat": c.L, "surface_tension": float(sigma_w(T)), "water_density": c.rho_w,
        "water_molar_mass": c.Mw, "air_molar_mass": c.Ma, "gas_constant": c.R, "thermal_accommodation": c.at,
        "supersaturation": SUPERSATURATION, "hygroscopicity": KAPPAS[1], "radius": RADII.tolist(),
        "dry_radius": dry.tolist(), "growth": rates,
    }  # fmt: skip


def balancing_dry_radius(r: float, curve: Callable[[float, float], float]) -> float:
    """Find the dry radius with which a droplet is in equilibrium with saturated air."""
    return float(brentq(lambda share: curve(r, share * r), 1e-6, 0.99, xtol=1e-15)) * r


def record_pysdm_growth(T: float, p: float, kinetics: str, mass: float, heat: float) -> Case:
    """Record r dr/dt of PySDM's growth equation (Mason 1971) for flat water, per supersaturation."""
    formulae = Formulae(
        drop_growth="Mason1971", diffusion_kinetics=kinetics, latent_heat_vapourisation="Constant",
        diffusion_thermics="Neglect", constants={"MAC": mass, "HAC": heat},
    )  # fmt: skip
    known = formulae.constants
    D, K, lv = formulae.diffusion_thermics.D(T, p), formulae.diffusion_thermics.K(T, p), known.l_tri
    paths = formulae.diffusion_kinetics.lambdaD(D, T), formulae.diffusion_kinetics.lambdaK(T, p)
    pvs = formulae.saturation_vapour_pressure.pvs_water(T)
    rates = []
    for r in RADII:
        Fd = formulae.drop_growth.Fd(T, formulae.diffusion_kinetics.D(D, r, paths[0]), pvs)
        Fk = formulae.drop_growth.Fk(T, formulae.diffusion_kinetics.K(K, r, paths[1]), lv)
        rates.append(float(formulae.drop_growth.r_dr_dt(0.0, SUPERSATURATION, Fk, Fd) / r))
    return {
        "kinetics": kinetics, "mass_accommodation": mass, "thermal_accommodation": heat, "air_temperature": T,
        "pressure": p, "saturation_pressure": float(pvs), "vapour_diffusivity": float(D), "conductivity": float(K),
        "vapour_path": float(paths[0]), "heat_path": float(paths[1]), "latent_heat": float(lv),
        "water_density": float(known.rho_w), "vapour_gas_constant": float(known.Rv),
        "dry_air_gas_constant": float(known.Rd), "supersaturation": SUPERSATURATION, "radius": RADII.tolist(),
        "growth": rates,
    }  # fmt: skip


def maximum(curve: Callable[[float], float], dry_radius: float) -> float:
    """Find the maximum of a Köhler curve."""
    bounds = (np.log(1.01 * dry_radius), np.log(300 * dry_radius))
    found = minimize_scalar(lambda x: -curve(np.exp(x)), bounds=bounds, options={"xatol": 1e-8})
    return -float(found.fun)


def record_critical(T: float) -> Case:
    """Record the critical supersaturations: the maxima of the curves of both."""
    formulae = Formulae(hygroscopicity="KappaKoehler", surface_tension="Constant")
    known = formulae.constants

    def by_pyrcel(rd: float, kappa: float) -> float:
        return maximum(lambda r: float(Seq(r, rd, T, kappa)), rd)

    def by_pysdm(rd: float, kappa: float) -> float:
        return maximum(lambda r: formulae.hygroscopicity.RH_eq(r, T, kappa, rd**3, known.sgm_w) - 1, rd)

    rows = [(float(rd), kappa) for rd in DRY_RADII for kappa in KAPPAS]
    return {
        "air_temperature": T, "dry_radius": [rd for rd, _ in rows], "hygroscopicity": [kappa for _, kappa in rows],
        "pyrcel": {"surface_tension": float(sigma_w(T)), "water_molar_mass": c.Mw, "gas_constant": c.R,
                   "water_density": c.rho_w, "supersaturation": [by_pyrcel(*row) for row in rows]},
        "PySDM": {"surface_tension": float(known.sgm_w), "water_molar_mass": float(known.Mv),
                  "gas_constant": float(known.R_str), "water_density": float(known.rho_w),
                  "supersaturation": [by_pysdm(*row) for row in rows]},
    }  # fmt: skip


def main() -> None:
    """Write the file."""
    kinetics = (("LoweEtAl2019", 1.0, 1.0), ("LoweEtAl2019", 0.3, 1.0), ("FuchsSutugin", 1.0, 1.0),
                ("FuchsSutugin", 0.3, 0.7), ("Neglect", 1.0, 1.0))  # fmt: skip
    found = {
        "versions": {name: version(name) for name in ("pyrcel", "PySDM")},
        "pyrcel growth": [record_pyrcel_growth(*air) for air in AIR],
        "PySDM growth": [record_pysdm_growth(*air, *form) for air in AIR for form in kinetics],
        "critical": [record_critical(T) for T, _ in AIR],
    }
    OUTPUT.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(f"{OUTPUT}: written")


if __name__ == "__main__":
    main()
