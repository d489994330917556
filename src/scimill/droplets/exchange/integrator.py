"""Write the exact integrator (Rodas5P, `kernels.lanes`) as C11 or Fortran 2008 for other programs."""

import contextlib
import math
from pathlib import Path
from typing import Any

from scimill.droplets import arguments
from scimill.droplets.exchange.source_code import module_name, require_unused
from scimill.droplets.exchange.source_code import render as source_code
from scimill.droplets.kernels import lanes, rodas5p
from scimill.droplets.kernels.physics import CloudConstants
from scimill.droplets.params import DropletsExactConfig, solute_per_salinity
from scimill.errors import ConfigError, NumericalError
from scimill.files import check_target, replacing
from scimill.version import __version__

LANGUAGES = {".c": "C11", ".f90": "Fortran 2008"}
PACKAGE = "scimill.droplets.exchange"  # of the templates
STATUSES = ("DONE", "DRIED", "TOO_MANY_STEPS", "STEP_TOO_SMALL", "INVALID", "NOT_FINITE", "RUNNING")
WIDTH = {"c": 32, "f90": 32}

FINE_TOLERANCE = 1e-8
LARGEST_FIRST_STEP = 1.0
"""Fraction of the conduction time. The first step is lanes.FIRST_STEP · tolerance/FINE_TOLERANCE, between FIRST_STEP
and this. At a tolerance of 1e-8 or less it is that of the Python kernel; at 1e-5 it saves two or three of seven to
nine steps, and the error of the radius stays the same."""

MEANINGS = {
    "growth": "a = Sh nu Mw/(2 Sc rho_w Ru), m2 K/(Pa s)",
    "conduction": "b = 3 Nu nu c_air/(2 Pr c_w rho_w), m5/(kg s)",
    "latent": "3 Lv/c_w, K",
    "clapeyron": "Lv Mw/Ru, K",
    "kelvin": "2 Mw surface tension/(Ru rho_w), m K",
    "raoult": "3/(4 pi rho_w), m3/kg",
    "saturation_pressure": "e at 0 degrees Celsius, Pa",
    "saturation_slope": "a in e = e0 exp(a t/(b + t))",
    "saturation_offset": "b in it, K",
    "solute_per_salinity": "solute term per salinity",
    "dry_radius": "radius at which a droplet is dry, m",
    "max_steps": "limit of trial steps per droplet",
    "smallest_u": "m2: a trial point below is rejected",
    "smallest_t": "K: a trial point below is rejected",
    "first_step": "first step, as a fraction of the conduction time",
    "largest_first_step": "limit of the first step at loose tolerances",
    "fine_tolerance": "tolerance up to which the first step is the smallest",
    "shortest_step": "fraction of the conduction time below which rounding dominates",
    "safety": "of the step size",
    "smallest_factor": "limit of the change of the step size",
    "largest_factor": "limit of the change of the step size",
    "negligible_error": "squared error below which largest_factor is sure",
}
"""Meaning and unit of each constant of an exported program."""


def export(config: DropletsExactConfig, path: Path, *, overwrite: bool) -> str:
    """Write the integrator of a configuration; the suffix of `path` chooses the language.

    Returns
    -------
    A description of the exported program.

    Raises
    ------
    ConfigError : unknown suffix, equations with corrections, or a name that Fortran does not allow.
    NumericalError : the constants cannot be computed.
    StorageError : the file exists, or cannot be written.

    """
    language = LANGUAGES.get(path.suffix)
    if language is None:
        what = f"no language has the suffix '{path.suffix}'" if path.suffix else "the file has no suffix"
        raise ConfigError(what, where=str(path), allowed=".c for C11, .f90 for Fortran 2008")
    _require_original_equations(config)
    check_target(path, overwrite=overwrite)
    text = render(config, path)
    with replacing(path, "integrator") as part:
        part.write_text(text, "ascii")
    return f"exact integrator in {language}"


def _require_original_equations(config: DropletsExactConfig) -> None:
    if isinstance(arguments.constants(config), CloudConstants):
        raise ConfigError(
            "only the original equations can be exported, without corrections for small, salty and falling droplets",
            where="scimill droplets export --exact",
            allowed="--water-activity dilute, --ventilation none, no accommodation",
            remedy="use --preset classic or ntlp-2026",
        )  # fmt: skip


def render(config: DropletsExactConfig, path: Path) -> str:
    """Render the source code that belongs into `path`."""
    module = module_name(path) if path.suffix == ".f90" else ""
    values = {
        "version": __version__,
        "file": path.name.encode("ascii", "replace").decode(),
        "module": module,
        "width": WIDTH[path.suffix[1:]],
        "salinity": "salinity is the salt mass"
        if config.salinity_kind == "salt-mass"
        else "salinity is the solute term",
        "statuses": [(name, getattr(lanes, name)) for name in STATUSES],
        "constants": [(name, value, MEANINGS[name]) for name, value in finite_constants(config).items()],
        "gamma": rodas5p.GAMMA,
        "stages": stages(),
    }
    real = _c_real if path.suffix == ".c" else _fortran_real
    text = source_code(PACKAGE, f"integrator{path.suffix}.j2", {"real": real}, values)
    if module:
        require_unused(module, text, path)
    return text


def finite_constants(config: DropletsExactConfig) -> dict[str, float]:
    """Return `constants`, unless one of them cannot be computed."""
    with contextlib.suppress(ArithmeticError):
        found = constants(config)
        if all(map(math.isfinite, found.values())):
            return found
    raise NumericalError("the constants of the equations cannot be computed", remedy="check the physical constants")


def constants(config: DropletsExactConfig) -> dict[str, float]:
    """Return the numbers that an exported program uses, by name, in SI units."""
    physics = {name: getattr(config, name) for name in ("saturation_pressure", "saturation_slope", "saturation_offset")}
    method = {name: getattr(rodas5p, name.upper()) for name in ("safety", "smallest_factor", "largest_factor")}
    control = {
        name: getattr(lanes, name.upper()) for name in ("smallest_u", "smallest_t", "first_step", "shortest_step")
    }
    negligible = (method["safety"] / method["largest_factor"]) ** (32 / 3)
    return {
        **arguments.constants(config)._asdict(),
        **physics,
        "solute_per_salinity": solute_per_salinity(config),
        "dry_radius": config.dry_radius,
        "max_steps": config.max_steps,
        **control,
        "largest_first_step": LARGEST_FIRST_STEP,
        "fine_tolerance": FINE_TOLERANCE,
        **method,
        "negligible_error": 0.99 * negligible,  # rounding cannot move the clipped factor then
    }


def stages() -> list[dict[str, Any]]:
    """Return number and coefficients of stages 2 to 8; the last two continue from the point of the stage before."""
    rows = (*rodas5p.A, (), ())
    return [{"number": i, "a": a, "c": c} for i, (a, c) in enumerate(zip(rows, rodas5p.C, strict=True), 2)]


def _c_real(value: float) -> str:
    """Write a literal that restores float64 exactly; negative ones in parentheses."""
    return f"{value:.16e}" if value >= 0 else f"({value:.16e})"


def _fortran_real(value: float) -> str:
    return f"{value:.16e}_wp" if value >= 0 else f"({value:.16e}_wp)"
