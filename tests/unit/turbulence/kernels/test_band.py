"""The band of corrections on slabs, compared with whole transforms; adding corrections, zero or not, to a state."""

import numpy as np
import pytest

from scimill.turbulence.kernels.band import Band
from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.slabs import SingleRankTeam
from scimill.turbulence.kernels.solver import FlowSolver
from scimill.turbulence.learning.network import in_band

POINTS = 32
PHYSICS = FlowPhysics(kappa=2.0, density_diffusion=0.01, vorticity_diffusion=0.01, modified=True, box=25.6)


def fields(seed: int = 1) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(2, POINTS, POINTS))
    return made - made.mean((1, 2), keepdims=True)


@pytest.mark.parametrize("band", [(0.0, 99.0), (4.0, 9.0), (5.0, 5.0), (3.0, 99.0)])
def test_the_band_on_slabs_is_that_of_training(band: tuple[float, float]) -> None:
    given = fields()
    wanted = np.fft.irfft2(np.fft.rfft2(given) * in_band(POINTS, band))
    found = Band(PHYSICS, POINTS, band, SingleRankTeam(), "scipy")(*given)
    np.testing.assert_allclose(np.stack(found), wanted, atol=1e-13)


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_adding_zero_changes_no_bit_of_a_run(scheme: str) -> None:
    runs = []
    for add in (True, False):
        solver = FlowSolver(PHYSICS, POINTS, scheme)
        solver.load(*fields())
        for _ in range(3):
            solver.advance(0.02, 0.01)
            if add:
                solver.add(
                    *Band(PHYSICS, POINTS, (4.0, 99.0), SingleRankTeam(), "scipy")(*np.zeros((2, POINTS, POINTS)))
                )
        runs.append(np.stack([*solver.fields(), solver.potential()]))
    np.testing.assert_array_equal(runs[0], runs[1])


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_an_increment_is_added_to_the_state(scheme: str) -> None:
    start, more = FlowSolver(PHYSICS, POINTS, scheme), FlowSolver(PHYSICS, POINTS, scheme)
    start.load(*fields(1))
    more.load(*fields(2))
    before, increment = np.stack(start.fields()), np.stack(more.fields())
    start.add(*increment)
    np.testing.assert_allclose(np.stack(start.fields()), before + increment, atol=1e-13)
    whole = FlowSolver(PHYSICS, POINTS, scheme)
    whole.load(*(before + increment))
    np.testing.assert_allclose(start.potential(), whole.potential(), atol=1e-12)
