"""Coarse fields keep what the coarse grid resolves, exactly and in place, and nothing else."""

import numpy as np
import pytest

from scimill.turbulence.kernels import coarse

FINE, BOX = 48, 25.6


def waves(points: int, modes: list[tuple[int, int, float]]) -> np.ndarray:
    """Return a sum of cosines, given (mode in x, mode in y, phase), on a grid of a periodic box."""
    x = 2 * np.pi * np.arange(points) / points
    return sum(np.cos(mx * x[:, None] + my * x[None, :] + phase) for mx, my, phase in modes)


RESOLVED = [(0, 0, 0.3), (1, 0, 0.1), (0, 2, 0.5), (3, -2, 0.7), (-4, 5, 1.1), (5, 5, 2.0)]
"""Modes below the Nyquist mode, 6, of a grid of 12 points."""


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_truncation_keeps_resolved_modes_exactly(factor: int) -> None:
    coarsened = coarse.coarsen(waves(FINE, RESOLVED), factor, "spectral")
    np.testing.assert_allclose(coarsened, waves(FINE // factor, RESOLVED), atol=1e-14)


def test_truncation_lets_no_finer_mode_in() -> None:
    finer = waves(FINE, [(6, 0, 0.2), (7, 1, 0.4), (13, -3, 1.0), (24, 24, 0.0), (0, 11, 0.9)])
    np.testing.assert_allclose(coarse.coarsen(finer, 4, "spectral"), 0, atol=1e-14)


def test_sampling_takes_the_values_at_the_points() -> None:
    field = np.random.default_rng(1).standard_normal((FINE, FINE))
    coarsened = coarse.coarsen(field, 4, "sample")
    assert coarsened[3, 5] == field[12, 20]
    coarsened[...] = 0
    assert field[12, 20] != 0


@pytest.mark.parametrize(("factor", "mode"), [(2, 1), (3, 2), (4, 3), (4, 5), (8, 1)])
def test_means_stay_at_their_points_and_have_the_known_amplitude(factor: int, mode: int) -> None:
    angle = 2 * np.pi * mode / FINE  # per fine cell
    weight = np.tan(angle / 2) if factor % 2 == 0 else np.sin(angle / 2)  # the trapezoidal rule halves the ends
    response = np.sin(factor * angle / 2) / (factor * weight)
    along_x = coarse.coarsen(waves(FINE, [(mode, 0, 0.4)]), factor, "mean")
    np.testing.assert_allclose(along_x, response * waves(FINE // factor, [(mode, 0, 0.4)]), atol=1e-14)
    both = coarse.coarsen(waves(FINE, [(mode, mode, 0.4)]), factor, "mean")
    np.testing.assert_allclose(both, response**2 * waves(FINE // factor, [(mode, mode, 0.4)]), atol=1e-14)


@pytest.mark.parametrize("method", coarse.METHODS)
def test_many_fields_at_once_are_each_coarsened(method: str) -> None:
    fields = np.random.default_rng(2).standard_normal((2, 3, 24, 24))
    together = coarse.coarsen(fields, 3, method)
    assert together.shape == (2, 3, 8, 8)
    np.testing.assert_allclose(together[1, 2], coarse.coarsen(fields[1, 2], 3, method), atol=1e-15)


@pytest.mark.parametrize("method", coarse.METHODS)
def test_a_coarse_state_has_a_potential(method: str) -> None:
    density, vorticity = np.random.default_rng(3).standard_normal((2, FINE, FINE))
    vorticity -= vorticity.mean()
    coarse_density, coarse_vorticity = coarse.coarsen_state(density, vorticity, 4, method)
    assert abs(coarse_vorticity.mean()) < 1e-16
    np.testing.assert_array_equal(coarse_density, coarse.coarsen(density, 4, method))


@pytest.mark.parametrize("method", ["spectral", "mean"])
def test_the_mean_is_kept(method: str) -> None:
    field = np.random.default_rng(4).standard_normal((FINE, FINE)) + 3
    assert coarse.coarsen(field, 4, method).mean() == pytest.approx(field.mean(), abs=1e-13)


def test_a_factor_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="5 does not divide a grid of 48 x 48"):
        coarse.coarsen(np.zeros((FINE, FINE)), 5, "spectral")


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown method 'median'; allowed: spectral, mean, sample"):
        coarse.coarsen(np.zeros((FINE, FINE)), 4, "median")
