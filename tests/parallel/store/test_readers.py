"""Stores as other programs read them, each in a process of its own: they load other builds of HDF5."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mpi import succeed

XARRAY = """
import json, sys, xarray
store = xarray.open_dataset(sys.argv[1], engine="h5netcdf")
field = store[sys.argv[2]]
coordinates = {name: (values.values[:2].tolist(), values.attrs["units"]) for name, values in store.coords.items()}
print(json.dumps([dict(store.sizes), field.dims, float(field.sum(dtype=float)), field.attrs["units"], coordinates]))
"""
NETCDF4 = """
import json, sys, netCDF4
store = netCDF4.Dataset(sys.argv[1])
field = store[sys.argv[2]]
sizes = {name: dimension.size for name, dimension in store.dimensions.items()}
named = [name for name in store.dimensions if name in store.variables]
coordinates = {name: (store[name][:2].tolist(), store[name].units) for name in named}
print(json.dumps([sizes, field.dimensions, float(field[:].sum(dtype=float)), field.units, coordinates]))
"""


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores")
    succeed("droplets", "generate", folder / "droplets.h5", "--count", 300, "--block-size", 100, "--tolerance", 1e-4)
    flags = ("--points", 64, "--snapshots", 2, "--interval", 0.5, "--box", 20, "--noise-modes", 8)
    succeed("turbulence", "simulate", folder / "turbulence.h5", *flags)
    succeed("bench", "generate", "bert", folder / "bert.h5", "--format", "hdf5", "--size", "500KB")
    return folder


def read(program: str, path: Path, field: str) -> list[Any]:
    command = [sys.executable, "-W", "error", "-c", program, str(path), field]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("program", [XARRAY, NETCDF4], ids=["xarray", "netCDF4"])
@pytest.mark.parametrize(
    ("name", "field", "dimensions", "units"),
    [
        ("droplets.h5", "radius", {"row": 300}, "m"),
        ("turbulence.h5", "density", {"row": 3, "x": 64, "y": 64}, "1"),
        ("bert.h5", "input_ids", {"row": None, "token": 512}, "1"),
    ],
)
def test_dimensions_have_names_and_values(
    program: str, name: str, field: str, dimensions: dict[str, int | None], units: str, stores: Path
) -> None:
    sizes, names, total, unit, coordinates = read(program, stores / name, field)
    assert list(names) == list(dimensions)
    assert all(size in (None, sizes[dimension]) for dimension, size in dimensions.items())
    assert "phony" not in " ".join(sizes)
    assert unit == units
    with h5py.File(stores / name) as file:
        np.testing.assert_allclose(total, file[field][:].sum(dtype=float), rtol=1e-6)
    expected = {"x": [[0.0, 20 / 64], "ρs"], "y": [[0.0, 20 / 64], "ρs"], "shell": [[0.0, 2 * np.pi / 20], "1/ρs"]}
    assert coordinates == (expected if field == "density" else {})
