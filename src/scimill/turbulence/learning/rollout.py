"""Corrected runs: the coarse solver, with a correction by the model after each coarse step."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill import config as configuration
from scimill.errors import InputError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.training.inference import InferenceModel
from scimill.turbulence import simulate as simulation
from scimill.turbulence.kernels.band import Band
from scimill.turbulence.kernels.fourier import Choice
from scimill.turbulence.kernels.halos import Halos
from scimill.turbulence.kernels.slabs import Team
from scimill.turbulence.kernels.solver import FlowSolver
from scimill.turbulence.learning.models import open_correction
from scimill.turbulence.learning.network import VARIABLES, CorrectionNetworkSpec
from scimill.turbulence.params import RolloutConfig, RolloutRecord, SimulateConfig
from scimill.turbulence.snapshots import Snapshots, open_snapshots, physics

Grid = NDArray[np.floating]


class CorrectedSolver(FlowSolver):
    """A solver that corrects the state after each coarse step.

    Parameters
    ----------
    spec, model : definition of the coarse step, and the model that corrects it.
    precision, team, fft : see `FlowSolver`.

    """

    def __init__(
        self,
        spec: CorrectionNetworkSpec,
        model: InferenceModel,
        precision: Any = "float64",
        team: Team | None = None,
        fft: Choice = "auto",
    ) -> None:
        equations = physics(dict(spec.physics))
        super().__init__(equations, spec.points, spec.scheme, precision, team, fft=fft)  # type: ignore[arg-type]
        self._spec, self._model = spec, model
        self._band = Band(equations, spec.points, spec.band, self._team, self.library)
        self._halos = Halos(self.rows, spec.points, spec.radius, self._team)

    def advance(self, duration: float, step: float | None = None) -> None:
        """Advance by coarse steps, with a correction after each. Collective.

        Parameters
        ----------
        duration : time to advance, a multiple of the coarse step.
        step : ignored; the coarse step sets the step.

        Raises
        ------
        DivergenceError : the state has NaN or infinite values, or the coarse step is too long for the flow.
        """
        spec = self._spec
        for _ in range(round(duration / spec.step)):
            super().advance(spec.step, spec.step / spec.substeps)
            self.correct()

    def correct(self) -> None:
        """Add the correction to the state. Collective."""
        density, vorticity = self.fields()
        state = np.stack([density, vorticity, self.potential()]).astype(np.float32)
        around = self._halos.surround(state)
        correction = np.zeros((2, *density.shape))
        if density.size:
            correction[:] = self._model(around[None])[0]
        self.add(*self._band(*correction))


# ---- a store of a corrected run ---------------------------------------------------------------------------------


def rollout(config: RolloutConfig, output: Output, world: World) -> bool:
    """Make a corrected run in a store like that of `simulate`; collective. Return False if it was already complete.

    Raises
    ------
    InputError : the model is missing or damaged, or its grid, physics, variables or coarse step do not match.
    Stopped : before the walltime or on a signal; rerun with ``resume``.
    ScimillError : see `simulate.simulate`.
    """
    record = world.on_root(make_record, config)
    with world.together():
        correction = open_correction(config.model, world.rank)
    try:

        def make_solver(_: SimulateConfig, team: World) -> FlowSolver:
            return CorrectedSolver(correction.spec, correction.model, config.precision, team, config.fft)

        return simulation.simulate(record, output, world, make_solver, maker="rollout")
    finally:
        correction.close()


def describe_rollout(config: RolloutConfig, output: Output, ranks: int) -> str:
    """Check the model and the snapshot and describe what a corrected run would do, for ``--dry-run``."""
    record = make_record(config)
    model = {"model": f"{config.model}, correcting every {record.coarse_step:g}"}
    return simulation.describe_simulation(record, output, ranks, model)


def make_record(config: RolloutConfig) -> RolloutRecord:
    """Return the configuration to store with a corrected run: that of `simulate`, and the model.

    Raises
    ------
    InputError : see `rollout`.
    """
    correction = open_correction(config.model)
    correction.close()
    spec = correction.spec
    with open_snapshots(Path(config.from_)) as store:
        check_step(spec, config.coarse_step, config.model)
        check_physics(spec, store, config.model)
        check_grid(spec, store, config.model)
        members = store.members
    own = {name: value for name, value in configuration.plain(config).items() if name != "coarse_step"}
    made = {
        **spec.physics, "points": spec.points, "scheme": spec.scheme, "step": spec.step / spec.substeps,
        "coarse_step": spec.step, "interval": config.every * spec.step, "members": members,
        "model_identity": correction.identity,
    }  # fmt: skip
    return configuration.build(RolloutRecord, [configuration.Layer("the model and the store", {**own, **made})])


def check_step(spec: CorrectionNetworkSpec, coarse_step: float | None, model: str) -> None:
    """Refuse a model whose coarse step is not the requested one.

    Raises
    ------
    InputError : the coarse steps differ.
    """
    if coarse_step is not None and not np.isclose(coarse_step, spec.step, rtol=1e-9):
        what = f"the model corrects coarse steps of {spec.step:g}, not of {coarse_step:g}"
        raise InputError(what, where=model, remedy="omit --coarse-step, or train another model")


def check_physics(spec: CorrectionNetworkSpec, store: Snapshots, model: str) -> None:
    """Refuse a model with other variables than ours, or with other physics than the snapshots.

    Raises
    ------
    InputError : the variables or the physics differ.
    """
    if spec.variables != VARIABLES:
        what = f"the model uses the variables {', '.join(spec.variables)}"
        raise InputError(what, where=model, allowed=", ".join(VARIABLES))
    ours = dataclasses.asdict(store.physics)
    different = [name for name, value in spec.physics.items() if ours.get(name) != value]
    if different:
        what = "; ".join(f"{name} was {spec.physics[name]}, is {ours.get(name)}" for name in different)
        what = f"the model was trained with different parameters: {what}"
        raise InputError(what, where=f"{model}; {store.reader.path}")


def check_grid(spec: CorrectionNetworkSpec, store: Snapshots, model: str) -> None:
    """Refuse snapshots on another grid than that of the model.

    Raises
    ------
    InputError : the grids differ.
    """
    if (store.points, store.physics.box) != (spec.points, spec.box):
        here, there = (f"{n} x {n} points on a box of {box:g}, spacing {box / n:g}"
                       for n, box in ((store.points, store.physics.box), (spec.points, spec.box)))  # fmt: skip
        raise InputError(
            f"the model was trained on another grid, not {here}", where=f"{model}; {store.reader.path}", allowed=there,
            remedy="make a store on the grid of the model with scimill turbulence coarsen",
        )  # fmt: skip
