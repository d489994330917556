"""Networks as Fortran and C source: one droplet and many, derivatives, ranges, time 0, and threads.

The networks have random weights. Their sources are compiled with all warnings as errors, without and with OpenMP, and
run in drivers without scimill. PyTorch's automatic differentiation gives the expected derivatives.
"""

import itertools
import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from needs import require
from scimill.config import Layer, build
from scimill.droplets.learning import c_source, fortran
from scimill.droplets.learning.network import MODEL_INPUTS, RANGE_ROUNDING, DropletNetwork, predict
from scimill.droplets.learning.train import make_spec
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig

DROPLETS = 2_003  # enough for threads, and not a multiple of the lanes
EXACT, SINGLE = 1e-11, 2e-5  # as in test_exports
NETWORKS = list(itertools.product(("plain", "residual"), ("relu", "silu", "tanh", "gelu")))
FLAGS = {
    "fortran": ("gfortran", "-std=f2008", "-Wall", "-Wextra", "-pedantic", "-Werror"),
    "c": ("gcc", "-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror"),
}
SUFFIX = {"fortran": "f90", "c": "c"}
OPTIMIZED = {"-O2": ("-O2",), "-fopenmp": ("-O2", "-fopenmp"), "native": ("-O3", "-march=native")}
CASES = [
    *((*network, language, "float64", "-O2") for network in NETWORKS for language in FLAGS),
    *(("residual", "silu", language, precision, flags)
      for language in FLAGS for precision in ("float64", "float32") for flags in OPTIMIZED
      if (precision, flags) != ("float64", "-O2")),
    *(("plain", "gelu", language, "float32", "-O2") for language in FLAGS),
]  # fmt: skip

FORTRAN_DRIVER = """
program driver
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use net
  implicit none
  integer, parameter :: n = {n}
  real(real64) :: x(n, 7), one(n, 2), many(n, 2), y(n, 2), d(7, 2, n), all_d(7, 2, n)
  real(real32) :: s(n, 7), one_s(n, 2), many_s(n, 2), ds(7, 2, n), all_ds(7, 2, n), grid(2, n / 2, 2)
  integer :: i, unit

  open (newunit=unit, file="x.bin", access="stream", form="unformatted", status="old")
  read (unit) x
  close (unit)
  s = real(x, real32)
  do i = 1, n
    call predict_droplets(x(i, 1), x(i, 2), x(i, 3), x(i, 4), x(i, 5), x(i, 6), x(i, 7), one(i, 1), one(i, 2))
    call predict_droplets(s(i, 1), s(i, 2), s(i, 3), s(i, 4), s(i, 5), s(i, 6), s(i, 7), one_s(i, 1), one_s(i, 2))
    call predict_droplets_derivatives(x(i, 1), x(i, 2), x(i, 3), x(i, 4), x(i, 5), x(i, 6), x(i, 7), y(i, 1), y(i, 2), &
                                      d(:, :, i))
    call predict_droplets_derivatives(s(i, 1), s(i, 2), s(i, 3), s(i, 4), s(i, 5), s(i, 6), s(i, 7), &
                                      many_s(i, 1), many_s(i, 2), ds(:, :, i))
  end do
  if (any(many_s /= one_s .and. abs(many_s / one_s - 1) > 1e-5)) error stop "values beside derivatives differ"
  call predict_droplets(x(:, 1), x(:, 2), x(:, 3), x(:, 4), x(:, 5), x(:, 6), x(:, 7), many(:, 1), many(:, 2))
  call predict_droplets(s(:, 1), s(:, 2), s(:, 3), s(:, 4), s(:, 5), s(:, 6), s(:, 7), many_s(:, 1), many_s(:, 2))
  call predict_droplets_derivatives(x(:, 1), x(:, 2), x(:, 3), x(:, 4), x(:, 5), x(:, 6), x(:, 7), &
                                    y(:, 1), y(:, 2), all_d)
  if (any(all_d /= d)) error stop "derivatives of one and of many droplets differ"
  call predict_droplets_derivatives(s(:, 1), s(:, 2), s(:, 3), s(:, 4), s(:, 5), s(:, 6), s(:, 7), &
                                    many_s(:, 1), many_s(:, 2), all_ds)
  if (any(all_ds /= ds)) error stop "derivatives of one and of many droplets differ"
  call predict_droplets(s(:, 1), s(:, 2), s(:, 3), s(:, 4), s(:, 5), s(:, 6), s(:, 7), many_s(:, 1), many_s(:, 2))
  call predict_droplets(reshape(s(:n / 2 * 2, 1), [2, n / 2]), s(1, 2), s(1, 3), s(1, 4), s(1, 5), s(1, 6), s(1, 7), &
                        grid(:, :, 1), grid(:, :, 2))
  if (grid(1, 1, 1) /= one_s(1, 1)) error stop "an array of rank 2 differs"
  open (newunit=unit, file="y.bin", access="stream", form="unformatted", status="replace")
  write (unit) one, many, y, d, real(one_s, real64), real(many_s, real64), real(ds, real64)
  write (unit) merge(1.0_real64, 0.0_real64, &
                     droplets_in_range(x(:, 1), x(:, 2), x(:, 3), x(:, 4), x(:, 5), x(:, 6), x(:, 7)))
  write (unit) merge(1.0_real64, 0.0_real64, &
                     droplets_in_range(s(:, 1), s(:, 2), s(:, 3), s(:, 4), s(:, 5), s(:, 6), s(:, 7)))
end program driver
"""

