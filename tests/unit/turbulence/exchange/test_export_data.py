"""Coarse stores, exports and pictures of real runs; reflection and shifts, tested with the solver."""

from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import imageio_ffmpeg
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from scimill import pictures
from scimill.config import Layer, build
from scimill.errors import ConfigError, InputError, StorageError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.store.verify import verify
from scimill.turbulence.coarsen import coarsen
from scimill.turbulence.corrections import Corrections, make
from scimill.turbulence.exchange.export_data import export
from scimill.turbulence.kernels import augmentation, coarse
from scimill.turbulence.kernels.solver import FlowSolver, potential
from scimill.turbulence.params import CoarsenConfig, CorrectionsConfig, SimulateConfig
from scimill.turbulence.pictures import drawing, plots
from scimill.turbulence.simulate import simulate
from scimill.turbulence.snapshots import open_snapshots

ALONE = World(None)
FLOW = {"points": 32, "amplitude": 1.0, "noise_modes": 8, "snapshots": 6, "interval": 0.25, "members": 2}


def flow(output: Path, **values: Any) -> Path:
    simulate(build(SimulateConfig, [Layer("test", {**FLOW, "hyperviscosity": 1e-4, "order": 2, **values})]),
             Output(output), ALONE)  # fmt: skip
    return output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return flow(tmp_path_factory.mktemp("runs") / "run.h5", samples=2)


@pytest.fixture(scope="module")
def pairs(run: Path) -> Path:
    path = run.with_name("pairs.h5")
    make(build(CorrectionsConfig, [Layer("test", {"fine": str(run), "factor": 2})]), Output(path), ALONE)
    return path


def coarsened(run: Path, output: Path, **values: Any) -> Path:
    config = build(CoarsenConfig, [Layer("test", {"fine": str(run), "factor": 2, **values})])
    coarsen(config, Output(output), ALONE)
    return output


# ---- augmentation on the equations ------------------------------------------------------------------------------


def rate(state: np.ndarray, scheme: str, physics: Any) -> np.ndarray:
    """Estimate the right-hand side from two tiny steps; the error is the same for a state and its mirror image."""
    solver, after = FlowSolver(physics, state.shape[-1], scheme), []
    for length in (1e-3, 2e-3):
        solver.load(*state)
        solver.step(length)
        after.append(np.array(solver.fields()))
    return (after[1] - after[0]) / 1e-3


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
@pytest.mark.parametrize("modified", [False, True])
def test_reflection_and_shifts_map_solutions_to_solutions(run: Path, scheme: str, modified: bool) -> None:
    with open_snapshots(run) as store:
        physics = type(store.physics)(**{**vars(store.physics), "modified": modified, "kappa": 1.5})
        state = np.array(store.read(6))
    changes = rate(state, scheme, physics)
    size = np.abs(changes).max()
    for moved in (augmentation.reflect, lambda fields: augmentation.shift(fields, 5, 11)):
        np.testing.assert_allclose(rate(moved(state), scheme, physics), moved(changes), atol=1e-10 * size)
    for wrong in (lambda f: -f, lambda f: f[..., ::-1, :].copy(), lambda f: -f[..., ::-1].copy()):
        assert np.abs(rate(wrong(state), scheme, physics) - wrong(changes)).max() > 1e-2 * size


# ---- coarse stores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", coarse.METHODS)
def test_a_coarse_store_holds_the_coarse_states(run: Path, tmp_path: Path, method: str) -> None:
    path = coarsened(run, tmp_path / "coarse.h5", coarsening=method, start_time=0.4)
    assert verify(path, ALONE).problems == ()
    with open_snapshots(run) as fine, open_snapshots(path) as found:
        assert (found.points, found.members, found.physics) == (16, 2, fine.physics)
        np.testing.assert_array_equal(found.times, fine.times[:, 2:])
        for member, snapshot in ((0, 0), (1, 4)):
            expected = coarse.coarsen_state(*fine.read(snapshot + 2, member), 2, method)
            np.testing.assert_array_equal(found.read(snapshot, member), expected)
            assert np.abs(potential(found.read(snapshot, member)[1], found.physics.box).mean()) < 1e-15


