"""A network does not depend on the number of ranks, and equals that of a plain PyTorch loop."""

import csv
import functools
import importlib.util
import itertools
import json
import math
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mpi import BIN, scimill, succeed
from parallel.droplets.summing import COLUMNS, CUTS, ROWS, data
from scimill.config import build, read_yaml
from scimill.droplets.generate import generate
from scimill.droplets.learning.network import DropletNetwork
from scimill.droplets.learning.train import make_task
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.training.data import Source, make_windows

State = dict[str, torch.Tensor]
SAME = 1e-10
"""Largest difference of two float64 parameters; trained parameters are of the order of 0.1 to 1."""

STORES: dict[str, dict[str, int]] = {
    "blocks": {"count": 5000, "block_size": 256},  # 20 blocks, the last of 136 rows
    "few": {"count": 513, "block_size": 256},  # 3 blocks, the last of 1 row
    "times": {"count": 1500, "block_size": 128, "samples": 3},  # 12 blocks of 384 samples, the last of 276
}
ADAM = ("--batch-size", 512, "--window", 4, "--epochs", 2, "--warmup-steps", 3)
CASES: dict[str, tuple[str, int, int, tuple[object, ...]]] = {
    # store, samples to train on, steps, arguments. Counted by hand:
    # 19 blocks in windows of 4, 4, 4, 4, 3. Each window gives 2 batches of 512: 4 x 256 or 3 x 256 rows, once less 120.
    "adam": ("blocks", 4744, 20, ADAM),
    "float32": ("blocks", 4744, 20, (*ADAM, "--precision", "float32")),
    "adamw": (
        "blocks", 4744, 20,
        (*ADAM, "--optimizer", "adamw", "--weight-decay", 0.02, "--schedule", "constant", "--clip-norm", 2000,
         "--network", "plain"),
    ),
    "lars": (
        "blocks", 4744, 20,
        (*ADAM, "--optimizer", "lars", "--learning-rate", 1, "--weight-decay", 0.02, "--schedule", "step",
         "--step-epochs", 1, "--clip-norm", 0.5),
    ),
    # One full block of 3 is for validation: one window of 256 + 1 rows, 11 batches of 25.
    "few": ("few", 257, 22, ("--batch-size", 25, "--epochs", 2, "--loss", "huber")),
    # 4 of 12 blocks for validation, 1 for testing, 7 for training in windows of 3, 2, 2: 4, 3 and 3 batches of 300.
    "times": (
        "times", 2688, 20,
        ("--validation-share", 0.3, "--test-share", 0.1, "--window", 3, "--batch-size", 300, "--epochs", 2,
         "--accumulation", 3, "--loss", "l1"),
    ),
}  # fmt: skip
EXACT = [name for name in CASES if name != "float32"]
PAIRS = [*((name, 3) for name in EXACT), ("adam", 2), ("adam", 4), ("few", 2), ("few", 4)]
"""Cases and numbers of ranks to compare with one rank; with three the shares are uneven, with "few" some are empty."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., DropletsGenerateConfig]) -> Path:
    """Make the folder of the stores and runs."""
    path = tmp_path_factory.mktemp("training")
    for name, values in STORES.items():
        generate(configure(tolerance=1e-4, **values), Output(path / f"{name}.h5"), World(None))
    return path


def arguments(folder: Path, name: str, ranks: int | str) -> tuple[object, ...]:
    store, _, _, args = CASES[name]
    return (folder / f"{store}.h5", "--output", folder / f"{name}-{ranks}", "--precision", "float64", *args)


@pytest.fixture(scope="module")
def finished(folder: Path) -> Callable[[str, int], Path]:
    """Return the directory of a case's run on some ranks; the first request trains it."""

    @functools.cache
    def of(name: str, ranks: int) -> Path:
        succeed("droplets", "train", *arguments(folder, name, ranks), ranks=ranks)
        return folder / f"{name}-{ranks}"

    return of


def checkpoint(run: Path) -> dict[str, Any]:
    return dict(torch.load(run / "checkpoint.pt", weights_only=True))


def model(run: Path) -> State:
    return dict(checkpoint(run)["model"])


def difference(one: State, two: State) -> float:
    """Return the largest difference between two sets of parameters."""
    assert one.keys() == two.keys()
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


def metrics(run: Path, split: str) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def split(run: Path) -> dict[str, list[int]]:
    return dict(json.loads((run / "run.json").read_text())["split"])


