"""The score of a network equals that of numpy, from the raw HDF5 store and the exported TorchScript network."""

import itertools
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from mpi import scimill, succeed
from scimill import pictures
from scimill.cli import scimill as command_line
from scimill.config import Layer, build
from scimill.droplets.generate import generate
from scimill.droplets.learning.errors import Errors
from scimill.droplets.learning.export import export
from scimill.droplets.learning.formulas import MODEL_INPUTS
from scimill.droplets.learning.score import error_measures
from scimill.droplets.learning.train import train_network
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig
from scimill.droplets.pictures import error_maps
from scimill.errors import InputError, StorageError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.training.directory import RunDirectory

BLOCK_ROWS = 512
SPLITS = {
    "test": {"test_share": 0.2, "validation_share": 0.1},
    "validation": {"validation_share": 0.1},
    "none": {"validation_share": 0.0},
}
StoreMaker = Callable[..., Path]


@pytest.fixture(scope="module")
def make_store(
    tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., DropletsGenerateConfig]
) -> StoreMaker:
    """Generate a store, once for each set of values; the networks are trained on the store of default values."""
    folder, made = tmp_path_factory.mktemp("stores"), {}

    def store(**values: Any) -> Path:
        key = tuple(values.items())
        if key not in made:
            made[key] = folder / f"{len(made)}.h5"
            config = configure(**{"count": 10_000, "block_size": BLOCK_ROWS, **values})
            generate(config, Output(made[key]), World(None))
        return made[key]

    return store


@pytest.fixture(scope="module")
def runs(make_store: StoreMaker, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Train a network for each kind of held-out blocks."""
    folder = tmp_path_factory.mktemp("runs")
    for name, shares in SPLITS.items():
        brief = {"epochs": 1, "batch_size": 512, "warmup_steps": 5, "hidden": [8, 6], **shares}
        config = build(DropletsTrainConfig, [Layer("test", brief)])
        try:
            assert train_network(config, make_store(), RunDirectory(folder / name), World(None))
        finally:
            torch.set_flush_denormal(False)  # training disables subnormal numbers, which other tests need
    return {name: folder / name for name in SPLITS}


@pytest.fixture(scope="module")
def network(runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., torch.jit.ScriptModule]:
    """Return the exported network of a run."""
    folder = tmp_path_factory.mktemp("exports")
    for name, run in runs.items():
        path = folder / f"{name}.pt"
        export(run, path, "torchscript", precision="float64", zero=False, overwrite=False)

    def load(name: str = "test") -> torch.jit.ScriptModule:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch now recommends another format
            return torch.jit.load(folder / f"{name}.pt")

    return load


@pytest.fixture
def low_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "DPI", 40)


def read_droplets(store: Path, blocks: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Read inputs (n, 7) and exact outcomes (n, 2) of blocks of a store, one row per time."""
    with h5py.File(store, locking=False) as file:
        columns = {name: file[name][:].astype(float) for name in (*MODEL_INPUTS, "radius", "temperature")}
    block = np.arange(len(columns["initial_radius"])) // BLOCK_ROWS
    chosen = np.isin(block, blocks) if blocks is not None else np.full(len(block), True)
    samples = columns["time"].size // len(block)
    with h5py.File(store, locking=False) as file:
        weird = file["weird"][:] != 0 if isinstance(file.get("weird"), h5py.Dataset) else None
    flat = {name: (c if c.ndim > 1 else np.tile(c[:, None], samples))[chosen].ravel() for name, c in columns.items()}
    x, exact = np.stack([flat[n] for n in MODEL_INPUTS], 1), np.stack([flat["radius"], flat["temperature"]], 1)
    return (x, exact) if weird is None else (x[~weird[chosen].ravel()], exact[~weird[chosen].ravel()])


def measure(model: torch.jit.ScriptModule, x: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    with torch.no_grad():
        predicted = model(torch.from_numpy(x)).outcome.numpy()
    logarithm = np.log10(exact[:, 0])
    radius, temperature = np.log10(predicted[:, 0]) - logarithm, predicted[:, 1] - exact[:, 1]
    relative = np.abs(predicted[:, 0] - exact[:, 0]) / exact[:, 0]

    def rmse(errors: np.ndarray) -> float:
        return float(np.sqrt(np.mean(errors**2)))

    return {
        "droplets": len(x),
        "radius_rmse": rmse(radius),
        "radius_mae": float(np.mean(np.abs(radius))),
        "temperature_rmse": rmse(temperature),
        "temperature_mae": float(np.mean(np.abs(temperature))),
        "relative_radius_error_p50": float(np.percentile(relative, 50)),
        "relative_radius_error_p90": float(np.percentile(relative, 90)),
        "relative_radius_error_p99": float(np.percentile(relative, 99)),
        "temperature_error_p99": float(np.percentile(np.abs(temperature), 99)),
        "nrmse": rmse(radius) / abs(logarithm.mean()) + rmse(temperature) / exact[:, 1].mean(),
        "unchanged_radius_rmse": rmse(logarithm - np.log10(x[:, 0])),
        "unchanged_temperature_rmse": rmse(exact[:, 1] - x[:, 1]),
    }


def call(*args: object) -> None:
    """Run the command line in this process."""
    command_line.main(["droplets", *map(str, args)], prog_name="scimill", standalone_mode=False)


def score(model: Path, store: Path, folder: Path) -> dict[str, Any]:
    call("score", model, store, "--output", folder)
    return dict(json.loads((folder / "score.json").read_text()))


# ---- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 2},
        {"seed": 3, "samples": 3, "count": 3000},
        {"seed": 4, "samples": 2, "count": 3000, "keep_weird": True},
    ],
    ids=["once", "three times", "with weird ones"],
)
def test_score_equals_that_of_numpy(
    values: dict[str, Any], make_store: StoreMaker, runs: dict[str, Path], network: Callable[..., Any], tmp_path: Path,
    low_resolution: None,
) -> None:  # fmt: skip
    store = make_store(**values)
    found = score(runs["test"], store, tmp_path / "score")
    expected = measure(network(), *read_droplets(store))
    assert found.pop("store") == str(store)
    assert found == pytest.approx(expected, rel=1e-5)
    times = values.get("count", 10_000) * values.get("samples", 1)
    assert found["droplets"] == times if "keep_weird" not in values else 0.8 * times < found["droplets"] < 0.97 * times


