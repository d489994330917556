"""Compare training with plain PyTorch loops; time Horovod, a checkpoint and the exported networks.

Samples per second of whole runs of `scimill droplets train` on 1 and 2 ranks, and of two PyTorch loops over the same
features in memory, with the same network, optimizer and batch size, on one thread: torch.utils.data.DataLoader as its
documentation shows it, and the fastest way to use it, which takes whole batches by their indices. The first epoch,
which reads and checks the store, does not count.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import harness
import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from scimill.droplets import arguments
from scimill.droplets.kernels import lanes
from scimill.droplets.kernels.physics import saturation_pressure
from scimill.droplets.learning.formulas import MODEL_INPUTS
from scimill.droplets.learning.models import load_model
from scimill.droplets.learning.network import predict
from scimill.droplets.learning.train import make_task, read_generation
from scimill.droplets.params import DropletsTrainConfig
from scimill.parallel.world import World, world
from scimill.store.reader import Reader
from scimill.training.checkpoint import save_checkpoint
from scimill.training.gradients import Gradients
from scimill.training.optimizers import make_optimizer
from scimill.training.ranks import Ranks

SEED = 20261120
REPEATS, PASSES = 7, 3
CALLS = 2000  # timed sums over the ranks
DROPLETS_TIMED = 65_536
PLAIN, INDEXED = "plain DataLoader", "DataLoader by batches of indices"


# ---- samples per second -----------------------------------------------------------------------------------------


def training_rate(store: Path, run: Path, epochs: int, ranks: int, *flags: str) -> tuple[float, float]:
    """Train; return samples per second after the first epoch, and the share of time spent waiting."""
    harness.run_scimill("droplets", "train", store, "--output", run, "--epochs", epochs + 1, *flags, ranks=ranks)
    with (run / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train" and int(row["epoch"]) > 0]
    seconds = sum(float(row["seconds"]) for row in rows)
    waited = sum(float(row["seconds"]) * float(row["data_wait"]) for row in rows)
    return sum(int(row["samples"]) for row in rows) / seconds, waited / seconds


def load_task(store: Path, config: DropletsTrainConfig) -> tuple[Any, TensorDataset]:
    """Return the task, and the features and targets of a whole store."""
    with Reader.open(store) as reader:
        task = make_task(config, reader, World(None))
        blocks = [
            task.prepare({name: reader.rows(block, name) for name in task.fields})
            for block in range(reader.layout.blocks)
        ]
    return task, TensorDataset(*(torch.cat(columns) for columns in zip(*blocks, strict=True)))


def make_loaders(data: TensorDataset, batch_size: int) -> dict[str, Iterable[tuple[torch.Tensor, ...]]]:
    """Return two ways to use PyTorch's DataLoader."""
    sampler = BatchSampler(RandomSampler(data), batch_size, drop_last=False)
    return {
        PLAIN: DataLoader(data, batch_size, shuffle=True),
        INDEXED: DataLoader(data, sampler=sampler, batch_size=None),
    }


def loop_rate(task: Any, config: DropletsTrainConfig, loader: Iterable[tuple[torch.Tensor, ...]], most: int) -> float:
    """Return samples per second of the loop in PyTorch's documentation, the median of some passes."""
    return median(_pass_rate(task, config, loader, most) for _ in range(PASSES))


def _pass_rate(task: Any, config: DropletsTrainConfig, loader: Iterable[tuple[torch.Tensor, ...]], most: int) -> float:
    optimizer = make_optimizer(task.model.parameters(), config)
    samples, started = 0, time.monotonic()
    for batch in loader:
        optimizer.zero_grad()
        loss = task.losses(batch).sum() / len(batch[0])
        loss.backward()
        optimizer.step()
        samples += len(batch[0])
        if samples >= most:
            break
    return samples / (time.monotonic() - started)


# ---- Horovod and checkpoints ------------------------------------------------------------------------------------


