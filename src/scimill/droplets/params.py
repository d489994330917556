"""Parameters of the droplet commands.

The defaults are the ``classic`` preset: the ranges, constants and salinity of the generator whose data trained the
published networks (RichterLab/NTLP, April 2025).
"""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import model_validator
from pydantic.dataclasses import dataclass

from scimill.config import (
    REQUIRED,
    STRICT,
    File,
    Number,
    PositiveNumbers,
    PositiveRange,
    Range,
    Run,
    Switch,
    Whole,
    Widths,
    declare_optional,
    parameter,
    parameters_of,
)
from scimill.training.params import TrainingConfig

HIGHEST_HUMIDITY = 10.0  # relative; no cloud comes close
MOST_DEVIATIONS = 8  # a normal number lies further below its mean once in 1.6e15 draws


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Salt:
    """Salt."""

    salinity_kind: Literal["salt-mass", "solute-term"] = parameter(
        "salt-mass", "meaning of salinity: the mass of salt, or the solute term itself"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Blocks:
    """Blocks."""

    block_size: Whole = parameter(65_536, "droplets per block, the unit of work, writing and resuming", ge=16, le=2**24)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropletCorrections:
    """Corrections for small, salty and falling droplets, all off by default."""

    mass_accommodation: Number | None = parameter(
        None, "mass accommodation coefficient; if given, vapour diffuses to small droplets more slowly", gt=0, le=1
    )
    thermal_accommodation: Number | None = parameter(
        None, "thermal accommodation coefficient; if given, heat leaves small droplets more slowly", gt=0, le=1
    )
    transition: Literal["jump", "fuchs-sutugin"] = parameter(
        "jump", "form of both corrections between free molecules and continuum"
    )
    water_activity: Literal["dilute", "kappa-koehler"] = parameter(
        "dilute", "kappa-koehler: a dry core of salt takes up space, and the droplet never shrinks below it"
    )
    ventilation: Literal["none", "constant", "terminal"] = parameter(
        "none", "air flow past the droplet: none, relative_velocity, or its terminal velocity"
    )
    relative_velocity: Number | None = parameter(
        None, "velocity of the air past the droplet, for constant ventilation", unit="m/s", gt=0, le=100
    )
    air_molar_mass: Number = parameter(0.0289647, "molar mass of dry air", unit="kg/mol", gt=0)
    gravity: Number = parameter(9.80665, "acceleration of free fall", unit="m/s2", gt=0)

    @model_validator(mode="after")
    def _has_velocity(self) -> Self:
        if self.ventilation == "constant" and self.relative_velocity is None:
            raise ValueError("constant ventilation needs relative_velocity")
        if self.ventilation != "constant" and self.relative_velocity is not None:
            raise ValueError("relative_velocity has no effect without ventilation: constant")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropletPhysics(Salt, DropletCorrections):
    """Physical constants."""

    water_density: Number = parameter(1000.0, "density of water", unit="kg/m3", gt=0)
    water_heat_capacity: Number = parameter(4179.0, "specific heat of water", unit="J/(kg K)", gt=0)
    water_molar_mass: Number = parameter(0.018015, "molar mass of water", unit="kg/mol", gt=0)
    surface_tension: Number = parameter(7.28e-2, "surface tension of water against air", unit="N/m", ge=0)
    latent_heat: Number = parameter(2.440876e6, "latent heat of evaporation", unit="J/kg", ge=0)
    gas_constant: Number = parameter(8.3144, "universal gas constant", unit="J/(mol K)", gt=0)
    sherwood: Number = parameter(2.0, "Sherwood number (2: a sphere in still air)", gt=0)
    nusselt: Number = parameter(2.0, "Nusselt number (2: a sphere in still air)", gt=0)
    schmidt: Number = parameter(0.615, "Schmidt number of water vapour in air", gt=0)
    prandtl: Number = parameter(0.715, "Prandtl number of air", gt=0)
    air_viscosity: Number = parameter(1.57e-5, "kinematic viscosity of air", unit="m2/s", gt=0)
    air_heat_capacity: Number = parameter(1006.0, "specific heat of air", unit="J/(kg K)", gt=0)
    saturation_pressure: Number = parameter(610.94, "saturation vapour pressure at 0 °C", unit="Pa", gt=0)
    saturation_slope: Number = parameter(17.6257, "a in e = e0 exp(a t/(b + t)), t in °C", gt=0)
    saturation_offset: Number = parameter(243.04, "b in e = e0 exp(a t/(b + t)), t in °C", unit="K", gt=200)
    hygroscopicity: Number = parameter(1.2, "kappa: solute term = kappa · salt mass · water/salt density", ge=0)
    salt_density: Number = parameter(2000.0, "density of dry salt", unit="kg/m3", gt=0)

    @model_validator(mode="after")
    def _has_core(self) -> Self:
        if self.water_activity == "kappa-koehler" and self.hygroscopicity == 0:
            raise ValueError("kappa-koehler needs a hygroscopicity above 0")
        return self


MAX_STEPS = parameter(100_000, "maximum steps per droplet (timeout)", ge=10, le=10**9)
DRY_RADIUS = parameter(1e-9, "radius below which a droplet is dry", unit="m", ge=1e-10, le=1e-6)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Integration:
    """Accuracy of the integration."""

    tolerance: Number = parameter(1e-8, "relative error allowed per step; 1e-8 is exact for float32", ge=1e-12, le=1e-2)
    max_steps: Whole = MAX_STEPS
    dry_radius: Number = DRY_RADIUS


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Sampling:
    """Random droplets."""

    count: Whole = parameter(REQUIRED, "number of droplets", ge=1, le=10**13)
    samples: Whole = parameter(1, "output times per droplet, from one integration", ge=1, le=10_000)
    sampling: Literal["random", "sobol"] = parameter("random", "independent droplets, or a scrambled Sobol sequence")
    radius_range: PositiveRange = parameter((1e-8, 1e-3), "initial radius, log-uniform", unit="m")
    temperature_range: PositiveRange = parameter((273.0, 310.0), "initial temperature of the droplet", unit="K")
    temperature_offset_range: Range | None = parameter(
        None, "if given, initial temperature = air temperature + an offset from this range", unit="K"
    )
    salinity_range: PositiveRange = parameter((1e-22, 1e-10), "salinity, log-uniform", unit="kg")
    salinity_cap: Number | None = parameter(
        None, "maximum solute per water: the salinity range ends where solute term = cap · water mass", gt=0
    )
    air_temperature_range: PositiveRange = parameter((273.0, 310.0), "temperature of the air", unit="K")
    relative_humidity_range: PositiveRange = parameter((0.65, 1.1), "relative humidity, 1 is saturation")
    air_density_range: PositiveRange = parameter((0.8, 1.2), "density of the air", unit="kg/m3")
    time_range: PositiveRange = parameter((10**-3.2, 10**1.1), "output time of a droplet, log-uniform", unit="s")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Acceptance:
    """Limits of accepted results."""

    accepted_radius: PositiveRange = parameter((0.97e-8, 1.03e-3), "radius outside which a result is weird", unit="m")
    accepted_temperature: PositiveRange = parameter(
        (0.97 * 273.0, 1.03 * 310.0), "temperature outside which a result is weird", unit="K"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Resampling:
    """Resampling of weird droplets."""

    keep_weird: Switch = parameter(False, "flag weird droplets and keep them in the sample; resample none")
    weird_capacity: Number = parameter(
        0.25, "weird records stored per block, as a share of its droplets; all are counted", gt=0, le=10
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropletsGenerateConfig(DropletPhysics, Integration, Sampling, Acceptance, Resampling, Blocks, File, Run):
    """Droplets."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.block_size * self.samples > 2**26:
            raise ValueError("block_size · samples exceeds 67 million; a block would not fit into memory")
        if self.sampling == "sobol":
            from scimill.droplets.kernels.sampling import SOBOL_LENGTH  # here, since login nodes may have no numpy

            if self.count > SOBOL_LENGTH:
                raise ValueError(f"the Sobol sequence has {SOBOL_LENGTH} points, fewer than count; use random sampling")
        smallest = self.radius_range[0]
        most = most_salt_per_volume(self)
        if most is not None and most * 4.18879 * smallest**3 < self.salinity_range[0]:
            raise ValueError("salinity_cap leaves no salinity in salinity_range for the smallest droplets")
        if self.relative_humidity_range[1] > HIGHEST_HUMIDITY:
            raise ValueError(f"relative_humidity_range exceeds {HIGHEST_HUMIDITY:g}; 1 is saturation, not 100")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
@declare_optional(DropletPhysics)
class StatedPhysics:
    """Physics that made the records; unknown unless given."""

    physics: Literal["unknown", "given"] = parameter(
        "unknown", "given: by the constants below, with the defaults of generate for the others; implied by any of them"
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Record either every constant or none."""
        if not isinstance(values, Mapping):
            return values
        given = {name: values[name] for name in CONSTANTS if values.get(name) is not None}
        if not given and values.get("physics", "unknown") != "given":
            return values
        if given and values.get("physics") == "unknown":
            raise ValueError(f"physics is unknown, but {', '.join(given)} is given")
        return {**values, "physics": "given", **{name: given.get(name, CONSTANTS[name]) for name in CONSTANTS}}


CONSTANTS: Mapping[str, Any] = {
    name: known.info.default for name, known in parameters_of(DropletPhysics).items() if name != "salinity_kind"
}
"""Default of each physical constant."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropletsImportConfig(StatedPhysics, Acceptance, Blocks, File, Run):
    """Records."""

    files: tuple[str, ...] = parameter(REQUIRED, "files of records or traces, in this order", min_length=1)
    kind: Literal["auto", "records", "trace"] = parameter(
        "auto", "records: inputs and results, 9 x float32; trace: a dump of a simulation, 2 x int32 and 7 x float32"
    )
    largest_gap: Number = parameter(
        1.8, "a trace is cut where two records are further apart than this many usual steps of the particle", gt=1
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SolveConfig(DropletPhysics, Integration):
    """The droplet."""

    radius: Number = parameter(1e-5, "initial radius", unit="m", gt=0, lt=1)
    temperature: Number | None = parameter(
        None, "initial temperature; by default that of the air", unit="K", gt=100, lt=1000
    )
    salinity: Number = parameter(1e-18, "salinity", unit="kg", ge=0, lt=1)
    air_temperature: Number = parameter(293.15, "temperature of the air", unit="K", gt=100, lt=1000)
    relative_humidity: Number = parameter(0.8, "relative humidity, 1 is saturation", ge=0, le=HIGHEST_HUMIDITY)
    air_density: Number = parameter(1.2, "density of the air", unit="kg/m3", gt=0, lt=100)
    time: Number = parameter(10.0, "end of the integration", unit="s", gt=0, le=1e6)
    rows: Whole = parameter(20, "rows of the table, at logarithmically spaced times", ge=1, le=10_000)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropletsExactConfig(DropletPhysics):
    """Limits of the integration."""

    # The tolerance is an argument of the exported program.
    max_steps: Whole = MAX_STEPS
    dry_radius: Number = DRY_RADIUS


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropletNetworkShape:
    """Network."""

    network: Literal["plain", "residual", "relaxation"] = parameter(
        "residual",
        "plain: the published form; residual: learns the change; relaxation: corrects linear theory, and holds "
        "over many steps",
    )
    hidden: Widths = parameter((32, 30, 34), "neurons of each hidden layer")
    activation: Literal["relu", "silu", "tanh", "gelu"] = parameter("silu", "activation of the hidden layers")
    loss: Literal["mse", "l1", "huber"] = parameter("mse", "loss function of the errors, each divided by its scale")
    radius_scale: Number = parameter(0.02, "scale of errors in log10 of the radius", gt=0)
    temperature_scale: Number = parameter(0.12, "scale of errors in the temperature", unit="K", gt=0)
    growth_scale: Number = parameter(0.1, "scale of errors relative to the change of log10 r (only relaxation)", gt=0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropletsTrainConfig(DropletNetworkShape, TrainingConfig):
    """Threads."""

    threads: Whole | None = parameter(
        1, "threads per rank; 1 is fastest for a network this small", affects_data=False, ge=1, le=1024
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TraceScoreConfig:
    """Scoring on traces: where the deviations of a network begin to add up (CUSUM)."""

    radius_tolerance: Number = parameter(0.005, "deviation in log10 of the radius that does not add up", gt=0)
    temperature_tolerance: Number = parameter(0.05, "deviation of the temperature that does not add up", unit="K", gt=0)
    radius_threshold: Number = parameter(
        0.02, "change point: where the sum of deviations in log10 of the radius exceeds this", gt=0
    )
    temperature_threshold: Number = parameter(
        0.1, "change point: where the sum of deviations of the temperature exceeds this", unit="K", gt=0
    )
    most_pieces: Whole = parameter(10_000, "uninterrupted pieces of traces to follow, evenly chosen", ge=1, le=10**7)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RolloutAir:
    """Air of a roll-out."""

    mean_air_temperature: Number = parameter(290.0, "mean temperature of the air", unit="K", ge=200, le=400)
    air_temperature_deviation: Number = parameter(
        0.5, "standard deviation of the air temperature", unit="K", ge=0, le=10
    )
    mean_humidity: Number = parameter(1.01, "mean relative humidity, 1 is saturation", gt=0, le=HIGHEST_HUMIDITY)
    humidity_deviation: Number = parameter(0.015, "standard deviation of the relative humidity", ge=0, le=1)
    air_density: Number = parameter(1.2, "density of the air", unit="kg/m3", gt=0, lt=100)
    correlation_time: Number = parameter(
        2.0, "time after which air temperature and humidity are correlated by 1/e with their values before", unit="s",
        gt=0, le=1e9,
    )  # fmt: skip

    @model_validator(mode="after")
    def _humidity_is_positive(self) -> Self:
        if self.mean_humidity < MOST_DEVIATIONS * self.humidity_deviation:
            raise ValueError(f"mean_humidity is below {MOST_DEVIATIONS} humidity_deviation; humidity would be negative")
        return self


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RolloutDroplets:
    """Droplets of a roll-out."""

    droplets: Whole = parameter(400, "number of droplets", ge=1, le=10**7)
    salt_radius: Number = parameter(65e-9, "median radius of the dry salt, log-normal", unit="m", gt=0, lt=1e-3)
    salt_radius_deviation: Number = parameter(1.05, "geometric standard deviation of the salt's radius", ge=1, le=10)
    salt_radius_range: PositiveRange = parameter(
        (1e-8, 1.5e-6), "smallest and largest radius of the salt; a radius outside is moved to the limit", unit="m"
    )
    salt_hygroscopicity: Number = parameter(
        1.2, "kappa of the salt: solute term = kappa · volume · water density", gt=0
    )
    start: Literal["range", "multiple", "equilibrium"] = parameter(
        "range", "initial radius: from a range, a multiple of the salt's radius, or in equilibrium with a humidity"
    )
    start_range: PositiveRange = parameter((1e-6, 1.2e-5), "initial radius of start range, log-uniform", unit="m")
    start_multiple: Number = parameter(
        2.0, "initial radius over the salt's radius of start multiple; with start range, its least value", ge=1, le=1e4
    )
    start_humidity: Number = parameter(0.99, "relative humidity of start equilibrium", gt=0, lt=1)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropletsRolloutConfig(RolloutDroplets, RolloutAir):
    """Steps of a roll-out."""

    dt: PositiveNumbers = parameter((0.01, 0.1, 1.0), "time steps, each a roll-out of its own", unit="s")
    steps: Whole = parameter(500, "number of steps", ge=1, le=10**9)
    seed: Whole = parameter(1, "seed of the droplets and of the air", ge=0, lt=2**63)
    tolerance: Number = parameter(1e-8, "relative error of the exact integrator per step", ge=1e-12, le=1e-2)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DropletsScoreConfig(TraceScoreConfig, DropletsRolloutConfig):
    """Scoring."""


def solute_per_salinity(config: DropletPhysics) -> float:
    """Return the factor that turns salinity into the solute term."""
    if config.salinity_kind == "solute-term":
        return 1.0
    return config.hygroscopicity * config.water_density / config.salt_density


def most_salt_per_volume(config: DropletsGenerateConfig) -> float | None:
    """Return the largest salinity per droplet volume that the cap allows, kg/m³; None if unlimited."""
    if config.salinity_cap is None or solute_per_salinity(config) == 0:
        return None
    return config.salinity_cap * config.water_density / solute_per_salinity(config)
