"""Exported networks, compiled and run outside scimill, agree with the original network.

Networks of both forms and all activations are trained for one epoch. TorchScript runs in a process without scimill,
ONNX in ONNX Runtime, and Fortran in programs that gfortran compiles with all warnings as errors, with and without
-ffast-math, which may reorder and approximate.
"""

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime
import pytest
import torch

from mpi import scimill, succeed
from needs import require
from scimill import config as configuration
from scimill.cli import scimill as command_line
from scimill.config import Layer, build
from scimill.droplets.generate import generate
from scimill.droplets.learning import fortran
from scimill.droplets.learning.export import export
from scimill.droplets.learning.models import load_model
from scimill.droplets.learning.network import MODEL_INPUTS, DropletNetwork, clear, predict, weights
from scimill.droplets.learning.train import train_network
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig
from scimill.errors import ConfigError, InputError, StorageError
from scimill.parallel.world import World
from scimill.store.output import Output
from scimill.training.checkpoint import write_tensors
from scimill.training.directory import RunDirectory

DROPLETS = 10_000
FORMS, ACTIVATIONS = ("plain", "residual"), ("relu", "silu", "tanh", "gelu")
NETWORKS = [f"{form}_{activation}" for form, activation in itertools.product(FORMS, ACTIVATIONS)]
EXACT = 1e-11  # float64 with other orders of summation and other math libraries; 1e-5 is required
SINGLE = 2e-5  # float32: 24 bits of features and sums up to 10; 2.5 decades of radius magnify relative errors by 6
STANDARD = ("-std=f2008", "-Wall", "-Wextra", "-pedantic", "-Werror")
OPTIMIZED = {"-O2": ("-O2",), "-O3 -ffast-math": ("-O3", "-ffast-math", "-march=native")}
COMPILED = [*((name, "-O3 -ffast-math") for name in NETWORKS), ("plain_gelu", "-O2"), ("residual_silu", "-O2")]
"""-ffast-math compiles whatever the strict flags compile, and changes the code more."""
SIZES = (0, 1, 15, 16, 17, 999, 1000, DROPLETS)  # around the 16 lanes, and around what is worth threads


def train(store: Path, run: Path, **values: Any) -> Path:
    """Train in this process, then enable subnormal numbers again, which training disables."""
    brief = {"epochs": 1, "batch_size": 512, "warmup_steps": 5, "learning_rate": 3e-3, "hidden": [8, 6], **values}
    config = build(DropletsTrainConfig, [Layer("test", brief)])
    try:
        assert train_network(config, store, RunDirectory(run), World(None))
    finally:
        torch.set_flush_denormal(False)
    return run


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, configure: Callable[..., DropletsGenerateConfig]) -> Path:
    path = tmp_path_factory.mktemp("store") / "droplets.h5"
    generate(configure(count=12_000, block_size=1024, seed=7), Output(path), World(None))
    return path


@pytest.fixture(scope="module")
def droplets(store: Path) -> np.ndarray:
    """Return random droplets exactly as stored, (n, 7)."""
    with h5py.File(store, locking=False) as file:
        return np.stack([file[name][:DROPLETS] for name in MODEL_INPUTS], 1).astype(float)