# Calls C from Fortran by the interface in the comment of the C file, which so is tested as well.
C_DRIVER = """
program driver
  use, intrinsic :: iso_c_binding, only: c_bool, c_double, c_float, c_size_t
  implicit none
{interface}
  integer, parameter :: n = {n}
  integer(c_size_t), parameter :: count = n
  real(c_double) :: x(n, 7), one(n, 2), many(n, 2), y(n, 2), d(7, 2, n), all_d(7, 2, n), in_range(n, 2), t(7)
  real(c_float) :: s(n, 7), many_s(n, 2), ds(7, 2, n)
  integer :: i, unit

  open (newunit=unit, file="x.bin", access="stream", form="unformatted", status="old")
  read (unit) x
  close (unit)
  s = real(x, c_float)
  do i = 1, n
    call net_predict(x(i, 1), x(i, 2), x(i, 3), x(i, 4), x(i, 5), x(i, 6), x(i, 7), one(i, 1), one(i, 2))
    call net_derivatives(x(i, 1), x(i, 2), x(i, 3), x(i, 4), x(i, 5), x(i, 6), x(i, 7), y(i, 1), y(i, 2), d(:, :, i))
    in_range(i, 1) = merge(1, 0, net_in_range(x(i, 1), x(i, 2), x(i, 3), x(i, 4), x(i, 5), x(i, 6), x(i, 7)))
    t = s(i, :)
    in_range(i, 2) = merge(1, 0, net_in_range(t(1), t(2), t(3), t(4), t(5), t(6), t(7)))
  end do
  call net_predict_many(count, x(:, 1), x(:, 2), x(:, 3), x(:, 4), x(:, 5), x(:, 6), x(:, 7), many(:, 1), many(:, 2))
  call net_derivatives_many(count, x(:, 1), x(:, 2), x(:, 3), x(:, 4), x(:, 5), x(:, 6), x(:, 7), &
                            y(:, 1), y(:, 2), all_d)
  if (any(all_d /= d)) error stop "derivatives of one and of many droplets differ"
  call net_derivatives_many_float(count, s(:, 1), s(:, 2), s(:, 3), s(:, 4), s(:, 5), s(:, 6), s(:, 7), &
                                  many_s(:, 1), many_s(:, 2), ds)
  call net_predict_many_float(count, s(:, 1), s(:, 2), s(:, 3), s(:, 4), s(:, 5), s(:, 6), s(:, 7), &
                              many_s(:, 1), many_s(:, 2))
  open (newunit=unit, file="y.bin", access="stream", form="unformatted", status="replace")
  write (unit) one, many, y, d, real(many_s, c_double), real(many_s, c_double), real(ds, c_double), in_range
end program driver
"""


def make_network(form: str, activation: str, hidden: tuple[int, ...] = (13, 8)) -> DropletNetwork:
    """Make a network with random weights."""
    torch.manual_seed(5)
    config = build(DropletsTrainConfig, [Layer("test", {"network": form, "activation": activation, "hidden": hidden})])
    data = build(DropletsGenerateConfig, [Layer("test", {"count": 10})])
    return DropletNetwork(make_spec(config, data)).double().eval()


