"""Initial states: noise that depends on its modes only, and fields of other programs' files with the right signs."""

from pathlib import Path

import numpy as np
import pytest

from scimill.config import Layer, build, preset_names, read_preset
from scimill.errors import ConfigError, InputError
from scimill.turbulence.exchange import states
from scimill.turbulence.kernels.solver import potential
from scimill.turbulence.params import SimulateConfig
from scimill.turbulence.simulate import build_solver
from scimill.turbulence.snapshots import physics

import h5py  # isort: skip  (after scimill, which keeps it from starting MPI)

POINTS = 24


def configure(**values) -> SimulateConfig:
    return build(SimulateConfig, [Layer("test", {"snapshots": 1, "points": POINTS, "noise_modes": 6, **values})])


def initial(config: SimulateConfig, member: int = 0) -> tuple[np.ndarray, np.ndarray, float]:
    return states.initial(config, member, slice(0, config.points))


def test_noise_is_the_same_on_any_grid() -> None:
    coarse, fine = (initial(configure(points=points)) for points in (POINTS, 3 * POINTS))
    for a, b in zip(coarse[:2], fine[:2], strict=True):
        np.testing.assert_allclose(a, b[::3, ::3], atol=1e-14 * np.abs(a).max())


def test_noise_has_its_amplitude_its_modes_and_a_potential_equal_to_the_density() -> None:
    config = configure(amplitude=0.3, points=48)
    density, vorticity, time = initial(config)
    assert time == 0
    assert density.std() == pytest.approx(0.3)
    modes = np.abs(np.fft.rfft2(density))
    shell = np.hypot(np.fft.fftfreq(48, 1 / 48)[:, None], np.arange(25))
    assert modes[shell > 6].max() < 1e-12 * modes.max()
    assert modes[0, 0] < 1e-12 * modes.max()
    np.testing.assert_allclose(potential(vorticity, config.box), density, atol=1e-13)


def test_noise_depends_on_seed_and_member() -> None:
    fields = [initial(configure(seed=seed), member)[0] for seed, member in ((1, 0), (1, 1), (2, 0))]
    correlations = np.corrcoef([field.ravel() for field in fields])
    assert np.abs(correlations - np.eye(3)).max() < 0.5


def test_own_rows_are_rows_of_the_whole() -> None:
    config = configure()
    whole, part = initial(config), states.initial(config, 0, slice(8, 16))
    np.testing.assert_array_equal(part[0], whole[0][8:16])


def waves() -> tuple[np.ndarray, np.ndarray]:
    """Return density and vorticity of some modes, without symmetry, on (x, z)."""
    x = 2 * np.pi * np.arange(POINTS) / POINTS
    n = np.sin(x[:, None] + 2 * x) + 0.5 * np.cos(2 * x[:, None] - x) + 0.2 * np.sin(x[:, None] * 3)
    return n, np.cos(2 * x[:, None] + x) + 0.3 * np.sin(x[:, None] + 3 * x) - 0.2 * np.cos(x)


def bout_rate(n: np.ndarray, w: np.ndarray, box: float, kappa: float) -> np.ndarray:
    """Return the rate of the density as in hw.cxx of BOUT++, without the coupling: −bracket(φ, n) − κ ∂φ/∂z."""
    k = 2 * np.pi * np.fft.fftfreq(POINTS, box / POINTS)

    def along(field: np.ndarray, axis: int) -> np.ndarray:
        shape = [-1, 1] if axis == 0 else [1, -1]
        return np.fft.ifft(1j * k.reshape(shape) * np.fft.fft(field, axis=axis), axis=axis).real

    phi = potential(w, box)
    bracket = along(phi, 1) * along(n, 0) - along(phi, 0) * along(n, 1)
    return -bracket - kappa * along(phi, 1)