def test_printed_numbers_equal_those_in_the_file(make_store: StoreMaker, runs: dict[str, Path], tmp_path: Path) -> None:
    """The real command, with --output."""
    store = make_store(seed=2)
    done = scimill("droplets", "score", runs["test"] / "model.pt", store, "--output", tmp_path / "score")
    assert (done.returncode, done.stderr) == (0, ""), done
    found = json.loads((tmp_path / "score" / "score.json").read_text())
    lines = {line[:22].strip(): line[22:].strip() for line in done.stdout.splitlines()}
    assert lines["droplets"] == f"10,000 of {store.name}"
    assert lines["log10 of the radius"].split() == [
        "RMSE", f"{found['radius_rmse']:.5f}", "MAE", f"{found['radius_mae']:.5f}"
    ]  # fmt: skip
    assert lines["temperature (K)"].split() == [
        "RMSE", f"{found['temperature_rmse']:.4f}", "MAE", f"{found['temperature_mae']:.4f}",
        "p99", f"{found['temperature_error_p99']:.3f}",
    ]  # fmt: skip
    quantiles = [f"{100 * found[f'relative_radius_error_p{q}']:.3f}%" for q in (50, 90, 99)]
    assert lines["relative radius error"].split()[1::2] == quantiles
    assert lines["NRMSE"] == f"{found['nrmse']:.6f}"
    assert f"{found['unchanged_temperature_rmse']:.2f} K" in lines["baseline: no change"]
    for picture in (tmp_path / "score").glob("*.png"):
        with Image.open(picture) as image:
            image.load()
            assert (image.format, image.size) == ("PNG", (2400, 1350))
    assert sorted(path.name for path in (tmp_path / "score").iterdir()) == ["error-maps.png", "score.json"]