@pytest.fixture(scope="module")
def runs(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Train each network; those with SiLU have more than one part per weight in Fortran."""
    folder = tmp_path_factory.mktemp("runs")
    hidden = {"silu": [40, 40]}
    return {
        name: train(store, folder / name, network=form, activation=activation, hidden=hidden.get(activation, [8, 6]))
        for name, (form, activation) in zip(NETWORKS, itertools.product(FORMS, ACTIVATIONS), strict=True)
    }


@pytest.fixture(scope="module")
def run(runs: dict[str, Path]) -> Path:
    return runs["residual_silu"]


@pytest.fixture(scope="module")
def expected(runs: dict[str, Path], droplets: np.ndarray) -> dict[str, np.ndarray]:
    return {name: predict(load_model(path)[0], droplets) for name, path in runs.items()}


def write(run: Path, path: Path, form: str, **values: Any) -> Path:
    """Export with the defaults of the command."""
    export(run, path, form, **{"precision": "float64", "zero": False, "overwrite": False, **values})
    return path


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest relative difference of radius and temperature."""
    assert found.shape == expected.shape
    return float(np.max(np.abs(np.asarray(found, dtype=float) / expected - 1), initial=0.0))


# ---- TorchScript ------------------------------------------------------------------------------------------------

LOADER = """
import json, sys
import numpy as np, torch
droplets, *paths = sys.argv[1:]
for path in paths:
    about = {"about.json": ""}
    model = torch.jit.load(path, _extra_files=about)
    x = torch.from_numpy(np.load(droplets))
    with torch.no_grad():
        for n in (0, 1, 5):
            assert tuple(model(x[:n]).outcome.shape) == (n, 2)
        np.save(path + ".npy", model(x).outcome.numpy())
        assert model(x.float()).outcome.dtype == torch.float32
        assert model(x.float()).in_range.all() and model(x).in_range.all()
    json.dump(json.loads(about["about.json"]), open(path + ".json", "w"))
assert not any(name.startswith("scimill") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def torchscript(tmp_path_factory: pytest.TempPathFactory, droplets: np.ndarray) -> Callable[..., np.ndarray]:
    """Predict with exported models in a process without scimill."""
    folder = tmp_path_factory.mktemp("torchscript")
    np.save(folder / "droplets.npy", droplets)

    def run_elsewhere(*paths: Path) -> list[np.ndarray]:
        command = [sys.executable, "-I", "-c", LOADER, str(folder / "droplets.npy"), *map(str, paths)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return [np.load(f"{path}.npy") for path in paths]

    return run_elsewhere


def test_torchscript_equals_the_network(
    runs: dict[str, Path], expected: dict[str, np.ndarray], torchscript: Callable[..., Any], tmp_path: Path
) -> None:
    double = [write(runs[name], tmp_path / f"{name}.pt", "torchscript") for name in NETWORKS]
    single = [
        write(runs[name], tmp_path / f"{name}-single.pt", "torchscript", precision="float32") for name in NETWORKS
    ]
    found = torchscript(*double, *single)
    for name, exact, rounded in zip(NETWORKS, found[: len(NETWORKS)], found[len(NETWORKS) :], strict=True):
        assert relative(exact, expected[name]) < EXACT, name
        assert 0 < relative(rounded, expected[name]) < SINGLE, name


def test_torchscript_records_its_origin(
    run: Path, store: Path, torchscript: Callable[..., Any], tmp_path: Path
) -> None:
    path = write(run, tmp_path / "net.pt", "torchscript")
    torchscript(path)
    about = json.loads(Path(f"{path}.json").read_text())
    record = json.loads((run / "run.json").read_text())
    assert about["trained on"] == f"12,000 droplets of {store.name}, seed 7"
    assert about["store"] == record["store"]["identity"]
    assert about["network"] == "[40, 40]"


# ---- ONNX -------------------------------------------------------------------------------------------------------


def onnx(path: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    parts = (*session.get_inputs(), *session.get_outputs())
    assert [(part.name, part.shape) for part in parts] == [
        ("droplets", ["droplets", 7]), ("outcome", ["droplets", 2]), ("in_range", ["droplets"]),
    ]  # fmt: skip
    assert parts[0].type == parts[1].type
    outcome, in_range = session.run(
        None, {"droplets": x.astype({"tensor(double)": "f8", "tensor(float)": "f4"}[parts[0].type])}
    )
    assert in_range.dtype == bool
    assert in_range.all()
    return np.asarray(outcome)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_equals_the_network(
    name: str, runs: dict[str, Path], expected: dict[str, np.ndarray], droplets: np.ndarray, tmp_path: Path
) -> None:
    path = write(runs[name], tmp_path / "net.onnx", "onnx")
    assert relative(onnx(path, droplets), expected[name]) < EXACT
    for n in (0, 1, 5):
        assert relative(onnx(path, droplets[:n]), expected[name][:n]) < 1e-6


def test_onnx_of_single_precision_and_its_origin(
    run: Path, expected: dict[str, np.ndarray], droplets: np.ndarray, tmp_path: Path
) -> None:
    path = write(run, tmp_path / "net.onnx", "onnx", precision="float32")
    assert 0 < relative(onnx(path, droplets), expected["residual_silu"]) < SINGLE
    origin = onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map
    assert origin["trained on"].endswith("seed 7")
    assert origin["store"] == json.loads((run / "run.json").read_text())["store"]["identity"]


# ---- Fortran ----------------------------------------------------------------------------------------------------

DRIVER = """
program driver
  use, intrinsic :: iso_fortran_env, only: int64, real32, real64
  use {module}
  implicit none
  integer(int64) :: n
  real(real64), allocatable :: x(:, :), radius(:), temperature(:)
  real(real32), allocatable :: s(:, :), single_radius(:), single_temperature(:)
  integer :: unit, sizes, k

  open (newunit=unit, file="droplets.bin", access="stream", form="unformatted", status="old")
  read (unit) n
  allocate (x(n, 7))
  read (unit) x
  read (unit) sizes
  s = real(x, real32)
  open (newunit=k, file="{module}.out", access="stream", form="unformatted", status="replace")
  write (k) initial_radius_range, initial_temperature_range, salinity_range, air_temperature_range, &
    relative_humidity_range, air_density_range, time_range
  write (k) network_parameters
  do while (sizes > 0)
    read (unit) n
    allocate (radius(n), temperature(n), single_radius(n), single_temperature(n))
    call predict_droplets(x(:n, 1), x(:n, 2), x(:n, 3), x(:n, 4), x(:n, 5), x(:n, 6), x(:n, 7), radius, temperature)
    call predict_droplets(s(:n, 1), s(:n, 2), s(:n, 3), s(:n, 4), s(:n, 5), s(:n, 6), s(:n, 7), &
                          single_radius, single_temperature)
    write (k) radius, temperature, single_radius, single_temperature
    deallocate (radius, temperature, single_radius, single_temperature)
    sizes = sizes - 1
  end do
  print '(a)', network_origin
end program driver
"""


def compile_fortran(*sources: Path, flags: tuple[str, ...], program: str = "") -> None:
    require("gfortran")
    command = ["gfortran", *STANDARD, *flags, *(source.name for source in sources)]
    command += ["-o", program] if program else ["-c"]
    done = subprocess.run(command, check=False, cwd=sources[0].parent, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def put_droplets(x: np.ndarray, folder: Path) -> None:
    """Write the input of the drivers."""
    with (folder / "droplets.bin").open("wb") as file:
        file.write(np.int64(len(x)).tobytes() + np.asfortranarray(x).tobytes("F"))
        file.write(np.int32(len(SIZES)).tobytes() + np.array(SIZES, np.int64).tobytes())


class Outcome:
    """The output of a module's driver."""

    def __init__(self, path: Path, origin: str) -> None:
        self.origin = origin.strip()
        with path.open("rb") as file:
            self.ranges = np.fromfile(file, np.float64, 14).reshape(7, 2)
            self.parameters = int(np.fromfile(file, np.int32, 1)[0])
            self.double, self.single = {}, {}
            for n in SIZES:
                self.double[n] = np.fromfile(file, np.float64, 2 * n).reshape(2, n).T
                self.single[n] = np.fromfile(file, np.float32, 2 * n).reshape(2, n).T
            assert not file.read()


@pytest.fixture(scope="module")
def compiled(
    runs: dict[str, Path], droplets: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str, str], Outcome]:
    """Compile and run the module of a network with a precision and flags, each combination once."""
    folder = tmp_path_factory.mktemp("fortran")
    put_droplets(droplets, folder)

    @cache
    def outcome(name: str, precision: str, flags: str) -> Outcome:
        module = f"{name}_{precision}"
        source, driver = folder / f"{module}.f90", folder / f"{module}_driver.f90"
        write(runs[name], source, "fortran", precision=precision, overwrite=True)
        driver.write_text(DRIVER.format(module=module))
        compile_fortran(source, driver, flags=OPTIMIZED[flags], program=module)
        done = subprocess.run([folder / module], check=False, cwd=folder, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        return Outcome(folder / f"{module}.out", done.stdout)

    return outcome


@pytest.mark.parametrize(("name", "flags"), COMPILED)
def test_fortran_equals_the_network(
    name: str, flags: str, compiled: Callable[..., Outcome], expected: dict[str, np.ndarray]
) -> None:
    found = compiled(name, "float64", flags)
    assert relative(found.double[DROPLETS], expected[name]) < EXACT
    assert relative(found.single[DROPLETS], expected[name]) < 1e-7  # outputs are float32, which are 6e-8 apart
    for n in SIZES:
        assert relative(found.double[n], expected[name][:n]) < EXACT


@pytest.mark.parametrize(("name", "flags"), COMPILED)
def test_fortran_of_single_precision(
    name: str, flags: str, compiled: Callable[..., Outcome], expected: dict[str, np.ndarray]
) -> None:
    assert 1e-10 < relative(compiled(name, "float32", flags).double[DROPLETS], expected[name]) < SINGLE


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_both_fortran_interfaces_give_the_same_results(precision: str, compiled: Callable[..., Outcome]) -> None:
    found = compiled("residual_silu", precision, "-O2")
    for n in SIZES:
        assert np.array_equal(found.single[n], found.double[n].astype(np.float32))
        assert np.array_equal(found.double[n], found.double[DROPLETS][:n])


def test_fortran_contains_its_ranges_size_and_origin(run: Path, store: Path, compiled: Callable[..., Outcome]) -> None:
    found = compiled("residual_silu", "float64", "-O2")
    with h5py.File(store, locking=False) as file:
        stored = configuration.parse_yaml(file.attrs["config"], "test").values
    names = [name.removeprefix("initial_") for name in MODEL_INPUTS]
    assert found.ranges.tolist() == [list(map(float, stored[f"{name}_range"])) for name in names]
    assert found.parameters == 9 * 40 + 40 + 40 * 40 + 40 + 40 * 2 + 2
    assert "trained on: 12,000 droplets" in found.origin


def test_fortran_contains_its_provenance_within_the_line_limit(run: Path, store: Path, tmp_path: Path) -> None:
    text = write(run, tmp_path / "net.f90", "fortran").read_text("ascii")
    record, result = (json.loads((run / name).read_text()) for name in ("run.json", "result.json"))
    for line in (
        f"! trained on: 12,000 droplets of {store.name}, seed 7",
        f"! store: {record['store']['identity']}",
        f"! date: {record['environment']['date']}",
        "! epoch: 1",
        f"! validation loss: {result['best_loss']:.6g}",
    ):
        assert line in text.splitlines()
    assert max(map(len, text.splitlines())) <= 132


def numbers(text: str, name: str) -> list[float]:
    """Read the elements of a constant array of a module, which may consist of other arrays."""
    found = re.search(rf":: {name}\([\d, ]+\) = (?:reshape\()?\[(.*?)\]", text, re.DOTALL)
    assert found, name
    items = [item.strip(" &\n") for item in found[1].split(",")]
    parts = [numbers(text, item) if item[0].isalpha() else [float(item.removesuffix("_nk"))] for item in items]
    return [value for part in parts for value in part]


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("name", ["plain_relu", "residual_silu"])
def test_weights_in_fortran_are_bit_for_bit_the_same(
    name: str, precision: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    text = write(runs[name], tmp_path / "net.f90", "fortran", precision=precision).read_text()
    model = load_model(runs[name])[0].to(getattr(torch, precision))
    for number, (weight, bias) in enumerate(weights(model), 1):
        outputs, inputs = weight.shape
        filled = np.array(numbers(text, f"bias{number}"), bias.dtype)
        table = np.array(numbers(text, f"weight{number}"), weight.dtype).reshape(-1, len(filled))
        assert np.array_equal(table[:inputs, :outputs], weight.T)
        assert np.array_equal(filled[:outputs], bias)
        assert np.count_nonzero(table) == np.count_nonzero(weight)
        assert np.count_nonzero(filled) == np.count_nonzero(bias)
    assert name != "residual_silu" or "part2_4" in text


def randomly(run: Path, **changes: Any) -> DropletNetwork:
    """Make a network for the run's data with other layers and random weights."""
    return DropletNetwork(replace(load_model(run)[0].spec, **changes)).double().eval()


def write_module(model: DropletNetwork, folder: Path, name: str) -> Path:
    path = folder / f"{name}.f90"
    path.write_text(fortran.make_module(model, path, {"made": "for a test"}))
    return path


@pytest.mark.parametrize("hidden", [(1,), (128, 128, 128), (160,), (1100,)], ids=str)
def test_fortran_of_other_widths_compiles_without_a_warning(hidden: tuple[int, ...], run: Path, tmp_path: Path) -> None:
    """160 neurons exceed what gfortran puts on the stack by default; 1100 biases exceed 255 lines."""
    compile_fortran(write_module(randomly(run, hidden=hidden), tmp_path, "net"), flags=("-O0",))


def test_fortran_accepts_the_smallest_and_largest_weights(run: Path, tmp_path: Path) -> None:
    extremes = [0.0, -0.0, 1e-310, -5e-324, 1.7e308]
    model = randomly(run)
    with torch.no_grad():
        model.body[0].weight[:5, 0] = torch.tensor(extremes, dtype=torch.float64)
    path = write_module(model, tmp_path, "net")
    compile_fortran(path, flags=("-O0",))
    read = np.array(numbers(path.read_text(), "weight1")[:5])
    assert read.tobytes() == np.array(extremes).tobytes()


THREADS = """
program threads
  use, intrinsic :: iso_fortran_env, only: real64
  use {module}
  implicit none
  integer, parameter :: calls = 200, n = 100
  real(real64) :: x(n, 7, calls), serial(n, 2, calls), parallel(n, 2, calls)
  integer :: unit, k, repeat

  open (newunit=unit, file="slices.bin", access="stream", form="unformatted", status="old")
  read (unit) x
  do k = 1, calls
    call predict(k, serial)
  end do
  do repeat = 1, 20
    parallel = -1
    !$omp parallel do schedule(dynamic) num_threads(8)
    do k = 1, calls
      call predict(k, parallel)
    end do
    !$omp end parallel do
    if (any(parallel /= serial)) error stop "threads disturb each other"
  end do
  print '(a)', "same bits"
contains
  subroutine predict(k, y)
    integer, intent(in) :: k
    real(real64), intent(inout) :: y(n, 2, calls)
    call predict_droplets(x(:, 1, k), x(:, 2, k), x(:, 3, k), x(:, 4, k), x(:, 5, k), x(:, 6, k), x(:, 7, k), &
                          y(:, 1, k), y(:, 2, k))
  end subroutine predict
end program threads
"""


@pytest.mark.needs("gfortran")
@pytest.mark.parametrize("hidden", [(32, 30, 34), (160,)], ids=str)
def test_concurrent_threads_get_the_same_bits_as_one_thread(
    hidden: tuple[int, ...], run: Path, droplets: np.ndarray, tmp_path: Path
) -> None:
    """The module is compiled without -fopenmp, which would hide static variables shared between threads."""
    module, main = write_module(randomly(run, hidden=hidden), tmp_path, "net"), tmp_path / "threads.f90"
    main.write_text(THREADS.format(module="net"))
    x = np.resize(droplets, (200, 100, 7))
    (tmp_path / "slices.bin").write_bytes(x.transpose(0, 2, 1).tobytes())
    command = ["gfortran", "-std=f2008", "-O2"]
    for arguments in (["-c", module.name], ["-fopenmp", main.name, "net.o", "-o", "threads"]):
        subprocess.run([*command, *arguments], cwd=tmp_path, check=True, timeout=60)
    done = subprocess.run([tmp_path / "threads"], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "same bits"), done.stderr


# ---- names of modules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["1net", "my net", "net.v2", "_net", "net+", "a" * 64, "nétwork"])
def test_a_name_that_fortran_forbids_is_refused(stem: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a valid name of a Fortran module"):
        write(run, tmp_path / f"{stem}.f90", "fortran")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stem", ["predict_droplets", "Features", "wp", "exp", "relu", "time", "weight1", "n"])
def test_a_name_that_the_module_uses_itself_is_refused_or_compiles(stem: str, run: Path, tmp_path: Path) -> None:
    try:
        path = write(run, tmp_path / f"{stem}.f90", "fortran")
    except ConfigError:
        assert list(tmp_path.iterdir()) == []
    else:
        compile_fortran(path, flags=("-O0",))


@pytest.mark.parametrize(("stem", "module"), [("my-net", "my_net"), ("N2", "N2"), ("a" * 63, "a" * 63)])
def test_the_module_is_named_after_its_file(stem: str, module: str, run: Path, tmp_path: Path) -> None:
    path = write(run, tmp_path / f"{stem}.f90", "fortran")
    assert f"\nmodule {module}\n" in path.read_text()
    compile_fortran(path, flags=("-O0",))
    assert (tmp_path / f"{module.lower()}.mod").exists()


# ---- networks without weights -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain_relu", "residual_silu"])
def test_zero_networks_of_all_formats_give_the_base(
    name: str, runs: dict[str, Path], droplets: np.ndarray, torchscript: Callable[..., Any], tmp_path: Path
) -> None:
    model, _ = load_model(runs[name])
    clear(model)
    base = predict(model, droplets)
    if name == "plain_relu":
        np.testing.assert_allclose(base, [[10**-5.5, 291.5]] * DROPLETS, rtol=1e-12)
    else:
        np.testing.assert_allclose(base[:, 0], droplets[:, 0], rtol=1e-12)
        assert np.all(base[:, 1] >= np.minimum(droplets[:, 1], droplets[:, 3]) - 1e-9)
        assert np.all(base[:, 1] <= np.maximum(droplets[:, 1], droplets[:, 3]) + 1e-9)
    (found,) = torchscript(write(runs[name], tmp_path / "net.pt", "torchscript", zero=True))
    assert relative(found, base) < EXACT
    assert relative(onnx(write(runs[name], tmp_path / "net.onnx", "onnx", zero=True), droplets), base) < EXACT
    module, driver = write(runs[name], tmp_path / "net.f90", "fortran", zero=True), tmp_path / "driver.f90"
    assert "all weights zero" in module.read_text()
    driver.write_text(DRIVER.format(module="net"))
    put_droplets(droplets, tmp_path)
    compile_fortran(module, driver, flags=("-O1",), program="driver")
    subprocess.run([tmp_path / "driver"], cwd=tmp_path, check=True, timeout=60, stdout=subprocess.DEVNULL)
    assert relative(Outcome(tmp_path / "net.out", "").double[DROPLETS], base) < EXACT


# ---- the command and its errors ---------------------------------------------------------------------------------


def call(*args: object) -> None:
    """Run the command line in this process."""
    command_line.main(["droplets", *map(str, args)], prog_name="scimill", standalone_mode=False)


def test_command_reports_what_it_writes_and_replaces_files_only_with_overwrite(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.f90"
    done = succeed("droplets", "export", run / "model.pt", path, "--format", "fortran")
    assert done.stdout == f"{path}: residual network as fortran, trained on 12,000 droplets of droplets.h5, seed 7\n"
    assert done.stderr == ""
    path.write_text("mine")
    again = scimill("droplets", "export", run, path, "--format", "fortran")
    assert (again.returncode, len(again.errors), again.tracebacks) == (4, 1, 0)
    assert path.read_text() == "mine"
    call("export", run, path, "--format", "fortran", "--overwrite", "--zero")
    assert "all weights zero" in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "kind"), [("net.f90", "fortran"), ("net.C", "c"), ("net.onnx", "onnx"), ("net.pt", "torchscript")]
)
def test_the_format_follows_from_the_name(
    name: str, kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("export", run, tmp_path / name)
    assert f"residual network as {kind}, trained on" in capsys.readouterr().out


def test_a_name_without_a_format_is_refused(run: Path, tmp_path: Path) -> None:
    result = scimill("droplets", "export", run, tmp_path / "net.txt")
    assert (result.returncode, len(result.errors), result.tracebacks) == (2, 1, 0), result
    assert "add --format: torchscript, onnx, fortran, c" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stem", ["1net", "my net", "net.v2", "n" * 46])
def test_a_name_that_c_forbids_is_refused(stem: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot start the names of functions in C"):
        write(run, tmp_path / f"{stem}.c", "c")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["torchscript", "onnx", "fortran", "c"])
def test_impossible_output_paths_are_refused(kind: str, run: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "not" / "there.x"):
        with pytest.raises(StorageError):
            call("export", run, path, "--format", kind, "--overwrite")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def wrong(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Make files that are not models."""
    folder, whole = tmp_path_factory.mktemp("wrong"), (run / "model.pt").read_bytes()
    flipped, deflated = bytearray(whole), bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    deflated[whole.index(b"PK\x01\x02") + 10] ^= 8  # compression method of the first member, in the archive's directory
    contents = {"text": b"no model", "empty": b"", "cut": whole[:-100], "flipped": flipped, "deflated": deflated}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    export(run, folder / "torchscript", "torchscript", precision="float64", zero=False, overwrite=False)
    content = load_model(run)[1]
    write_tensors(folder / "other", "model", {**content, "network": {**content["network"], "campaign": "sky"}})
    (folder / "folder").mkdir()
    named = {name: folder / name for name in (*contents, "torchscript", "other", "folder", "missing")}
    return {**named, "checkpoint": run / "checkpoint.pt"}


WRONG = ("text", "empty", "cut", "flipped", "deflated", "torchscript", "other", "folder", "missing", "checkpoint")


@pytest.mark.parametrize("kind", WRONG)
def test_files_that_are_not_models_are_refused(kind: str, wrong: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        call("export", wrong[kind], tmp_path / "net.pt", "--format", "torchscript")
    assert caught.value.exit_code == 3
    assert str(wrong[kind]) in str(caught.value)
    assert len(caught.value.what) < 120
    assert list(tmp_path.iterdir()) == []


def test_refusals_reach_the_user_as_short_messages(wrong: dict[str, Path], run: Path, tmp_path: Path) -> None:
    for model, name, code in ((wrong["checkpoint"], "net", 3), (wrong["torchscript"], "net", 3), (run, "1net", 2)):
        result = scimill("droplets", "export", model, tmp_path / f"{name}.f90", "--format", "fortran")
        assert (result.returncode, len(result.errors), result.tracebacks) == (code, 1, 0), result
        assert len(result.stderr.splitlines()) <= 4, result