def time_sums(_: str) -> None:
    """On several ranks, print the microseconds of a step's sum by Horovod and by MPI alone, as JSON."""
    ranks_of_all = world()
    with Ranks(ranks_of_all) as ranks:
        model = torch.nn.Sequential(torch.nn.Linear(9, 32), torch.nn.Linear(32, 63))
        buffer = Gradients(model, extras=3).buffer
        array = buffer.numpy()
        ours = _microseconds(lambda: ranks.sum_(buffer))
        assert ranks_of_all.comm is not None
        mpi = _microseconds(lambda: ranks_of_all.comm.Allreduce(array.copy(), array))
    if ranks_of_all.is_root:
        print(json.dumps({"horovod": ours, "mpi": mpi, "numbers": buffer.numel()}))


def _microseconds(function: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return 1e6 * median(times)


def time_checkpoint(run: Path, folder: Path) -> tuple[float, float, int]:
    """Return seconds of a checkpoint, seconds to write and sync as many bytes, and their number."""
    state = torch.load(run / "checkpoint.pt", weights_only=True)
    size = (run / "checkpoint.pt").stat().st_size
    ours, raw = [], []
    for _ in range(REPEATS):
        started = time.perf_counter()
        save_checkpoint(folder, state)
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        with (folder / "raw").open("wb") as file:
            file.write(bytes(size))
            os.fsync(file.fileno())
        raw.append(time.perf_counter() - started)
    return median(ours), median(raw), size


# ---- inference --------------------------------------------------------------------------------------------------

DRIVER = """program main
  use, intrinsic :: iso_fortran_env, only: real64, int64
  use network, only: predict_droplets
  implicit none
  integer, parameter :: n = {n}, repeats = {repeats}
  real(real64) :: x(n, 7), y(n, 2), seconds(repeats)
  integer(int64) :: first, last, rate
  integer :: unit, i
  open(newunit=unit, file="x.bin", access="stream", form="unformatted")
  read(unit) x
  do i = 1, repeats
    call system_clock(first, rate)
    call predict_droplets(x(:, 1), x(:, 2), x(:, 3), x(:, 4), x(:, 5), x(:, 6), x(:, 7), y(:, 1), y(:, 2))
    call system_clock(last)
    seconds(i) = real(last - first, real64) / real(rate, real64)
  end do
  print *, minval(seconds), sum(y)
end program main
"""


def time_inference(run: Path, store: Path, folder: Path) -> dict[str, float]:
    """Return nanoseconds per droplet of each exported network and of the exact integrator, on one thread."""
    with Reader.open(store) as reader:
        inputs = np.stack([reader.rows(0, name)[:DROPLETS_TIMED] for name in MODEL_INPUTS], 1).astype(np.float64)
        integrator = _make_integrator(reader, inputs)
    model, _ = load_model(run)
    times = {"exact integrator, tolerance 1e-8": _best(integrator, len(inputs))}
    times["PyTorch, float64"] = _best(lambda: predict(model, inputs), len(inputs))
    for precision in ("float64", "float32"):
        times |= _time_exported(run, folder, precision, inputs)
    return times


def _time_exported(run: Path, folder: Path, precision: str, inputs: Any) -> dict[str, float]:
    import onnxruntime

    for form, name in (("torchscript", "network.pt"), ("onnx", "network.onnx"), ("fortran", "network.f90")):
        words = ("export", run, folder / name, "--format", form, "--precision", precision, "--overwrite")
        harness.run_scimill("droplets", *words)
    script, tensor = torch.jit.load(folder / "network.pt"), torch.from_numpy(inputs)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "network.onnx", options)
    for _ in range(3):  # TorchScript compiles a function after two calls
        script(tensor)
    n, given = len(inputs), inputs.astype(precision)  # ONNX models take their own precision only
    return {
        f"TorchScript, {precision}": _best(lambda: script(tensor), n),
        f"ONNX Runtime, {precision}": _best(lambda: session.run(None, {"droplets": given}), n),
        f"Fortran, {precision}": _time_fortran(folder, inputs),
    }


def _time_fortran(folder: Path, inputs: Any) -> float:
    inputs.T.tofile(folder / "x.bin")
    (folder / "main.f90").write_text(DRIVER.format(n=len(inputs), repeats=REPEATS))
    compiler = ("gfortran", "-O3", "-march=native", "network.f90", "main.f90", "-o", "main")
    subprocess.run(compiler, cwd=folder, check=True)
    text = subprocess.run("./main", cwd=folder, check=True, capture_output=True, text=True).stdout
    return 1e9 * float(text.split()[0]) / len(inputs)