def test_nothing_is_written_without_a_folder(
    make_store: StoreMaker,
    runs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    call("score", runs["test"], make_store(seed=2))
    assert "log10 of the radius" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_perfect_network_has_no_errors_and_constant_errors_are_measured() -> None:
    exact = np.array([[1e-6, 280.0], [1e-4, 290.0]], np.float32)
    inputs = np.ones((2, 7), np.float32)
    zero = np.zeros(2, np.float32)
    found = error_measures(Errors(inputs, zero, zero, exact, "two"))
    assert (found["radius_rmse"], found["temperature_mae"], found["nrmse"]) == (0, 0, 0)
    doubled = error_measures(Errors(inputs, np.full(2, np.log10(2), np.float32), zero - 1, exact, "two"))
    assert doubled["relative_radius_error_p50"] == pytest.approx(1, rel=1e-6)
    assert doubled["nrmse"] == pytest.approx(np.log10(2) / 5 + 1 / 285, rel=1e-6)


# ---- what was held out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["test", "validation"])
def test_only_held_out_blocks_of_the_training_store_count(
    part: str, make_store: StoreMaker, runs: dict[str, Path], network: Callable[..., Any], tmp_path: Path,
    capsys: pytest.CaptureFixture, low_resolution: None,
) -> None:  # fmt: skip
    blocks = json.loads((runs[part] / "run.json").read_text())["split"][part]
    assert 0 < len(blocks) < 5
    found = score(runs[part], make_store(), tmp_path / "score")
    assert f"the {part} blocks of {make_store().name}" in capsys.readouterr().out
    found.pop("store")
    assert found == pytest.approx(measure(network(part), *read_droplets(make_store(), blocks)), rel=1e-5)


def test_a_copy_of_the_training_store_is_recognised(
    make_store: StoreMaker, runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copy(make_store(), tmp_path / "copy.h5")
    call("score", runs["validation"], tmp_path / "copy.h5")
    assert "the validation blocks of copy.h5" in capsys.readouterr().out


def test_a_store_that_was_trained_on_as_a_whole_is_refused(
    make_store: StoreMaker, runs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="trained on all blocks of this store"):
        call("score", runs["none"], make_store())
    call("score", runs["none"], make_store(seed=2))


# ---- refusals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [{"surface_tension": 0.05}, {"salinity_kind": "solute-term"}, {"hygroscopicity": 0.5}, {"saturation_slope": 17.67}],
    ids=", ".join,
)
def test_other_physics_is_refused(
    values: dict[str, Any], make_store: StoreMaker, runs: dict[str, Path], tmp_path: Path
) -> None:
    store = make_store(seed=2, count=1000, **values)
    with pytest.raises(InputError, match=r"differ from those of the training data|takes the salt mass") as caught:
        call("score", runs["test"], store)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("values", [{"tolerance": 1e-6}, {"radius_range": (1e-6, 1e-4)}], ids=", ".join)
def test_other_droplets_of_the_same_physics_are_scored(
    values: dict[str, Any], make_store: StoreMaker, runs: dict[str, Path], tmp_path: Path, low_resolution: None
) -> None:
    assert score(runs["test"], make_store(seed=2, count=1000, **values), tmp_path / "score")["droplets"] == 1000


def test_damaged_and_other_stores_are_refused(make_store: StoreMaker, runs: dict[str, Path], tmp_path: Path) -> None:
    damaged, text = tmp_path / "damaged.h5", tmp_path / "text.h5"
    content = bytearray(make_store(seed=2).read_bytes())
    with h5py.File(make_store(seed=2), locking=False) as file:
        content[file["radius"].id.get_offset() + 4 * BLOCK_ROWS] ^= 1
    damaged.write_bytes(content)
    text.write_text("no store")
    for path, message in ((damaged, "damaged: block 1"), (text, None), (tmp_path / "missing.h5", None)):
        with pytest.raises(InputError, match=message) as caught:
            call("score", runs["test"], path)
        assert str(path) in str(caught.value)
    with pytest.raises(StorageError):
        call("score", runs["test"], make_store(seed=2), "--output", tmp_path / "not" / "there")


def test_refusals_reach_the_user_as_short_messages(make_store: StoreMaker, runs: dict[str, Path]) -> None:
    for arguments in ((runs["none"], make_store()), (make_store(), make_store())):
        result = scimill("droplets", "score", *arguments)
        assert (result.returncode, len(result.errors), result.tracebacks) == (3, 1, 0), result
        assert len(result.stderr.splitlines()) <= 4, result


# ---- error maps -------------------------------------------------------------------------------------------------


def random_errors(n: int = 4000) -> Errors:
    stream = np.random.default_rng(6)
    inputs = np.stack([
        10 ** stream.uniform(-8, -3, n), stream.uniform(273, 310, n), 10 ** stream.uniform(-22, -10, n),
        stream.uniform(273, 310, n), stream.uniform(0.65, 1.1, n), stream.uniform(0.8, 1.2, n),
        10 ** stream.uniform(-3, 1, n),
    ], 1).astype(np.float32)  # fmt: skip
    radius, temperature = stream.normal(size=(2, n)).astype(np.float32)
    return Errors(inputs, radius, temperature, np.ones((n, 2), np.float32), "random ones")


@pytest.mark.parametrize("plane", error_maps.PLANES, ids=" and ".join)
def test_map_is_the_root_mean_square_in_each_cell(plane: tuple[str, str]) -> None:
    errors = random_errors()
    x, y, cells = error_maps.rms_map(errors, errors.radius, plane)
    first, second = (errors.inputs[:, MODEL_INPUTS.index(name)].astype(float) for name in plane)
    assert (x[0], x[-1], y[0], y[-1]) == (first.min(), first.max(), second.min(), second.max())
    for edges, name in zip((x, y), plane, strict=True):
        steps = np.diff(edges if name == "relative_humidity" else np.log10(edges))
        assert steps == pytest.approx(np.full(len(steps), steps.mean()))
    filled = 0
    for i, j in itertools.product(range(len(x) - 1), range(len(y) - 1)):
        inside = (first >= x[i]) & ((first < x[i + 1]) | (i == len(x) - 2)) & (second >= y[j])
        inside &= (second < y[j + 1]) | (j == len(y) - 2)
        values = errors.radius[inside].astype(float)
        if len(values) < error_maps.FEWEST:
            assert np.isnan(cells[i, j])
        else:
            filled += 1
            assert cells[i, j] == pytest.approx(np.sqrt(np.mean(values**2)))
    assert filled > 100


@pytest.mark.parametrize(
    "errors",
    [random_errors(1), random_errors(2000)._replace(radius=np.zeros(2000, np.float32)),
     random_errors(2000)._replace(inputs=np.ones((2000, 7), np.float32))],
    ids=["one droplet", "no errors", "all in one cell"],
)  # fmt: skip
def test_maps_of_odd_errors_are_drawn(errors: Errors, tmp_path: Path, low_resolution: None) -> None:
    with Image.open(error_maps.plot(errors, tmp_path)) as image:
        image.load()
        assert image.size == (533, 300)


def test_figure_shows_the_maps(low_resolution: None) -> None:
    errors = random_errors()
    panels = [axes for axes in error_maps.draw(errors).axes if axes.get_xlabel()]
    assert len(panels) == 6
    for panel, (values, plane) in zip(
        panels, itertools.product((errors.radius, errors.temperature), error_maps.PLANES), strict=True
    ):
        x, y, cells = error_maps.rms_map(errors, values, plane)
        shown = np.ma.masked_invalid(panel.collections[0].get_array())
        assert np.ma.allequal(shown, np.ma.masked_invalid(cells.T))
        corners = panel.collections[0].get_coordinates()
        assert np.array_equal(corners[0, :, 0], x)
        assert np.array_equal(corners[:, 0, 1], y)


def test_more_of_the_same_droplets_are_not_test_data(tmp_path: Path) -> None:
    for name, count in (("trained", 6000), ("longer", 9000)):
        succeed("droplets", "generate", tmp_path / f"{name}.h5", "--count", count, "--block-size", 512, "--seed", 77)
    succeed("droplets", "train", tmp_path / "trained.h5", "--output", tmp_path / "run", "--epochs", 1)
    result = scimill("droplets", "score", tmp_path / "run", tmp_path / "longer.h5")
    assert (result.returncode, len(result.errors), result.tracebacks) == (3, 1, 0), result
    assert "another --seed" in result.stderr