def make_droplets(model: DropletNetwork) -> np.ndarray:
    """Draw droplets from the ranges, as float32 numbers; some out of range, and the last ones at time 0."""
    low, high = np.array(model.spec.ranges).T
    x = np.random.default_rng(3).uniform(size=(DROPLETS, len(MODEL_INPUTS)))
    logarithmic = low * (high / low) ** x
    x = np.where(high / low > 5, logarithmic, low + (high - low) * x).astype(np.float32).astype(float)
    x[:7] = np.where(np.eye(7, dtype=bool), np.float32(1.01 * high), x[:7])
    x[7:14] = np.where(np.eye(7, dtype=bool), np.float32(0.99 * low), x[7:14])
    x[14], x[15] = low.astype(np.float32), high.astype(np.float32)
    x[-40:, 6] = 0
    return np.asarray(x)


def expected_derivatives(model: DropletNetwork, x: np.ndarray) -> np.ndarray:
    """Differentiate by PyTorch, (n, 2, 7)."""
    droplets = torch.from_numpy(x).requires_grad_()
    outcome = model(droplets)
    found = [torch.autograd.grad(outcome[:, place].sum(), droplets, retain_graph=True)[0] for place in (0, 1)]
    return np.stack([part.numpy() for part in found], 1)


def interface_of(text: str) -> str:
    """Return the Fortran interface in the comment of a C file."""
    lines = [line.removeprefix(" *") for line in text.splitlines()]
    first, last = (
        next(i for i, line in enumerate(lines) if line.strip() == name) for name in ("interface", "end interface")
    )
    return "\n".join(lines[first : last + 1])


def run(command: list[str], folder: Path, **variables: str) -> None:
    require("gfortran")  # it comes with gcc
    done = subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, timeout=120, env=os.environ | variables
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[:3000]


class Found:
    """What a driver computed."""

    def __init__(self, path: Path) -> None:
        values, n = np.fromfile(path), DROPLETS
        sizes = [2 * n, 2 * n, 2 * n, 14 * n, 2 * n, 2 * n, 14 * n, n, n]
        assert len(values) == sum(sizes)
        parts = np.split(values, np.cumsum(sizes)[:-1])
        self.one, self.many, self.beside, self.one_single, self.many_single = (
            parts[place].reshape(2, n).T for place in (0, 1, 2, 4, 5)
        )
        self.derivatives, self.derivatives_single = (parts[place].reshape(n, 2, 7) for place in (3, 6))
        self.in_range, self.in_range_single = (parts[place] == 1 for place in (7, 8))


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Found]:
    """Compile and run a network in a language, each combination once."""

    @cache
    def compute(form: str, activation: str, language: str, precision: str, flags: str, threads: int = 3) -> Found:
        folder = tmp_path_factory.mktemp("source")
        model = make_network(form, activation)
        make_droplets(model).T.tofile(folder / "x.bin")
        path = folder / f"net.{SUFFIX[language]}"
        rounded = make_network(form, activation).to(getattr(torch, precision))
        make = {"fortran": fortran.make_module, "c": c_source.make_source}[language]
        path.write_text(make(rounded, path, {"made": 'for a "test" */ \\'}), "ascii")
        driver = {"fortran": FORTRAN_DRIVER, "c": C_DRIVER}[language]
        interface = interface_of(path.read_text()) if language == "c" else ""
        (folder / "driver.f90").write_text(driver.format(n=DROPLETS, interface=interface))
        run([*FLAGS[language], *OPTIMIZED[flags], "-c", path.name], folder)
        run(
            [
                "gfortran",
                "-std=f2008",
                "-ffree-line-length-none",
                "-fopenmp",
                "driver.f90",
                "net.o",
                "-lm",
                "-o",
                "driver",
            ],
            folder,
        )
        run(["./driver"], folder, OMP_NUM_THREADS=str(threads))
        return Found(folder / "y.bin")

    return compute


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(found / expected - 1)))