def _make_integrator(reader: Reader, inputs: Any) -> Callable[[], object]:
    config = read_generation(reader)
    model = arguments.solver_settings(config)
    r, T, salinity, Tf, RH, rho, t = (np.ascontiguousarray(column) for column in inputs.T)
    droplets = (r, T, model.solute_per_salinity * salinity, Tf, RH, rho, saturation_pressure(Tf, *model.saturation))
    return lambda: lanes.integrate(
        *droplets, t[:, None].copy(), model.constants, tolerance=1e-8, max_steps=model.max_steps, floor=model.dry_radius
    )


def _best(function: Callable[[], object], n: int) -> float:
    times = []
    function()
    for _ in range(REPEATS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return 1e9 * min(times) / n


# ---- everything -------------------------------------------------------------------------------------------------


def measure(droplets: int, epochs: int, folder: Path) -> tuple[list[harness.Goal], dict[str, Any]]:
    """Run and print everything; return the goals and all numbers."""
    store, config = folder / "droplets.h5", DropletsTrainConfig()
    harness.run_scimill("droplets", "generate", store, "--count", droplets, "--seed", SEED)
    task, data = load_task(store, config)
    baselines = make_loaders(data, config.batch_size)
    rates = {name: loop_rate(task, config, loader, droplets // 2) for name, loader in baselines.items()}
    runs = {
        "scimill, 1 rank": (1, ()),
        "scimill, 1 rank, --in-memory": (1, ("--in-memory",)),
        "scimill, 2 ranks": (2, ()),
        "scimill, 2 ranks, --in-memory": (2, ("--in-memory",)),
    }
    waits = {}
    for number, (name, (ranks, flags)) in enumerate(runs.items()):
        rates[name], waits[name] = training_rate(store, folder / f"run-{number}", epochs, ranks, *flags)
    print(f"\n{'samples/s':<36}{'':>12}{'x plain':>10}{'x indexed':>10}{'data wait':>11}")
    for name, rate in rates.items():
        wait = f"{waits[name]:.1%}" if name in waits else ""
        print(f"{name:<36}{rate:>12,.0f}{rate / rates[PLAIN]:>10.2f}{rate / rates[INDEXED]:>10.2f}{wait:>11}")

    sums = json.loads(harness.run_part("sums", ranks=2))
    us = f"Horovod {sums['horovod']:.0f} us, MPI alone {sums['mpi']:.0f} us"
    print(f"\nsum of a step over 2 ranks, {sums['numbers']} numbers: {us}")
    ours, raw, size = time_checkpoint(folder / "run-0", folder)
    print(f"checkpoint of {size:,} bytes: {1e3 * ours:.1f} ms; writing and syncing as many bytes: {1e3 * raw:.1f} ms")
    costs = time_inference(folder / "run-0", store, folder)
    exact = costs["exact integrator, tolerance 1e-8"]
    print(f"\n{'ns/droplet, one thread':<36}{'':>12}{'x exact':>12}")
    for name, cost in costs.items():
        print(f"{name:<36}{cost:>12,.0f}{exact / cost:>12.2f}")
    goals = [
        harness.Goal(f"{name}: times the rate of the {PLAIN}", rates[name] / rates[PLAIN], least=1.0) for name in runs
    ]
    results = {
        "samples_per_second": rates, "data_wait": waits, "sum_microseconds": sums,
        "checkpoint_seconds": {"scimill": ours, "write and fsync": raw}, "nanoseconds_per_droplet": costs,
    }  # fmt: skip
    return goals, results


def main() -> int:
    """Measure and compare."""
    options = harness.parse(
        __doc__,
        harness.Option("droplets", 2_000_000, 200_000, "droplets to train on"),
        harness.Option("epochs", 3, 1, "timed epochs of each run"),
        needs=("mpirun", "gfortran", "horovod", "onnxruntime"),
        part=time_sums,
    )
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(f"{harness.describe_machine()}; torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        goals, results = measure(options.droplets, options.epochs, Path(folder))
    return harness.conclude(goals, results, options.json)


if __name__ == "__main__":
    sys.exit(main())