@pytest.mark.parametrize("dump", [False, True])
def test_a_file_of_bout_is_mirrored_so_that_its_bracket_becomes_ours(dump: bool, tmp_path: Path) -> None:
    n, w = waves()
    path = tmp_path / "BOUT.restart.0.nc"
    with h5py.File(path, "w") as file:
        for name, field in (("n", n), ("vort", w)):
            guarded = np.pad(field, ((2, 2), (0, 0)), mode="wrap")[:, None, :]
            file[name] = np.stack([0 * guarded, guarded]) if dump else guarded
        file["MXG"], file["tt"] = 2, 12.5
        if dump:
            file["t_array"] = [10.0, 12.5]
    config = configure(from_=str(path), alpha=0, kappa=1.7, box=25.6)
    density, vorticity, time = initial(config)
    assert time == 12.5
    solver = build_solver(config)
    solver.load(density, vorticity)
    rate = np.zeros((POINTS, POINTS // 2 + 1), complex)
    modes, highest = solver._scheme.rate()[0], (POINTS - 1) // 3
    rate[: highest + 1, : highest + 1] = modes[:, : highest + 1].T
    rate[-highest:, : highest + 1] = modes[:, highest + 1 :].T
    ours = np.fft.irfft2(rate * POINTS**2)
    np.testing.assert_allclose(ours[::-1], bout_rate(n, w, 25.6, 1.7), atol=1e-12)


def test_a_file_of_hw2d_is_turned_so_that_x_is_first(tmp_path: Path) -> None:
    n, w = waves()
    with h5py.File(tmp_path / "hw2d.h5", "w") as file:
        for name, field in (("density", n), ("omega", w)):
            file[name] = np.stack([0 * field.T, field.T]).astype(np.float32)
        file["time"] = [[0.0], [3.0]]
    density, vorticity, time = initial(configure(from_=str(tmp_path / "hw2d.h5")))
    assert time == 3.0
    np.testing.assert_array_equal(density, n.astype(np.float32))
    np.testing.assert_array_equal(vorticity, w.astype(np.float32))
    first = initial(configure(from_=str(tmp_path / "hw2d.h5"), snapshot=0))
    assert np.abs(first[0]).max() == 0


def damaged(path: Path) -> None:
    n, _ = waves()
    with h5py.File(path, "w") as file:
        file["n"], file["vort"] = np.pad(n, ((2, 2), (0, 0)))[:, None, :], np.zeros(3)
    raw = bytearray(path.read_bytes())
    path.write_bytes(raw[: len(raw) // 2])


def flat(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["n"] = file["vort"] = waves()[0]


def other(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["pressure"] = waves()[0]


def smaller(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["density"] = file["omega"] = np.zeros((8, 8))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b"text"), "HDF5 cannot read"),
        (damaged, "HDF5 cannot read"),
        (flat, "guard cells"),
        (other, "no state of turbulence"),
        (smaller, "8 x 8 points, not 24 x 24"),
    ],
)
def test_a_file_that_holds_no_such_state_is_refused(make, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "state.nc"
    make(path)
    with pytest.raises(InputError, match=reason) as caught:
        initial(configure(from_=str(path)))
    assert len(str(caught.value).splitlines()) <= 4


def test_a_snapshot_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["density"] = file["omega"] = np.zeros((2, POINTS, POINTS))
    with pytest.raises(InputError, match="no such snapshot: 2"):
        initial(configure(from_=str(tmp_path / "a.h5"), snapshot=2))


@pytest.mark.parametrize(
    ("values", "reason"), [({"points": 25}, "must be even"), ({"noise_modes": 8}, "must be below a third of points")]
)
def test_a_grid_that_cannot_hold_the_state_is_refused(values: dict[str, int], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        configure(**values)


def test_presets_are_the_published_set_ups() -> None:
    assert set(preset_names("scimill.turbulence/presets")) >= {"hw2d", "simlint"}
    made = {
        name: build(SimulateConfig, [read_preset("scimill.turbulence/presets", name)]) for name in ("hw2d", "simlint")
    }
    assert physics(made["hw2d"]).wave_number(1) == pytest.approx(0.15)
    simlint = made["simlint"]
    assert (simlint.points, simlint.box, simlint.kappa, simlint.modified) == (1024, 25.6, 2.0, True)
