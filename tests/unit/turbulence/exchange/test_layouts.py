"""Layouts of other projects: files meet the requirements of their readers, which find the right values."""

from collections.abc import Mapping
from pathlib import Path

import h5netcdf
import h5py
import numpy as np
import pytest

from scimill.errors import StorageError
from scimill.store.foreign import write_hdf5, write_netcdf
from scimill.store.output import Output
from scimill.turbulence.exchange import layouts
from scimill.turbulence.exchange.layouts import Trajectories

POINTS, BOX, MEMBERS = 12, 25.6, 2
TIMES = np.array([1.0, 1.5, 2.0, 2.5])
STATE = ("density", "vorticity", "potential")
CHANGES = ("density_correction", "vorticity_correction")


def fields(member: int, index: int) -> Mapping[str, np.ndarray]:
    stream = np.random.default_rng([member, index])
    return {name: stream.standard_normal((POINTS, POINTS)) for name in (*STATE, *CHANGES)}


@pytest.fixture
def runs() -> Trajectories:
    parameters = {"adiabaticity": 1.0, "gradient": 2.0}
    return Trajectories("example", POINTS, BOX, parameters, TIMES, MEMBERS, STATE, fields)


def is_flag(value: object) -> bool:
    return isinstance(value, bool | np.bool_)


def assert_names(owner: h5py.Group, key: str, names: list[str]) -> None:
    assert isinstance(owner.attrs[key], np.ndarray)
    assert list(owner.attrs[key]) == names


# ---- The Well: the rules of its formatting checker ---------------------------------------------------------------


@pytest.fixture
def well(runs: Trajectories, tmp_path: Path) -> h5py.File:
    write_hdf5(layouts.well(runs), tmp_path / "source.h5", Output(tmp_path / "well.h5"))
    with h5py.File(tmp_path / "well.h5") as file:
        yield file


def test_well_root_tells_the_data_set(well: h5py.File) -> None:
    assert well.attrs["dataset_name"] == "example"
    assert well.attrs["grid_type"] == "cartesian"
    assert (well.attrs["n_spatial_dims"], well.attrs["n_trajectories"]) == (2, MEMBERS)
    assert isinstance(well.attrs["n_trajectories"], np.integer)
    assert_names(well, "simulation_parameters", ["adiabaticity", "gradient"])
    assert well.attrs["gradient"] == 2.0


def test_well_dimensions(well: h5py.File) -> None:
    dimensions = well["dimensions"]
    assert_names(dimensions, "spatial_dims", ["x", "y"])
    np.testing.assert_allclose(dimensions["time"], TIMES)
    np.testing.assert_allclose(dimensions["x"], np.arange(POINTS) * BOX / POINTS, rtol=1e-6)
    assert is_flag(dimensions["time"].attrs["sample_varying"])
    assert all(is_flag(dimensions[a].attrs[k]) for a in "xy" for k in ("sample_varying", "time_varying"))


@pytest.mark.parametrize(("order", "names"), [(0, list(STATE)), (1, ["velocity"]), (2, [])])
def test_well_fields(well: h5py.File, order: int, names: list[str]) -> None:
    group = well[f"t{order}_fields"]
    assert_names(group, "field_names", names)
    assert set(group) == set(names)
    for name in names:
        assert group[name].dtype == np.float32
        assert group[name].shape == (MEMBERS, len(TIMES), POINTS, POINTS) + (2,) * order
        assert is_flag(group[name].attrs["sample_varying"])
        assert is_flag(group[name].attrs["time_varying"])
        assert group[name].attrs["dim_varying"].dtype == bool
        assert group[name].attrs["dim_varying"].tolist() == [True, True]


def test_well_values_are_at_their_places(well: h5py.File) -> None:
    for member, index in ((0, 0), (1, 2)):
        stored = well["t0_fields/vorticity"][member, index]
        np.testing.assert_array_equal(stored, fields(member, index)["vorticity"].astype(np.float32))


def test_well_scalars_and_boundaries(well: h5py.File) -> None:
    assert_names(well["scalars"], "field_names", ["adiabaticity", "gradient"])
    assert well["scalars/gradient"].shape == ()
    assert well["scalars/gradient"][()] == 2
    for axis in "xy":
        boundary = well[f"boundary_conditions/{axis}_periodic"]
        assert boundary.attrs["bc_type"] == "PERIODIC"
        assert_names(boundary, "associated_dims", [axis])
        assert_names(boundary, "associated_fields", [])
        assert boundary["mask"].dtype == bool
        assert np.flatnonzero(boundary["mask"]).tolist() == [0, POINTS - 1]
        assert boundary["values"].shape == (2,)