# ---- any number of ranks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "ranks"), PAIRS)
def test_ranks_do_not_change_the_parameters(name: str, ranks: int, finished: Callable[[str, int], Path]) -> None:
    one, many = finished(name, 1), finished(name, ranks)
    assert difference(model(many), model(one)) <= SAME
    assert split(many) == split(one)


def test_in_float32_ranks_change_the_parameters_by_rounding(finished: Callable[[str, int], Path]) -> None:
    """Each is off by about the difference of float32 and float64 on one rank, so they differ by at most twice that."""
    one, exact = model(finished("float32", 1)), model(finished("adam", 1))
    rounding = difference(one, exact)
    assert 0 < rounding < 1e-5
    assert {tensor.dtype for tensor in one.values()} == {torch.float32}
    assert difference(model(finished("float32", 3)), one) <= 2 * rounding


@pytest.mark.parametrize(("name", "ranks"), [*((name, 1) for name in CASES), *PAIRS])
def test_the_steps_are_those_counted_by_hand(name: str, ranks: int, finished: Callable[[str, int], Path]) -> None:
    _, samples, steps, _ = CASES[name]
    run = finished(name, ranks)
    assert checkpoint(run)["position"]["step"] == steps >= 20
    rows = metrics(run, "train")
    assert [(int(row["step"]), int(row["samples"])) for row in rows] == [(steps // 2, samples), (steps, samples)]


@pytest.mark.parametrize(("name", "ranks"), PAIRS)
def test_ranks_do_not_change_the_metrics(name: str, ranks: int, finished: Callable[[str, int], Path]) -> None:
    """This includes the validation loss, although some ranks have no validation block; metrics.csv has 8 digits."""
    columns = ("step", "epoch", "samples", "loss", "loss_radius", "loss_temperature", "learning_rate")
    for kind in ("train", "validation"):
        rows = zip(metrics(finished(name, 1), kind), metrics(finished(name, ranks), kind), strict=True)
        for one, many in rows:
            expected = [float(one[column]) for column in columns]
            assert [float(many[column]) for column in columns] == pytest.approx(expected, rel=2e-8)


def test_the_short_last_block_is_trained_on(finished: Callable[[str, int], Path]) -> None:
    """Otherwise the cases would not be as uneven as intended."""
    assert 19 in split(finished("adam", 1))["train"]
    assert 2 in split(finished("few", 1))["train"]


# ---- a plain loop of PyTorch ------------------------------------------------------------------------------------

INPUTS = (
    "initial_radius", "initial_temperature", "salinity", "air_temperature", "relative_humidity", "air_density", "time",
)  # fmt: skip
OUTPUTS = ("radius", "temperature")


def physical(rows: dict[str, np.ndarray], samples: int) -> tuple[torch.Tensor]:
    """Return the stored columns, in SI units; a droplet's inputs are repeated for all its times."""
    columns = [np.repeat(rows[name], samples) if rows[name].ndim == 1 else rows[name].ravel() for name in INPUTS]
    return (torch.from_numpy(np.stack(columns + [rows[name].ravel() for name in OUTPUTS], 1).astype(float)),)


def losses(network: DropletNetwork, batch: torch.Tensor, config: DropletsTrainConfig) -> torch.Tensor:
    """Compute each sample's loss: errors of log10 of the radius and of the temperature, in units of their scales."""
    predicted = network(batch[:, :7])
    errors = torch.stack(
        (
            (predicted[:, 0].log10() - batch[:, 7].log10()) / config.radius_scale,
            (predicted[:, 1] - batch[:, 8]) / config.temperature_scale,
        )
    )
    if config.loss == "mse":
        return (errors**2).sum(0)
    if config.loss == "l1":
        return errors.abs().sum(0)
    return torch.where(errors.abs() < 1, errors**2 / 2, errors.abs() - 0.5).sum(0)


def rates(config: DropletsTrainConfig, steps: int) -> Iterator[float]:
    """Yield the learning rate of every step; all epochs have the same number of steps."""
    for step in range(steps):
        epoch = step * config.epochs / steps
        cosine = 0.999 * (1 + math.cos(math.pi * epoch / config.epochs)) / 2 + 0.001
        decay = {"constant": 1.0, "step": 0.5 ** int(epoch), "cosine": cosine}[config.schedule]
        yield config.learning_rate * decay * min(1, (step + 1) / (config.warmup_steps + 1))


class PlainLARS(torch.optim.SGD):
    """Gradients of matrices are scaled before the momentum of plain SGD."""

    def __init__(self, parameters: Iterator[torch.nn.Parameter], decay: float) -> None:
        super().__init__(parameters, momentum=0.9)
        self.decay = decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for weight in self.param_groups[0]["params"]:
            if weight.ndim == 2:
                weight.grad += self.decay * weight
                weight.grad *= 1e-3 * weight.square().sum().sqrt() / weight.grad.square().sum().sqrt()
        super().step()


def plain_training(run: Path, store: Path, samples: int, steps: int) -> tuple[State, float, float]:
    """Repeat the training of a run; return parameters, validation loss and the share of clipped steps."""
    config = build(DropletsTrainConfig, [read_yaml(run / "config.yaml")])
    with Reader.open(store) as reader:
        task = make_task(config, reader, World(None))
        network = task.model.double()
        source = Source(reader, INPUTS + OUTPUTS, lambda rows: physical(rows, samples), torch.device("cpu"), keep=False)
        batches = [
            batch.tensors[0]
            for epoch in range(config.epochs)
            for window in make_windows(
                split(run)["train"],
                lambda block: reader.layout.rows_in(block) * samples,
                config.window,
                config.batch_size,
                config.seed,
                epoch,
            )
            for batch in source.batches(window, 0, 1)
        ]
        held_out = torch.cat([source.load(block)[0] for block in split(run)["validation"]])
    optimizer = {
        "adam": lambda: torch.optim.Adam(network.parameters()),
        "adamw": lambda: torch.optim.AdamW(network.parameters(), weight_decay=config.weight_decay),
        "lars": lambda: PlainLARS(network.parameters(), config.weight_decay),
    }[config.optimizer]()
    clipped = 0
    for batch, rate in zip(batches, rates(config, steps), strict=True):
        optimizer.zero_grad()
        losses(network, batch, config).mean().backward()
        norm = math.sqrt(sum(float(weight.grad.square().sum()) for weight in network.parameters()))
        if config.clip_norm is not None and norm > config.clip_norm:
            clipped += 1
            for weight in network.parameters():
                weight.grad *= config.clip_norm / (norm + 1e-6)  # as in torch.nn.utils.clip_grad_norm_
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    with torch.no_grad():
        return network.state_dict(), float(losses(network, held_out, config).mean()), clipped / steps


@pytest.mark.parametrize("name", EXACT)
def test_a_plain_loop_gives_the_same_parameters(name: str, folder: Path, finished: Callable[[str, int], Path]) -> None:
    store, _, steps, args = CASES[name]
    run = finished(name, 3)
    state, loss, clipped = plain_training(run, folder / f"{store}.h5", STORES[store].get("samples", 1), steps)
    assert difference(model(run), state) <= SAME
    assert float(metrics(run, "validation")[-1]["loss"]) == pytest.approx(loss, rel=1e-7)
    assert (clipped > 0) == ("--clip-norm" in args)


# ---- launchers, and no Horovod ----------------------------------------------------------------------------------


def test_the_command_under_horovodrun_gives_the_same(folder: Path, finished: Callable[[str, int], Path]) -> None:
    program = (str(BIN / "horovodrun"), "-np", "2", str(BIN / "scimill"))
    result = scimill("droplets", "train", *arguments(folder, "adam", "horovodrun"), program=program)
    assert result.returncode == 0, result
    assert difference(model(folder / "adam-horovodrun"), model(finished("adam", 1))) <= SAME
    assert json.loads((folder / "adam-horovodrun/run.json").read_text())["environment"]["ranks"] == 2


def test_processes_that_are_not_mpi_ranks_are_refused(folder: Path, tmp_path: Path) -> None:
    """Horovod's launcher without MPI starts processes that would each train alone."""
    program = (str(BIN / "horovodrun"), "--gloo", "-np", "2", str(BIN / "scimill"))
    args = (folder / "few.h5", "--output", tmp_path / "run", *CASES["few"][3])
    result = scimill("droplets", "train", *args, program=program)
    assert result.returncode != 0, result
    assert "the launcher started 2 processes, but MPI sees 1" in result.stderr
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def without_horovod(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run scimill with everything that is installed here, except Horovod."""
    site = tmp_path_factory.mktemp("site")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith("horovod"):
            (site / entry.name).symlink_to(entry)
    spec = importlib.util.find_spec("scimill")
    assert spec is not None
    source = Path(str(spec.origin)).parents[1]
    return {"program": (sys.executable, "-S", "-m", "scimill"), "env": {"PYTHONPATH": f"{source}:{site}"}}


def test_several_ranks_without_horovod_get_instructions_to_install_it(
    folder: Path, without_horovod: dict[str, Any], tmp_path: Path
) -> None:
    args = (folder / "few.h5", "--output", tmp_path / "run", *CASES["few"][3])
    result = scimill("droplets", "train", *args, ranks=2, **without_horovod)
    assert (result.returncode, len(result.errors), result.tracebacks) == (2, 1, 0), result
    assert "2 ranks were started, but Horovod is not installed" in result.stderr
    assert "scripts/setup.sh" in result.stderr
    assert not (tmp_path / "run").exists()


def test_one_process_needs_no_horovod(
    folder: Path, without_horovod: dict[str, Any], finished: Callable[[str, int], Path]
) -> None:
    result = scimill("droplets", "train", *arguments(folder, "few", "alone"), **without_horovod)
    assert result.returncode == 0, result
    assert difference(model(folder / "few-alone"), model(finished("few", 1))) == 0


# ---- the differentiable sum -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[2, 3])
def summed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, State]]:
    """Return the results of each rank, by dtype."""
    output = tmp_path_factory.mktemp("sums") / "sum"
    program = (sys.executable, str(Path(__file__).with_name("summing.py")), str(output))
    result = scimill(program=program, ranks=request.param)
    assert result.returncode == 0, result
    return [torch.load(f"{output}-{rank}.pt", weights_only=True) for rank in range(request.param)]


def alone(dtype: torch.dtype) -> State:
    """Compute loss and gradients in one process without scimill, in float64, with PyTorch's variance."""
    rows, weights = (tensor.double().requires_grad_() for tensor in data(dtype))
    scaled = (rows - rows.mean(0)) / rows.var(0, correction=0).sqrt()
    value = ((scaled @ weights.t()).tanh() ** 2).sum()
    value.backward()
    return {"rows": rows.grad, "weights": weights.grad, "loss": value.detach()}


DTYPES = {torch.float32: 1e-4, torch.float64: 1e-12}
"""Some tens of roundings; the gradients are differences of terms of the order of 1."""


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_loss_of_global_statistics_has_the_gradient_of_one_process(
    summed: list[dict[str, State]], dtype: torch.dtype
) -> None:
    expected, found = alone(dtype), [rank[str(dtype)] for rank in summed]
    cuts = CUTS[len(summed)]
    close = {"rtol": DTYPES[dtype], "atol": DTYPES[dtype]}
    for (first, last), rank in zip(itertools.pairwise(cuts), found, strict=True):
        np.testing.assert_allclose(rank["rows"], expected["rows"][first:last], **close)
        np.testing.assert_allclose(rank["weights"], expected["weights"], **close)
        np.testing.assert_allclose(rank["loss"], expected["loss"], **close)
        assert {tensor.dtype for tensor in rank.values()} == {dtype}
    assert cuts[-1] == ROWS
    assert expected["rows"].shape == (ROWS, COLUMNS)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_of_strided_tensors_and_its_derivatives_are_as_by_hand(
    summed: list[dict[str, State]], dtype: torch.dtype
) -> None:
    """S is 1 + … + n times the base. Every rank has S³, so the derivatives are n · 3 S² and n² · 6 S."""
    n = len(summed)
    base = torch.arange(6, dtype=dtype).reshape(2, 3).t()
    total = base * (n * (n + 1) // 2)
    for rank, found in enumerate(results[str(dtype)] for results in summed):
        assert torch.equal(found["given"], base * (rank + 1))
        assert torch.equal(found["total"], total)
        assert torch.equal(found["first"], n * 3 * total**2)
        assert torch.equal(found["second"], n**2 * 6 * total)
        assert torch.equal(found["received"], torch.full((2, 2), 5.0, dtype=dtype))


def test_a_run_on_ranks_says_so_in_its_record(folder: Path, finished: Callable[[str, int], Path]) -> None:
    record = json.loads((finished("few", 4) / "run.json").read_text())
    assert record["environment"]["ranks"] == 4
    assert record["store"]["path"] == str((folder / "few.h5").resolve())