@pytest.mark.parametrize(("form", "activation", "language", "precision", "flags"), CASES)
def test_one_droplet_and_many_agree_with_the_network(
    form: str, activation: str, language: str, precision: str, flags: str, computed: Callable[..., Found]
) -> None:
    model = make_network(form, activation)
    x = make_droplets(model)
    expected = predict(model, x)
    found = computed(form, activation, language, precision, flags)
    bound = EXACT if precision == "float64" else SINGLE
    assert relative(found.one, expected) < bound
    assert relative(found.many, expected) < bound
    assert relative(found.beside, expected) < bound
    assert relative(found.one_single, expected) < max(bound, 1e-7)
    assert relative(found.many_single, expected) < max(bound, 1e-7)
    for outcome in (found.one, found.many, found.beside, found.one_single, found.many_single):
        assert np.array_equal(outcome[-40:], x[-40:, :2])


@pytest.mark.parametrize(("form", "activation", "language", "precision", "flags"), CASES)
def test_derivatives_are_those_of_automatic_differentiation(
    form: str, activation: str, language: str, precision: str, flags: str, computed: Callable[..., Found]
) -> None:
    model = make_network(form, activation)
    x = make_droplets(model)
    found, expected = computed(form, activation, language, precision, flags), expected_derivatives(model, x)
    scale = np.abs(expected).max(0)
    assert np.all(np.isfinite(expected))
    size = np.abs(expected) + 1e-6 * scale
    exact = precision == "float64"
    assert np.max(np.abs(found.derivatives - expected) / size) < (1e-8 if exact else 0.05)
    assert np.median(np.abs(found.derivatives - expected)[:-40] / size[:-40]) < (1e-13 if exact else 1e-5)
    assert np.array_equal(found.derivatives[-1], np.eye(2, 7))
    fits = size < np.finfo(np.float32).max
    assert np.max((np.abs(found.derivatives_single - expected) / size)[fits]) < (1e-6 if exact else 0.05)


@pytest.mark.parametrize("language", FLAGS)
@pytest.mark.parametrize("form", ["plain", "residual"])
def test_droplets_out_of_range_are_recognised(form: str, language: str, computed: Callable[..., Found]) -> None:
    found = computed(form, "silu", language, "float64", "-O2")
    model = make_network(form, "silu")
    x = make_droplets(model)
    low, high = np.array(model.spec.ranges).T
    inside = np.all((x >= low * (1 - RANGE_ROUNDING)) & (x <= high * (1 + RANGE_ROUNDING)), 1)
    assert not np.any(inside[:14])
    assert np.all(inside[14:-40])
    assert not np.any(inside[-40:])  # a time of 0 is below the range
    assert np.array_equal(found.in_range, inside)
    assert np.array_equal(found.in_range_single, inside)
    assert np.array_equal(model.in_range(torch.from_numpy(x)).numpy(), inside)


@pytest.mark.parametrize("language", FLAGS)
def test_a_call_with_many_droplets_gives_the_same_bits_on_any_number_of_threads(
    language: str, computed: Callable[..., Found]
) -> None:
    one, four = (computed("residual", "silu", language, "float64", "-fopenmp", threads) for threads in (1, 4))
    serial = computed("residual", "silu", language, "float64", "-O2")
    for name in ("one", "many", "derivatives", "many_single"):
        assert np.array_equal(getattr(one, name), getattr(four, name))
        assert np.array_equal(getattr(one, name), getattr(serial, name))


@pytest.mark.parametrize("language", FLAGS)
@pytest.mark.parametrize("hidden", [(1,), (64, 64, 64), (1100,)], ids=str)
def test_other_widths_compile_without_a_warning(hidden: tuple[int, ...], language: str, tmp_path: Path) -> None:
    path = tmp_path / f"net.{SUFFIX[language]}"
    make = {"fortran": fortran.make_module, "c": c_source.make_source}[language]
    path.write_text(make(make_network("residual", "gelu", hidden), path, {"made": "here"}), "ascii")
    run([*FLAGS[language], "-O0", "-c", path.name], tmp_path)


def test_time_zero_leaves_droplets_exactly_unchanged_in_python() -> None:
    for form, activation in NETWORKS:
        model = make_network(form, activation)
        x = make_droplets(model)
        for dtype in (np.float32, np.float64):
            with torch.no_grad():
                outcome = model(torch.from_numpy(x.astype(dtype)))
            assert torch.equal(outcome[-40:], torch.from_numpy(x.astype(dtype))[-40:, :2])
            assert bool(torch.isfinite(outcome).all())
