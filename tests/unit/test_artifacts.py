"""Artifacts: each kind is recognised by its content, has the same methods, and opens in Python."""

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

import scimill
from mpi import succeed
from scimill import artifacts
from scimill.errors import ConfigError, InputError, NotAnArtifact

FORMAT = Path(__file__).parents[2] / "docs" / "format.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store, a dataset, and a training run."""
    place = tmp_path_factory.mktemp("artifacts")
    store = place / "droplets.h5"
    succeed("droplets", "generate", store, "--count", 2000, "--block-size", 100, "--tolerance", 1e-4)
    succeed("bench", "generate", "dlrm", place / "set", "--size", "1MB", "--format", "npz")
    small = ("--epochs", 2, "--hidden", 8, "--batch-size", 256, "--threads", 1)
    succeed("droplets", "train", store, "--output", place / "run", *small)
    return place


KINDS = {"droplets.h5": "store", "set": "dataset", "run": "training run"}


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_answers_the_same_questions(folder, name):
    artifact = scimill.open(folder / name)
    assert artifact.kind == KINDS[name]
    assert artifact.is_complete
    assert artifact.config["seed"] == 1
    assert artifact.provenance
    assert re.fullmatch(r"[0-9a-f]{64}", artifact.identity())
    assert "configuration:" in artifact.inspect()
    assert artifact.units == {field: values.units for field, values in artifact.fields.items()}


@pytest.mark.parametrize("name", ["droplets.h5", "set"])
def test_an_unfinished_one_is_recognised(folder, tmp_path, name):
    part = tmp_path / f"{name}.part"
    part.symlink_to(folder / name)
    artifact = scimill.open(part)
    assert artifact.kind == KINDS[name]
    assert not artifact.is_complete
    assert artifact.describe_completeness().startswith("unfinished: 0 of")


@pytest.mark.parametrize("kind", ["text", "empty", "foreign", "folder", "pipe"])
def test_other_files_are_refused(tmp_path, kind):
    path = tmp_path / "file.h5"
    if kind == "folder":
        path.mkdir()
    elif kind == "foreign":
        with h5py.File(path, "w") as file:
            file["x"] = [1]
    elif kind == "pipe":
        import os

        os.mkfifo(path)
    else:
        path.write_text("a letter" if kind == "text" else "")
    with pytest.raises(NotAnArtifact, match="looked for a store, a training run, a dataset, a database"):
        scimill.open(path)


def test_what_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        scimill.open(tmp_path / "missing")


def test_a_kind_that_cannot_be_imported_is_skipped(folder, monkeypatch):
    monkeypatch.setattr(artifacts, "OWN_KINDS", ("nosuch.module:Kind", *artifacts.OWN_KINDS))
    assert scimill.open(folder / "droplets.h5").kind == "store"


def test_fields_of_a_store_are_read_when_they_are_asked_for(folder):
    store = scimill.open(folder / "droplets.h5")
    with h5py.File(folder / "droplets.h5", "r", locking=False) as file:
        radius = file["radius"][:]
        weird = int(file["blocks"]["weird_rows"].sum())
    assert np.array_equal(store["radius"].to_numpy(), radius)
    assert np.array_equal(store["radius"][10:20], radius[10:20])
    assert store["radius"].units == "m"
    assert store["weird/radius"].shape == store["weird/radius"][:].shape == (weird,)
    assert np.all(store["weird/radius"][:] != 0)
    with pytest.raises(InputError, match="no field 'radios'"):
        store["radios"]


def test_metrics_of_a_run(folder):
    metrics = scimill.open(folder / "run").metrics
    assert set(metrics["split"]) >= {"train"}
    assert metrics["loss"].dtype == float


def test_a_store_becomes_a_dataset_of_xarray(folder):
    store = scimill.open(folder / "droplets.h5")
    dataset = store.to_xarray()
    assert set(dataset.data_vars) == set(store.fields)
    np.testing.assert_array_equal(dataset["radius"], h5py.File(folder / "droplets.h5")["radius"][:])
    assert dataset["radius"].attrs["units"] == "m"
    assert dataset.attrs["seed"] == store.provenance["seed"]


def test_xarray_is_asked_for_where_it_is_missing(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ConfigError, match="xarray is not installed"):
        scimill.open(folder / "droplets.h5").to_xarray()


def test_importing_scimill_loads_nothing_heavy():
    heavy = "{'numpy', 'mpi4py', 'h5py', 'torch'}"
    program = f"import sys, scimill; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_documented_lines_from_file_to_plot_run(folder, tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL)
    program = next(block for block in blocks if "scimill.open" in block)
    assert len(program.strip().splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "droplets.h5").symlink_to(folder / "droplets.h5")
    monkeypatch.setenv("MPLBACKEND", "agg")
    exec(compile(program, str(FORMAT), "exec"), {})
    assert (tmp_path / "radius.png").stat().st_size > 1000
