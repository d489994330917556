"""Training of the network that corrects coarse steps: the task for the training engine."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.errors import InputError, NumericalError
from scimill.parallel.world import World
from scimill.store.reader import Reader
from scimill.training.directory import RunDirectory
from scimill.training.run import train
from scimill.turbulence.corrections import CoarseStep, Corrections
from scimill.turbulence.kernels.solver import DivergenceError
from scimill.turbulence.learning.models import load_network
from scimill.turbulence.learning.network import (
    CORRECTIONS,
    VARIABLES,
    Advance,
    CorrectionNetworkSpec,
    CorrectionTask,
    in_band,
)
from scimill.turbulence.params import TurbulenceTrainConfig

MEASURED_PAIRS = 64
"""Pairs, spread over the store, from which the scale of the corrections within the band is measured."""
COARSE_STEP_FIELDS = ("points", "box", "step", "substeps", "scheme", "physics")
"""Fields that must be equal in two specs before weights can be reused."""


def train_network(config: TurbulenceTrainConfig, store: Path, directory: RunDirectory, world: World) -> bool:
    """Train on a store of corrections; see `scimill.training.run.train`."""
    return train(lambda reader: make_task(config, reader, world), store, directory, config, world)


def make_task(config: TurbulenceTrainConfig, reader: Reader, world: World) -> CorrectionTask:
    """Make the training task for a store; collective.

    Raises
    ------
    InputError : not a store of corrections, or the initial weights are for another coarse step or network.
    """
    data = Corrections(reader)
    spec, weights = make_spec(config, data, world), None
    if config.weights is not None:
        network, content = load_network(Path(config.weights))
        _require_same(network.spec, spec, config.weights)
        spec, weights = network.spec, content["state"]
    return CorrectionTask(
        spec, config.seed, data.members.tolist(), span=config.unroll, augmented=config.augment, weights=weights,
        advance=make_advance(data) if config.unroll > 1 else None,
    )  # fmt: skip


def make_spec(config: TurbulenceTrainConfig, data: Corrections, world: World) -> CorrectionNetworkSpec:
    """Return the definition of the network for a store; collective."""
    band = (config.lowest_mode, float(data.points) if config.highest_mode is None else config.highest_mode)
    return CorrectionNetworkSpec(
        hidden=config.hidden,
        activation=config.activation,
        points=data.points,
        box=data.box,
        step=data.duration,
        substeps=data.substeps,
        scheme=data.scheme,
        physics=vars(data.physics),
        input_scale=tuple(float(np.hypot(data.statistics[n].mean, data.statistics[n].std)) for n in VARIABLES),
        output_scale=measure(data, band, world),
        band=band,
    )


def measure(data: Corrections, band: tuple[float, float], world: World) -> tuple[float, ...]:
    """Return the root mean square of each correction within the band; the ranks share the reading. Collective.

    Raises
    ------
    InputError : there is no correction in the band.
    """
    chosen = np.unique(np.linspace(0, len(data) - 1, MEASURED_PAIRS).astype(int))
    inside = in_band(data.points, band)
    mine = [_squares(data.rows(pair), inside) for pair in chosen[world.rank :: world.size].tolist()]
    shared = np.zeros((len(chosen), len(CORRECTIONS)))
    for rank, part in enumerate(world.gather_all(mine)):
        shared[rank :: world.size] = part
    scales = np.sqrt(shared.mean(axis=0))
    if not np.all(scales > 0):
        where = f"modes {band[0]:g} to {band[1]:g} of {data.reader.path}"
        raise InputError("all corrections are zero in this band", where=where, remedy="choose another --lowest-mode")
    return tuple(scales.tolist())


def _squares(rows: Mapping[str, NDArray[Any]], inside: NDArray[np.bool_]) -> list[float]:
    """Return the mean square of each correction of a pair within the band."""
    fields = [rows[name].astype(np.float64) for name in CORRECTIONS]
    limited = [np.fft.irfft2(np.fft.rfft2(field) * inside, s=field.shape) for field in fields]
    return [float((field**2).mean()) for field in limited]


def _require_same(stored: CorrectionNetworkSpec, asked: CorrectionNetworkSpec, where: str) -> None:
    """Refuse initial weights of another network or another coarse step."""
    names = [
        name
        for name in (*COARSE_STEP_FIELDS, "hidden", "activation", "band")
        if getattr(stored, name) != getattr(asked, name)
    ]
    if names:
        what = "; ".join(f"{name} was {getattr(stored, name)}, is {getattr(asked, name)}" for name in names)
        raise InputError(f"the weights belong to a different network: {what}", where=where)


def make_advance(data: Corrections) -> Advance:
    """Return the function that makes the coarse step of a store of corrections, from any state.

    That function raises `NumericalError` if the step is unstable.
    """
    step = CoarseStep(data.physics, data.points, data.scheme, data.duration, data.substeps)

    def advance(state: NDArray[np.float64]) -> NDArray[np.float64]:
        try:
            return np.stack(step.advance((state[0], state[1])))
        except DivergenceError as error:
            remedy = "train longer with --unroll 1 first, or use a smaller --unroll"
            raise NumericalError(f"the coarse step fails from a corrected state: {error}", remedy=remedy) from None

    return advance
