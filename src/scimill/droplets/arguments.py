"""Turn a configuration into arguments of the kernels. Not in `params`, which must not import compiled code."""

from scimill.droplets.kernels.physics import Constants, combine
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


def constants(config: DropletPhysics) -> Constants:
    """Combine the constants of the equations."""
    names = (
        "sherwood", "nusselt", "schmidt", "prandtl", "air_viscosity", "air_heat_capacity", "water_density",
        "water_heat_capacity", "water_molar_mass", "gas_constant", "surface_tension", "latent_heat",
    )  # fmt: skip
    return combine(**{name: getattr(config, name) for name in names})


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
