"""Errors of a network along traces, and by region."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scimill.droplets import arguments, origin
from scimill.droplets.kernels import solver
from scimill.droplets.learning.follow import Array, TracePieces, change_points, deviations, follow, read_pieces
from scimill.droplets.learning.formulas import MODEL_INPUTS
from scimill.droplets.learning.network import DropletNetwork, predict
from scimill.droplets.params import DropletsGenerateConfig, TraceScoreConfig
from scimill.store.reader import Reader

REGIONS = {
    "initial_radius": ("radius", "m", (1e-7, 1e-6, 1e-5, 1e-4)),
    "relative_humidity": ("humidity", "", (0.9, 1.0, 1.01)),
    "time": ("step", "s", (0.01, 0.1, 1.0)),
}
"""Inputs by which errors are divided: name, unit, and limits of the regions."""


class TraceErrors(NamedTuple):
    """Deviations of a network, of the exact integrator and of unchanged droplets from traces, (n, 2) each.

    They are in log10 of the radius and in K, and infinite where a network left all bounds.
    """

    pieces: TracePieces
    network: Array
    exact: Array
    unchanged: Array
    one_step: Array
    """of the network, if each step starts from the state of the trace"""
    changes: NDArray[np.bool_]
    """change points of the network"""
    content: str


def measure(model: DropletNetwork, reader: Reader, config: TraceScoreConfig) -> TraceErrors:
    """Follow the traces with the network and with the exact integrator."""
    pieces = read_pieces(reader, config.most_pieces)
    made = origin.rebuild(DropletsGenerateConfig, reader, count=reader.layout.rows)
    network = deviations(follow(partial(predict, model), pieces), pieces)
    exact = deviations(follow(partial(integrate, arguments.solver_settings(made)), pieces), pieces)
    tolerance = (config.radius_tolerance, config.temperature_tolerance)
    threshold = (config.radius_threshold, config.temperature_threshold)
    content = (
        f"{len(pieces.inputs):,} steps of {len(pieces.start):,} uninterrupted pieces "
        f"(of {pieces.available:,} in {reader.path.name})"
    )
    return TraceErrors(
        pieces, network, exact, deviations(pieces.first_states(), pieces),
        deviations(predict(model, pieces.inputs), pieces), change_points(network, pieces, tolerance, threshold),
        content,
    )  # fmt: skip


def integrate(settings: solver.SolverSettings, inputs: Array) -> Array:
    """Integrate one step exactly; a `follow.Step`."""
    single = inputs.astype(np.float32)
    radius, temperature, _ = solver.solve(settings, np.ascontiguousarray(single[:, :6].T), single[:, 6:])
    return np.concatenate([radius, temperature], axis=1).astype(np.float64)


def rms(values: Array) -> tuple[float, float]:
    """Return the root mean squares of both columns over the finite rows; NaN if there is none."""
    finite = values[np.isfinite(values).all(axis=1)]
    if not len(finite):
        return float("nan"), float("nan")
    radius, temperature = np.sqrt(np.mean(np.square(finite), axis=0)).tolist()
    return radius, temperature


def regions(errors: TraceErrors) -> list[dict[str, Any]]:
    """Return steps, errors of one step and deviations along traces in each region of `REGIONS` that has steps."""
    found = []
    for name, (title, unit, limits) in REGIONS.items():
        which = np.digitize(errors.pieces.inputs[:, MODEL_INPUTS.index(name)], limits)
        for region in range(len(limits) + 1):
            rows = which == region
            if rows.any():
                one, along = rms(errors.one_step[rows]), rms(errors.network[rows])
                found.append({
                    "region": f"{title} {_describe_limits(limits, region, unit)}", "steps": int(rows.sum()),
                    "one_step_radius_rmse": one[0], "one_step_temperature_rmse": one[1],
                    "radius_rmse": along[0], "temperature_rmse": along[1],
                })  # fmt: skip
    return found


def _describe_limits(limits: tuple[float, ...], region: int, unit: str) -> str:
    low = f"{limits[region - 1]:g}" if region else ""
    high = f"{limits[region]:g}" if region < len(limits) else ""
    words = f"{low} to {high}" if low and high else f"below {high}" if high else f"from {low}"
    return f"{words} {unit}".rstrip()
