"""The output of `plot` and `trials`, compared with the files of the runs."""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from scimill import pictures
from scimill.cli import scimill as command_line
from scimill.config import Layer, build
from scimill.droplets.generate import generate
from scimill.droplets.learning.train import train_network
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig
from scimill.errors import ConfigError, InputError, ScimillError, StorageError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.training import plots
from scimill.training.directory import RunDirectory
from scimill.training.metrics import read_curves
from scimill.training.sweep import combinations
from scimill.training.trials import read_trials

SWEEP = {"learning_rate": [1e-4, 1e-2], "hidden": [[4], [6, 3]]}
BRIEF = {"epochs": 2, "batch_size": 64, "log_steps": 3, "warmup_steps": 4, "hidden": [4], "validation_share": 0.2}


@pytest.fixture(autouse=True)
def low_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "DPI", 24)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., DropletsGenerateConfig]) -> Path:
    path = tmp_path_factory.mktemp("store") / "droplets.h5"
    generate(configure(count=600, block_size=100, tolerance=1e-4), Output(path), World(None))
    return path


@pytest.fixture(scope="module")
def train(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Path]]:
    """Train a run."""

    def run(path: Path, **values: Any) -> Path:
        config = build(DropletsTrainConfig, [Layer("test", {**BRIEF, **values})])
        assert train_network(config, store, RunDirectory(path, is_trial=True), World(None))
        return path

    yield run
    torch.set_flush_denormal(False)  # training is better without subnormal numbers, other tests are not