def test_a_run_goes_on_from_a_coarse_state_of_its_own_parameters(run: Path, tmp_path: Path) -> None:
    path = coarsened(run, tmp_path / "coarse.h5")
    begun = flow(tmp_path / "on.h5", points=16, from_=str(path), noise_modes=4, snapshots=1)
    with open_snapshots(begun) as store:
        assert store.times[:, 0].tolist() == [1.5, 1.5]
    with pytest.raises(InputError, match=r"different parameters: kappa was 1.0, is 3.0"):
        flow(tmp_path / "other.h5", points=16, from_=str(path), noise_modes=4, kappa=3.0)
    with pytest.raises(InputError, match="16 x 16 points, not 32 x 32"):
        flow(tmp_path / "other.h5", from_=str(path))


# ---- exports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["well", "pdebench", "hw2d"])
def test_a_run_is_exported(run: Path, tmp_path: Path, form: str) -> None:
    path = tmp_path / "file.h5"
    assert export(run, Output(path), form, 1) == [path]
    with open_snapshots(run) as store, h5py.File(path) as file:
        density, vorticity = store.read(4, 1)
        phi = potential(vorticity, store.physics.box)
        if form == "well":
            np.testing.assert_allclose(file["t0_fields/potential"][1, 4], phi, rtol=1e-5, atol=1e-6)
            assert file["scalars/alpha"][()] == store.physics.alpha
        elif form == "pdebench":
            np.testing.assert_allclose(file["0001/data"][4, ..., 0], density, rtol=1e-6)
        else:
            np.testing.assert_allclose(file["omega"][4], vorticity.T, rtol=1e-6)
            assert (file.attrs["N"], file.attrs["nu"], file.attrs["c1"]) == (2, 1e-4, 1)
            assert file.attrs["k0"] == pytest.approx(0.15)


def test_an_exported_hw2d_file_begins_a_run(run: Path, tmp_path: Path) -> None:
    export(run, Output(tmp_path / "hw2d.h5"), "hw2d", 0)
    begun = flow(tmp_path / "on.h5", from_=str(tmp_path / "hw2d.h5"), members=1, snapshots=1)
    with open_snapshots(run) as before, open_snapshots(begun) as after:
        assert after.times[0, 0] == 1.5
        for ours, theirs in zip(after.read(0), before.read(6), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())


def test_corrections_are_exported(pairs: Path, tmp_path: Path) -> None:
    export(pairs, Output(tmp_path / "well.h5"), "well", 0)
    paths = export(pairs, Output(tmp_path / "netcdf"), "netcdf", 0)
    assert [path.name for path in paths] == ["gt_traj_1.nc", "sim_traj_1.nc", "gt_traj_2.nc", "sim_traj_2.nc"]
    with Reader.open(pairs) as reader, h5py.File(tmp_path / "well.h5") as file:
        store = Corrections(reader)
        np.testing.assert_array_equal(
            file["t0_fields/vorticity_correction"][1, 2], store.rows(8)["vorticity_correction"]
        )
        with h5netcdf.File(paths[2]) as truth, h5netcdf.File(paths[3]) as steps:
            error = truth.variables["vort"][:, 2:-2, 0] - steps.variables["vort"][1:, 2:-2, 0]
            np.testing.assert_allclose(error[2], store.rows(8)["vorticity_correction"][::-1], atol=1e-7)
            np.testing.assert_array_equal(truth.variables["t"][:], steps.variables["t"][1:])


def test_an_exported_netcdf_file_begins_a_run_as_bout_files_do(pairs: Path, tmp_path: Path) -> None:
    truth = export(pairs, Output(tmp_path / "netcdf"), "netcdf", 0)[0]
    begun = flow(tmp_path / "on.h5", points=16, noise_modes=4, from_=str(truth), members=1, snapshots=1)
    with Reader.open(pairs) as reader, open_snapshots(begun) as after:
        rows = Corrections(reader).rows(5)
        for ours, name in zip(after.read(0), ("density", "vorticity"), strict=True):
            theirs = rows[name] + rows[f"{name}_correction"]
            np.testing.assert_allclose(ours, theirs, atol=1e-6 * np.abs(theirs).max())