def test_the_velocity_is_that_of_a_known_potential() -> None:
    k = 2 * np.pi / BOX
    x = np.arange(POINTS) * BOX / POINTS
    potential = np.sin(2 * k * x)[:, None] * np.cos(3 * k * x)[None, :]
    u, v = np.moveaxis(layouts.velocity(potential, BOX), -1, 0)
    np.testing.assert_allclose(u, 3 * k * np.sin(2 * k * x)[:, None] * np.sin(3 * k * x)[None, :], atol=1e-13)
    np.testing.assert_allclose(v, 2 * k * np.cos(2 * k * x)[:, None] * np.cos(3 * k * x)[None, :], atol=1e-13)


# ---- the others -------------------------------------------------------------------------------------------------


def test_pdebench_has_a_group_per_trajectory(runs: Trajectories, tmp_path: Path) -> None:
    write_hdf5(layouts.pdebench(runs), tmp_path / "source.h5", Output(tmp_path / "p.h5"))
    with h5py.File(tmp_path / "p.h5") as file:
        assert sorted(file) == ["0000", "0001"]
        assert file["0001/data"].shape == (len(TIMES), POINTS, POINTS, len(STATE))
        np.testing.assert_allclose(file["0001/data"][2, ..., 1], fields(1, 2)["vorticity"], rtol=1e-6)
        np.testing.assert_allclose(file["0000/grid/t"], TIMES)
        assert {name: file[f"0001/grid/{name}"].shape[0] for name in "txy"} == {"t": 4, "x": POINTS, "y": POINTS}


def test_hw2d_file_can_be_continued(runs: Trajectories, tmp_path: Path) -> None:
    write_hdf5(layouts.hw2d(runs, 1, {"c1": 1.0}), tmp_path / "source.h5", Output(tmp_path / "h.h5"))
    with h5py.File(tmp_path / "h.h5", "a") as file:
        for name, theirs in layouts.HW2D_NAMES.items():
            assert file[theirs].dtype == np.float32
            np.testing.assert_allclose(file[theirs][3], fields(1, 3)[name].T, rtol=1e-6)  # (time, y, x)
            file[theirs].resize(6, axis=0)  # as hw2d's append does
        assert file["time"].shape == (4, 1)
        assert file.attrs["frame_dt"] == 0.5
        assert file.attrs["dx"] == BOX / POINTS
        assert file.attrs["c1"] == 1
        assert {"dt", "x", "y", "x_save", "y_save", "grid_pts"} <= set(file.attrs)


def read_as_simlint(path: Path, name: str) -> np.ndarray:
    """Read as SiMLInt does: cut off the guard cells along x, drop the y axis of length 1."""
    with h5netcdf.File(path) as file:
        return np.squeeze(file.variables[name][:, 2:-2, :, :])


def test_simlint_files_give_its_reader_the_right_correction(runs: Trajectories, tmp_path: Path) -> None:
    pairs = Trajectories("pairs", POINTS, BOX, {}, TIMES, MEMBERS, (*STATE, *CHANGES), fields)
    for name, is_truth in (("gt", True), ("sim", False)):
        content = layouts.simlint(pairs, 1, is_truth=is_truth)
        write_netcdf(content, tmp_path / "source.h5", Output(tmp_path / f"{name}.nc"))
    for ours, theirs in (("density", "n"), ("vorticity", "vort")):
        error = read_as_simlint(tmp_path / "gt.nc", theirs) - read_as_simlint(tmp_path / "sim.nc", theirs)[1:]
        for index in range(len(TIMES)):
            correction = fields(1, index)[f"{ours}_correction"]
            np.testing.assert_allclose(error[index], correction[::-1], atol=1e-14)
    with h5netcdf.File(tmp_path / "sim.nc") as file:
        sizes = {name: dimension.size for name, dimension in file.dimensions.items()}
        assert sizes == {"t": len(TIMES) + 1, "x": POINTS + 4, "y": 1, "z": POINTS}
        np.testing.assert_array_equal(file.variables["t"][1:], TIMES)
        guarded = file.variables["vort"][0]
        np.testing.assert_array_equal(guarded[:2], guarded[-4:-2])
        np.testing.assert_array_equal(guarded[-2:], guarded[2:4])


def test_a_foreign_file_replaces_nothing_unless_told_to(runs: Trajectories, tmp_path: Path) -> None:
    target = tmp_path / "well.h5"
    target.write_text("precious")
    with pytest.raises(StorageError, match="exists"):
        write_hdf5(layouts.well(runs), tmp_path / "source.h5", Output(target))
    assert target.read_text() == "precious"
    write_hdf5(layouts.well(runs), tmp_path / "source.h5", Output(target, overwrite=True))
    assert h5py.is_hdf5(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["well.h5"]