@pytest.fixture(scope="module")
def finished(train: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("run") / "one")


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A finished run that the test may change."""
    return Path(shutil.copytree(finished, tmp_path / "one"))


@pytest.fixture(scope="module")
def sweep(train: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    for number, values in enumerate(combinations(SWEEP, "test")):
        train(folder / f"trial-{number:04d}", **values)
    return folder


def call(*args: object) -> None:
    """Run the command line in this process."""
    command_line.main(["droplets", *map(str, args)], prog_name="scimill", standalone_mode=False)


def picture_size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


def read_rows(run: Path, split: str) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


# ---- a run ------------------------------------------------------------------------------------------------------


def test_run_becomes_a_slide_in_its_own_folder(run: Path, capsys: pytest.CaptureFixture) -> None:
    call("plot", run)
    assert capsys.readouterr().out == f"{run / 'training.png'}\n"
    assert picture_size(run / "training.png") == (320, 180)


def test_run_becomes_a_slide_elsewhere(run: Path, tmp_path: Path) -> None:
    before = {path.name for path in run.iterdir()}
    call("plot", run, "--output", tmp_path / "new")
    assert picture_size(tmp_path / "new" / "training.png") == (320, 180)
    assert {path.name for path in run.iterdir()} == before


def test_panels_show_the_rows_of_the_metrics(finished: Path) -> None:
    figure = plots.draw_run(read_curves(finished), finished.name)
    loss, terms, rate = figure.axes
    train, validation = (read_rows(finished, split) for split in ("train", "validation"))
    assert [int(row["step"]) for row in train] == [3, 6, 8, 9, 12, 15, 16]  # every third, and where an epoch ends
    assert [int(row["step"]) for row in validation] == [8, 16]
    drawn = {str(line.get_label()): line.get_xydata() for line in loss.lines}
    for split, rows in (("train", train), ("validation", validation)):
        expected = [[float(row["step"]), float(row["loss"])] for row in rows]
        np.testing.assert_allclose(drawn[split], expected)
    drawn_terms = [line.get_xydata().tolist() for line in terms.lines]
    for rows in (train, validation):
        for name in ("loss_radius", "loss_temperature"):
            assert [[float(row["step"]), float(row[name])] for row in rows] in drawn_terms
    assert len(terms.lines) == 4
    legend = [text.get_text() for text in terms.get_legend().get_texts()]
    assert [text.split(",")[0] for text in legend] == ["radius", "temperature"]
    (line,) = rate.lines
    np.testing.assert_allclose(line.get_xydata(), [[float(row[n]) for n in ("step", "learning_rate")] for row in train])
    totals = [float(row["loss_radius"]) + float(row["loss_temperature"]) for row in train]
    np.testing.assert_allclose(drawn["train"][:, 1], totals, rtol=1e-6)


def test_unfinished_run_is_drawn_up_to_its_last_whole_row(run: Path) -> None:
    (run / "result.json").unlink()
    text = (run / "metrics.csv").read_text()
    lines = text.splitlines(keepends=True)
    (run / "metrics.csv").write_text("".join(lines[:4]) + lines[4][: len(lines[4]) // 2])
    assert [len(columns["step"]) for columns in read_curves(run).values()] == [3]
    call("plot", run)
    assert picture_size(run / "training.png") == (320, 180)


def test_run_without_validation_is_drawn(train: Callable[..., Path], tmp_path: Path) -> None:
    run = train(tmp_path / "none", validation_share=0.0)
    assert read_rows(run, "validation") == []
    call("plot", run)
    assert picture_size(run / "training.png") == (320, 180)


def test_run_that_starts_with_a_validation_row_is_drawn(run: Path) -> None:
    header, *rows = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text(header + next(row for row in rows if ",validation," in row))
    call("plot", run)
    assert picture_size(run / "training.png") == (320, 180)


HEADER = "step,epoch,split,samples,loss,learning_rate,samples_per_second,data_wait,seconds,loss_radius\n"


@pytest.mark.parametrize(
    "content",
    [b"", HEADER.encode(), HEADER.encode() + b"1,0,tr", b"a,b\n1,2\n", b"\x89PNG\xff\xfe\n\x00\x01",
     HEADER.encode() + b"1,0,train,9,x,1,1,1,1,1\n", HEADER.encode() + b"1,0,train,9,1,1,1,1,1,1,2,3\n",
     b"a\n" + b"b" * 200_000 + b"\n"],
    ids=["empty", "header", "torn", "other", "binary", "text", "too long a row", "too large a field"],
)  # fmt: skip
def test_invalid_metrics_are_refused(content: bytes, run: Path) -> None:
    (run / "metrics.csv").write_bytes(content)
    with pytest.raises(InputError) as caught:
        call("plot", run)
    assert caught.value.exit_code == 3
    assert str(run / "metrics.csv") in str(caught.value)
    assert not (run / "training.png").exists()


def test_folders_that_are_no_runs_are_refused(run: Path, tmp_path: Path) -> None:
    (run / "metrics.csv").unlink()
    for folder in (run, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            call("plot", folder)
    with pytest.raises(InputError):
        call("plot", tmp_path / "missing", "--output", tmp_path / "new")


def test_pictures_go_to_folders_only(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "not" / "there"):
        with pytest.raises(StorageError):
            call("plot", run, "--output", folder)
    assert (tmp_path / "file").read_text() == "mine"


def test_plot_of_a_store_needs_a_folder(store: Path, tmp_path: Path) -> None:
    before = list(store.parent.iterdir())
    with pytest.raises(ConfigError, match="missing --output") as caught:
        call("plot", store)
    assert caught.value.exit_code == 2
    assert list(store.parent.iterdir()) == before


# ---- trials -----------------------------------------------------------------------------------------------------


def best_losses(folder: Path) -> dict[str, float]:
    """Best validation loss of each trial, from its metrics."""
    return {path.name: min(float(row["loss"]) for row in read_rows(path, "validation")) for path in folder.iterdir()}


def test_trials_are_ranked_by_their_best_validation_loss(sweep: Path, capsys: pytest.CaptureFixture) -> None:
    call("trials", sweep)
    header, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header == ["trial", "loss", "epoch", "steps", "learning_rate", "hidden"]
    losses = best_losses(sweep)
    assert [row[0] for row in rows] == sorted(losses, key=lambda name: losses[name])
    for name, loss, epoch, steps, rate, hidden in rows:
        assert float(loss) == pytest.approx(losses[name], rel=1e-5)
        stored = yaml.safe_load((sweep / name / "config.yaml").read_text())
        assert float(rate) == stored["learning_rate"]
        assert hidden == "x".join(map(str, stored["hidden"]))
        curve = [float(row["loss"]) for row in read_rows(sweep / name, "validation")]
        assert int(epoch) == 1 + int(np.argmin(curve))
        assert int(steps) == 16


def test_only_what_varies_is_a_column(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for number in (0, 2):  # of one width
        shutil.copytree(sweep / f"trial-{number:04d}", tmp_path / f"trial-{number:04d}")
    trials, unfinished = read_trials(tmp_path)
    assert unfinished == 0
    assert [list(trial.values) for trial in trials] == [["learning_rate"]] * 2
    shutil.rmtree(tmp_path / "trial-0002")
    call("trials", tmp_path)
    assert capsys.readouterr().out.splitlines()[0].split() == ["trial", "loss", "epoch", "steps"]


def test_unfinished_trials_are_counted_and_not_ranked(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(sweep, tmp_path / "sweep"))
    for number in (1, 3):
        (folder / f"trial-{number:04d}" / "result.json").unlink()
    (folder / "notes").mkdir()
    (folder / "notes.txt").write_text("no trial")
    call("trials", folder)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 + 1
    assert lines[-1] == "2 not finished"
    assert not any(line.startswith(("trial-0001", "trial-0003")) for line in lines)


def test_no_finished_trial_is_refused(run: Path, tmp_path: Path) -> None:
    (run / "result.json").unlink()
    for folder, begun in ((tmp_path, 1), (run, 0), (tmp_path / "missing", 0)):
        with pytest.raises(InputError, match=rf"no finished trials \({begun} started\)") as caught:
            call("trials", folder)
        assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"best_loss": 1}', '{"best_loss": "x", "best_epoch": 1, "step": 1}']
)
def test_damaged_result_is_refused(content: str, run: Path, tmp_path: Path) -> None:
    (run / "result.json").write_text(content)
    with pytest.raises(InputError, match="the result is damaged"):
        call("trials", tmp_path)


def test_damaged_configuration_is_refused(run: Path, tmp_path: Path) -> None:
    for content in (b"- 1\n", b"a: [", b"\xff\xfe\x00"):
        (run / "config.yaml").write_bytes(content)
        with pytest.raises(ScimillError):
            call("trials", tmp_path)


def test_trials_of_another_version_may_lack_a_parameter(
    sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(sweep, tmp_path / "sweep"))
    path = folder / "trial-0003" / "config.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("hidden")))
    call("trials", folder)
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_trials_become_a_slide(sweep: Path, tmp_path: Path) -> None:
    call("trials", sweep, "--plot", tmp_path / "trials.png")
    assert picture_size(tmp_path / "trials.png") == (320, 180)
    trials, _ = read_trials(sweep)
    ranking, curves = plots.draw_trials(trials).axes
    assert [bar.get_width() for bar in ranking.patches] == [trial.loss for trial in trials]
    assert ranking.yaxis_inverted()
    assert [text.get_text().split()[0] for text in ranking.get_yticklabels()] == [trial.path.name for trial in trials]
    for line, trial in zip(curves.lines, trials, strict=True):
        rows = read_rows(trial.path, "validation")
        assert line.get_label() == trial.path.name
        np.testing.assert_allclose(line.get_xydata(), [[int(row["epoch"]) + 1, float(row["loss"])] for row in rows])


def test_picture_of_trials_that_cannot_be_written_is_refused(sweep: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "not" / "there.png"):
        with pytest.raises(StorageError):
            call("trials", sweep, "--plot", path)


def test_trials_without_validation_are_not_ranked(train: Callable[..., Path], tmp_path: Path) -> None:
    """They have no loss to compare."""
    for number in range(2):
        train(tmp_path / f"trial-{number:04d}", validation_share=0.0, seed=number, epochs=1)
    assert json.loads((tmp_path / "trial-0000" / "result.json").read_text())["best_loss"] is None
    with pytest.raises(InputError, match="validation"):
        call("trials", tmp_path, "--plot", tmp_path / "trials.png")
