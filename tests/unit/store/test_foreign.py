"""Files of other projects' layouts: written from a description, read by name."""

from collections.abc import Iterator
from pathlib import Path

import h5netcdf
import h5py
import numpy as np
import pytest

from scimill.errors import InputError
from scimill.store.foreign import Content, Dataset, Piece, is_store, read_hdf5, write_hdf5, write_netcdf
from scimill.store.output import Output
from unit.store.stores import fill

VALUES = {"flow/density": np.arange(12.0).reshape(3, 4), "time": np.arange(3, dtype=np.int32)}


def pieces() -> Iterator[Piece]:
    for row in range(3):
        yield "flow/density", row, VALUES["flow/density"][row]
    yield "time", slice(None), VALUES["time"]


CONTENT = Content(
    {
        "flow/density": Dataset((3, 4), "f8", {"units": "1"}, ("time", "x"), (1, 4), "gzip", can_grow=True),
        "time": Dataset((3,), "i4", {"names": ["a", "b"]}, ("time",)),
    },
    {"/": {"title": "a flow"}, "empty": {"authors": []}},
    pieces,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.h5"
    assert fill(Output(path))
    return path


def test_a_file_of_hdf5_is_as_described(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "flow.h5"
    write_hdf5(CONTENT, source, Output(path))
    with h5py.File(path) as file:
        density = file["flow/density"]
        assert (density.chunks, density.compression, density.maxshape) == ((1, 4), "gzip", (None, 4))
        assert (file["time"].chunks, file["time"].maxshape, list(file["time"].attrs["names"])) == (
            None,
            (3,),
            ["a", "b"],
        )
        assert (file.attrs["title"], file["empty"].attrs["authors"].shape) == ("a flow", (0,))
        for name, values in VALUES.items():
            assert np.array_equal(file[name], values)
    assert np.array_equal(read_hdf5(path, ("time", "flow", "absent"))["time"], VALUES["time"])
    assert read_hdf5(path, ("flow", "absent")) == {}  # a group is not a dataset


def test_a_file_of_netcdf_has_the_dimensions_that_datasets_name(source: Path, tmp_path: Path) -> None:
    write_netcdf(CONTENT, source, Output(tmp_path / "flow.nc"))
    with h5netcdf.File(tmp_path / "flow.nc") as file:
        assert {name: dimension.size for name, dimension in file.dimensions.items()} == {"time": 3, "x": 4}
        assert file.attrs["title"] == "a flow"
        for name, values in VALUES.items():
            assert np.array_equal(file[name][...], values)
        assert file["flow/density"].dimensions == ("time", "x")


def test_stores_and_what_is_no_hdf5_are_told_apart(source: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no HDF5")
    assert is_store(source)
    assert not is_store(tmp_path / "text")
    with pytest.raises(InputError, match="no such file"):
        is_store(tmp_path / "missing")
    with pytest.raises(InputError, match="HDF5 cannot read the file"):
        read_hdf5(tmp_path / "text", ("x",))