@pytest.mark.parametrize(
    ("form", "match"),
    [("netcdf", "does not support stores of snapshots"), ("hw2d", "no such member: 5")],
    ids=["netcdf", "hw2d"],
)
def test_what_a_layout_is_not_for(run: Path, tmp_path: Path, form: str, match: str) -> None:
    with pytest.raises((InputError, ConfigError), match=match):
        export(run, Output(tmp_path / "a"), form, 5)
    assert not list(tmp_path.iterdir())


def test_hw2d_has_no_modified_equations(tmp_path: Path) -> None:
    path = flow(tmp_path / "modified.h5", modified=True, snapshots=1)
    with pytest.raises(InputError, match="hw2d does not support these equations"):
        export(path, Output(tmp_path / "a.h5"), "hw2d", 0)


def test_an_export_replaces_nothing_unless_told_to(pairs: Path, tmp_path: Path) -> None:
    export(pairs, Output(tmp_path / "netcdf"), "netcdf", 0)
    with pytest.raises(StorageError, match="exists"):
        export(pairs, Output(tmp_path / "netcdf"), "netcdf", 0)
    export(pairs, Output(tmp_path / "netcdf", overwrite=True), "netcdf", 0)


# ---- pictures ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def low_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "DPI", 30)
    monkeypatch.setattr(drawing, "FRAME_DPI", 20)


def is_drawn(path: Path) -> bool:
    """Return whether a picture has the right size and many colours."""
    with Image.open(path) as picture:
        return picture.size == (400, 225) and len(picture.convert("RGB").getcolors(2**24)) > 100


def test_pictures_of_a_run(run: Path, tmp_path: Path) -> None:
    paths = plots.plot_store(run, tmp_path / "pictures", 1, "gif")
    assert [path.name for path in paths] == ["fields.png", "spectra.png", "traces.png", "animation.gif"]
    assert all(is_drawn(path) for path in paths[:3])
    with Image.open(paths[3]) as animation:
        assert animation.n_frames == FLOW["snapshots"] + 1
    assert sorted(p.name for p in (tmp_path / "pictures").iterdir()) == sorted(path.name for path in paths)


def test_pictures_of_corrections_and_of_coarse_states(run: Path, pairs: Path, tmp_path: Path) -> None:
    for store in (pairs, coarsened(run, tmp_path / "coarse.h5")):
        paths = plots.plot_store(store, tmp_path / store.stem, 0, "none")
        assert [path.name for path in paths] == ["fields.png", "spectra.png"]
        assert all(is_drawn(path) for path in paths)


def test_an_mp4_is_made_by_ffmpeg_or_refused(run: Path, tmp_path: Path) -> None:
    with mpl.rc_context({"animation.ffmpeg_path": str(tmp_path / "no-ffmpeg")}):
        with pytest.raises(ConfigError, match="an MP4 needs ffmpeg"):
            plots.plot_store(run, tmp_path / "pictures", 0, "mp4")
        assert not (tmp_path / "pictures").exists()
    frames = [drawing.FieldFrame(float(time), {"density": np.full((8, 8), time)}) for time in range(3)]
    with mpl.rc_context({"animation.ffmpeg_path": imageio_ffmpeg.get_ffmpeg_exe()}):
        drawing.animate(frames, {"density": 1.0}, 25.6, tmp_path / "animation.mp4")
    count, _ = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "animation.mp4"))
    assert count == len(frames)
    assert [path.name for path in tmp_path.iterdir()] == ["animation.mp4"]


def test_a_member_that_is_not_there(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such member: 2"):
        plots.plot_store(run, tmp_path / "pictures", 2, "none")
