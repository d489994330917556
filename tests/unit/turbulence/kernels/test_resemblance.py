"""Measures of the agreement of two states, compared with their definitions."""

import numpy as np
import pytest

from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.resemblance import flux, horizon, measure_agreement, resample, spectrum
from scimill.turbulence.kernels.solver import FlowSolver

BOX = 25.6


def field(points: int, modes: list[tuple[int, int]], seed: int = 1) -> np.ndarray:
    """Return waves of some modes with random phases, the same on any grid."""
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, len(modes))
    x = 2 * np.pi * np.arange(points) / points
    return sum(np.cos(a * x[:, None] + b * x[None, :] + p) for (a, b), p in zip(modes, phases, strict=True))


@pytest.mark.parametrize(("here", "there"), [(48, 24), (24, 48), (36, 48), (24, 24)])
def test_what_both_grids_resolve_is_kept(here: int, there: int) -> None:
    kept = [(1, 2), (-7, 7), (3, 0), (0, 5), (7, -1)]
    found = resample(field(here, kept), there)
    np.testing.assert_allclose(found, field(there, kept), atol=1e-12)


def test_what_the_coarse_grid_does_not_resolve_is_left_out() -> None:
    assert np.abs(resample(field(48, [(8, 0), (2, 9), (-12, 3)]), 24)).max() < 1e-12


def test_errors_are_relative_and_correlation_ignores_the_amplitude() -> None:
    truth = np.stack([field(24, [(1, 2), (3, 1)]), field(24, [(2, 2), (5, 1)])])
    found = measure_agreement(np.stack([1.1 * truth[0], 0.5 * truth[1]]), truth)
    assert found == pytest.approx((0.1, 0.5, 1.0))
    other = measure_agreement(np.stack([truth[0], field(24, [(4, 4)])]), truth)
    assert other.correlation == pytest.approx(0, abs=1e-12)


def test_the_horizon_is_where_the_correlation_crosses() -> None:
    times = np.array([1.0, 2.0, 3.0])
    assert horizon(times, np.array([0.99, 0.97, 0.5]), 0.98) == pytest.approx(1.5)
    assert horizon(times, np.array([0.96, 0.5, 0.1]), 0.98) == pytest.approx(0.5)
    assert horizon(times, np.array([0.99, 0.99, 0.985]), 0.98) == 3.0
    assert horizon(times, np.array([0.99, np.nan, np.nan]), 0.98) == 1.0
    assert horizon(times, np.array([0.9, 0.99, 0.99]), 0.95) == pytest.approx(0.5)


def test_the_flux_is_that_of_the_solver() -> None:
    solver = FlowSolver(FlowPhysics(box=BOX), 48)
    solver.load(field(48, [(1, 2), (3, 1), (0, 4)]), field(48, [(1, 2), (3, 1), (0, 4)], 2))
    state = np.stack(solver.fields())
    assert flux(state, BOX) == pytest.approx(solver.diagnose().values["particle_flux"], rel=1e-12)
    assert abs(flux(state, BOX)) > 1e-2


def test_a_spectrum_holds_all_of_the_enstrophy_in_its_shells() -> None:
    vorticity = field(48, [(3, 4), (0, 2), (-6, 8)])
    found = spectrum(vorticity)
    assert found.sum() == pytest.approx(0.5 * (vorticity**2).mean())
    assert found[[5, 2, 10]] == pytest.approx([0.25, 0.25, 0.25])
    assert len(found) == 24
