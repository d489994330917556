"""Turn a configuration into arguments of the kernels. Not in `params`, which must not import compiled code."""

from scimill.droplets.kernels.physics import (
    CONTINUUM,
    AnyConstants,
    Lengths,
    Ventilation,
    combine,
    extend,
    fuchs_sutugin_lengths,
    jump_lengths,
)
from scimill.droplets.kernels.sampling import Ranges
from scimill.droplets.kernels.solver import SolverSettings
from scimill.droplets.kernels.weird import Limits
from scimill.droplets.params import (
    Acceptance,
    DropletPhysics,
    DropletsGenerateConfig,
    SolveConfig,
    most_salt_per_volume,
    solute_per_salinity,
)

CORRECTED = ("mass_accommodation", "thermal_accommodation", "water_activity", "ventilation")
OFF = (None, "none", "dilute")


def constants(config: DropletPhysics) -> AnyConstants:
    """Combine the constants of the equations: those of the original model, unless a correction is on."""
    names = (
        "sherwood", "nusselt", "schmidt", "prandtl", "air_viscosity", "air_heat_capacity", "water_density",
        "water_heat_capacity", "water_molar_mass", "gas_constant", "surface_tension", "latent_heat",
    )  # fmt: skip
    original = combine(**{name: getattr(config, name) for name in names})
    if all(getattr(config, name) in OFF for name in CORRECTED):
        return original
    vapour, heat = config.air_viscosity / config.schmidt, config.air_viscosity / config.prandtl
    return extend(
        original,
        _transition(config, vapour, config.mass_accommodation, config.water_molar_mass),
        _transition(config, heat, config.thermal_accommodation, config.air_molar_mass),
        config.hygroscopicity if config.water_activity == "kappa-koehler" else None,
        _ventilation(config),
    )


def _transition(config: DropletPhysics, diffusivity: float, accommodation: float | None, molar_mass: float) -> Lengths:
    """Return the lengths of `physics.transition` for vapour or heat."""
    if accommodation is None:
        return CONTINUUM
    lengths = fuchs_sutugin_lengths if config.transition == "fuchs-sutugin" else jump_lengths
    return lengths(diffusivity, accommodation, molar_mass, config.gas_constant)


def _ventilation(config: DropletPhysics) -> Ventilation:
    return Ventilation(
        slip=config.relative_velocity or 0.0,
        gravity=config.gravity if config.ventilation == "terminal" else 0.0,
        water_density=config.water_density,
        viscosity=config.air_viscosity,
        vapour=(config.schmidt, config.sherwood),
        heat=(config.prandtl, config.nusselt),
    )


def solver_settings(config: DropletsGenerateConfig | SolveConfig) -> SolverSettings:
    """Take the solver's settings from a configuration."""
    return SolverSettings(
        constants=constants(config),
        saturation=(config.saturation_pressure, config.saturation_slope, config.saturation_offset),
        solute_per_salinity=solute_per_salinity(config),
        tolerance=config.tolerance,
        # Each output time costs one extra step, which should not count against the user's limit.
        max_steps=config.max_steps + (config.samples if isinstance(config, DropletsGenerateConfig) else config.rows),
        dry_radius=config.dry_radius,
    )


def ranges(config: DropletsGenerateConfig) -> Ranges:
    """Take the sampling ranges from a configuration."""
    return Ranges(
        radius=config.radius_range,
        temperature=config.temperature_range,
        temperature_offset=config.temperature_offset_range,
        salinity=config.salinity_range,
        air_temperature=config.air_temperature_range,
        relative_humidity=config.relative_humidity_range,
        air_density=config.air_density_range,
        time=config.time_range,
        most_salt_per_volume=most_salt_per_volume(config),
    )


def limits(config: Acceptance) -> Limits:
    """Take the limits of accepted results from a configuration."""
    return Limits(config.accepted_radius, config.accepted_temperature)
