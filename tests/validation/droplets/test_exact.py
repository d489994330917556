"""The exported exact integrator, compiled outside scimill, agrees with the Python kernel.

Both integrate the droplets of both presets at the tolerance of training data. Rounding differs between compilers, and
one droplet in a hundred magnifies it: mostly small droplets of concentrated salt, which grow a hundredfold. There the
difference may be as large as a small multiple of what changes in the kernel's result if an input moves by 2e-14, the
accuracy of the kernel's exponential. In one droplet of ten thousand rounding also moves the step sizes; its difference
stays below the error of the kernel.
"""

import ctypes
import re
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from needs import require
from scimill import config as configuration
from scimill.config import Layer, build
from scimill.droplets import arguments
from scimill.droplets.exchange import integrator
from scimill.droplets.kernels import lanes
from scimill.droplets.kernels.physics import saturation_pressure
from scimill.droplets.params import DropletsExactConfig, DropletsGenerateConfig

DROPLETS = 10_000
EXACT = 1e-12
MOVED, ROUNDING = 2e-14, 10  # relative change of an input; multiple of the largest change that it causes
STRICT = {
    ".c": ("gcc", "-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror"),
    ".f90": ("gfortran", "-std=f2008", "-Wall", "-Wextra", "-pedantic", "-Werror"),
}
OPTIMIZED = {"-O2": ("-O2",), "-O3": ("-O3", "-march=native"), "-fopenmp": ("-O2", "-fopenmp")}
LOOP = {
    ".c": """
#define DROPLETS_DECLARATIONS_ONLY
#include "exact.c"
void one_by_one(size_t n, const double *x, double tolerance, double *r, double *T, int *status);
void together(size_t n, const double *x, double tolerance, double *r, double *T, int *status);
void one_by_one(size_t n, const double *x, double tolerance, double *r, double *T, int *status) {
  for (size_t i = 0; i < n; i++)
    status[i] = advance_droplet(x[i], x[n + i], x[2 * n + i], x[3 * n + i], x[4 * n + i], x[5 * n + i], x[6 * n + i],
                                tolerance, r + i, T + i);
}
void together(size_t n, const double *x, double tolerance, double *r, double *T, int *status) {
  advance_droplets(n, x, x + n, x + 2 * n, x + 3 * n, x + 4 * n, x + 5 * n, x + 6 * n, tolerance, r, T, status);
}
""",
    ".f90": """
module loops
  use, intrinsic :: iso_c_binding, only: c_double, c_int, c_size_t
  use {module}
  implicit none
contains
  subroutine one_by_one(n, x, tolerance, r, t, status) bind(C)
    integer(c_size_t), value :: n
    real(c_double), intent(in) :: x(n, 7)
    real(c_double), value :: tolerance
    real(c_double), intent(out) :: r(n), t(n)
    integer(c_int), intent(out) :: status(n)
    integer(c_size_t) :: i
    do i = 1, n
      {scalar}
    end do
  end subroutine one_by_one
  subroutine together(n, x, tolerance, r, t, status) bind(C)
    integer(c_size_t), value :: n
    real(c_double), intent(in) :: x(n, 7)
    real(c_double), value :: tolerance
    real(c_double), intent(out) :: r(n), t(n)
    integer(c_int), intent(out) :: status(n)
    call advance_droplets({n}x(:, 1), x(:, 2), x(:, 3), x(:, 4), x(:, 5), x(:, 6), x(:, 7), tolerance, r, t, status)
  end subroutine together
end module loops
""",
}
INPUTS = "x(i, 1), x(i, 2), x(i, 3), x(i, 4), x(i, 5), x(i, 6), x(i, 7), tolerance, r(i), t(i)"
BY_FORTRAN = {"module": "exact", "scalar": f"call advance_droplets({INPUTS}, status(i))", "n": ""}
BY_BINDING = {"module": "droplets_c", "scalar": f"status(i) = advance_droplet({INPUTS})", "n": "n, "}


class Result(NamedTuple):
    radius: np.ndarray
    temperature: np.ndarray
    status: np.ndarray


Call = Callable[[np.ndarray, float], Result]


class Program(NamedTuple):
    """The scalar call in a loop, and the batch call, of a compiled integrator."""

    scalar: Call
    batch: Call


def bind(function: Any) -> Call:
    function.restype = None
    function.argtypes = [ctypes.c_size_t, ctypes.c_void_p, ctypes.c_double, *[ctypes.c_void_p] * 3]

    def call(droplets: np.ndarray, tolerance: float = 1e-8) -> Result:
        x, n = np.ascontiguousarray(droplets, dtype=float), droplets.shape[1]
        result = Result(np.empty(n), np.empty(n), np.empty(n, np.int32))
        function(n, x.ctypes.data, tolerance, *(values.ctypes.data for values in result))
        return result

    return call


def run(*command: str | Path, folder: Path) -> None:
    done = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def compiled(folder: Path, suffix: str, flags: tuple[str, ...], **constants: Any) -> Program:
    """Export, compile with all warnings as errors, and load."""
    require("gfortran")
    integrator.export(
        build(DropletsExactConfig, [Layer("test", constants)]), folder / f"exact{suffix}", overwrite=False
    )
    loop = LOOP[".c"] if suffix == ".c" else LOOP[".f90"].format(**BY_FORTRAN)
    (folder / f"loop{suffix}").write_text(loop)
    sources = (f"exact{suffix}", f"loop{suffix}")
    run(*STRICT[suffix], *flags, "-shared", "-fPIC", *sources, "-o", "exact.so", "-lm", folder=folder)
    return load(folder / "exact.so")


def load(path: Path) -> Program:
    library = ctypes.CDLL(str(path))
    return Program(bind(library.one_by_one), bind(library.together))


def of_config(config: DropletsGenerateConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in configuration.parameters_of(DropletsExactConfig)}


def kernel(config: DropletsGenerateConfig, droplets: np.ndarray, tolerance: float = 1e-8) -> Result:
    """Integrate by the Python kernel."""
    settings = arguments.solver_settings(config)
    r, T, salinity, Tf, RH, rho, t = np.ascontiguousarray(droplets)
    with np.errstate(all="ignore"):
        e = saturation_pressure(Tf, *settings.saturation)
    solved = lanes.integrate(
        r, T, settings.solute_per_salinity * salinity, Tf, RH, rho, e, t[:, None], settings.constants,
        tolerance=tolerance, floor=settings.dry_radius,
    )  # fmt: skip
    return Result(*(values[:, 0] for values in solved))


def difference(found: Result, expected: Result) -> np.ndarray:
    """Return the larger relative difference of radius and temperature of each droplet."""
    pairs = (found.radius, expected.radius), (found.temperature, expected.temperature)
    with np.errstate(invalid="ignore"):
        return np.max([np.abs(ours / theirs - 1) for ours, theirs in pairs], axis=0)


def sensitivity(config: DropletsGenerateConfig, droplets: np.ndarray, expected: Result) -> np.ndarray:
    """Return how much the kernel's result changes if an input moves."""
    changes = []
    for column, by in ((c, d) for c in range(5) for d in (-MOVED, MOVED)):
        moved = droplets.copy()
        moved[column] *= 1 + by
        changes.append(difference(kernel(config, moved), expected))
    return np.max(changes, axis=0)


class Sample(NamedTuple):
    config: DropletsGenerateConfig
    droplets: np.ndarray
    expected: Result
    allowed: np.ndarray
    """largest difference that rounding explains"""
    error: np.ndarray
    """difference of `expected` from the kernel at tolerance 1e-11"""


@pytest.fixture(params=["classic", "ntlp-2026"], scope="module")
def sample(request: pytest.FixtureRequest, configure: Any, draw: Any) -> Sample:
    """Return a preset, droplets as training data have them, and what the kernel makes of them."""
    config = configure(request.param, seed=19)
    droplets, times = draw(config, DROPLETS)
    columns = np.vstack([droplets, times.T]).astype(float)
    expected = kernel(config, columns)
    error = difference(expected, kernel(config, columns, 1e-11))
    return Sample(config, columns, expected, EXACT + ROUNDING * sensitivity(config, columns, expected), error)


@pytest.mark.parametrize("flags", OPTIMIZED)
@pytest.mark.parametrize("suffix", STRICT)
def test_radius_temperature_and_status_are_those_of_the_kernel(
    suffix: str, flags: str, sample: Sample, tmp_path: Path
) -> None:
    for call in compiled(tmp_path, suffix, OPTIMIZED[flags], **of_config(sample.config)):
        found = call(sample.droplets)
        apart = difference(found, sample.expected)
        np.testing.assert_array_equal(found.status, sample.expected.status)
        assert np.count_nonzero(apart > EXACT) < 0.03 * DROPLETS
        beyond = apart > sample.allowed
        assert np.count_nonzero(beyond) <= 5e-4 * DROPLETS
        assert np.all(apart[beyond] < sample.error[beyond])
        assert np.median(apart) < 5e-15


@pytest.mark.parametrize("suffix", STRICT)
def test_the_error_at_a_loose_tolerance(suffix: str, sample: Sample, tmp_path: Path) -> None:
    config, droplets = sample.config, np.vstack([sample.droplets[:-1], np.linspace(0, 0.1, DROPLETS)])
    expected = kernel(config, droplets, 1e-10)
    for call in compiled(tmp_path, suffix, ("-O2",), **of_config(config)):
        found = call(droplets, 1e-5)
        np.testing.assert_array_equal(found.status, expected.status)
        assert np.quantile(np.abs(found.radius / expected.radius - 1), 0.99) < 1e-5


@pytest.fixture(params=STRICT, scope="module")
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """The program of the default configuration, in either language."""
    return compiled(tmp_path_factory.mktemp("exact"), request.param, ("-O3", "-march=native"))


GROWING = (1e-6, 290.0, 1e-18, 290.0, 1.02, 1.0, 0.1)
DRYING = (1e-6, 290.0, 0.0, 290.0, 0.8, 1.0, 100.0)


def both(program: Program, droplets: Any, tolerance: float = 1e-8) -> list[Result]:
    columns = np.array(droplets, dtype=float).reshape(-1, 7).T
    return [call(columns, tolerance) for call in program]


@pytest.mark.parametrize(
    ("column", "value"),
    [(c, v) for c in range(7) for v in (np.nan, np.inf, -np.inf, -1.0, *([0.0] if c in (0, 1, 3, 5) else []))],
)
def test_unphysical_inputs_are_invalid_and_leave_neighbours_alone(column: int, value: float, program: Program) -> None:
    wrong = list(GROWING)
    wrong[column] = value
    for alone, found in zip(both(program, GROWING), both(program, [GROWING, wrong, GROWING]), strict=True):
        assert found.status.tolist() == [lanes.DONE, lanes.INVALID, lanes.DONE]
        assert np.isnan([found.radius[1], found.temperature[1]]).all()
        assert found.radius[0] == found.radius[2] == alone.radius[0]


def test_a_droplet_of_pure_water_dries_and_time_zero_changes_nothing(program: Program) -> None:
    for found in both(program, [DRYING, (*GROWING[:6], 0.0)]):
        assert found.status.tolist() == [lanes.DRIED, lanes.DONE]
        assert 0 <= found.radius[0] <= 1e-9
        assert (found.radius[1], found.temperature[1]) == GROWING[:2]


@pytest.mark.parametrize("suffix", STRICT)
def test_limits_of_the_configuration(suffix: str, tmp_path: Path) -> None:
    few = compiled(tmp_path, suffix, ("-O2",), max_steps=10)
    for found in both(few, [GROWING, (*GROWING[:6], 1e-9)]):
        assert found.status.tolist() == [lanes.TOO_MANY_STEPS, lanes.DONE]
    (tmp_path / "large").mkdir()
    for found in both(compiled(tmp_path / "large", suffix, ("-O2",), dry_radius=9e-7), DRYING):
        assert found.status.tolist() == [lanes.DRIED]
        assert 5e-7 < found.radius[0] <= 9e-7


@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 4096, 4097])
def test_batches_of_any_size_equal_single_droplets(n: int, program: Program) -> None:
    droplets = np.tile(np.array(GROWING), (n, 1)).T
    droplets[0] *= np.linspace(0.5, 2, n)
    scalar, batch = program.scalar(droplets, 1e-5), program.batch(droplets, 1e-5)
    np.testing.assert_allclose(batch.radius, scalar.radius, rtol=1e-10)
    np.testing.assert_array_equal(batch.status, scalar.status)


def test_threads_of_the_caller_do_not_disturb_each_other(program: Program) -> None:
    droplets = np.tile(np.array(GROWING), (2000, 1)).T
    droplets[0] *= np.linspace(0.5, 2, 2000)
    expected = [call(droplets, 1e-8).radius for call in program]
    with ThreadPoolExecutor(4) as pool:
        for call, radius in zip(program, expected, strict=True):
            for result in pool.map(lambda _, call=call: call(droplets, 1e-8), range(8)):
                np.testing.assert_array_equal(result.radius, radius)


@pytest.mark.parametrize("flags", [("-O2",), ("-O2", "-fopenmp")])
def test_fortran_calls_the_c_integrator_by_the_module_in_its_comment(flags: tuple[str, ...], tmp_path: Path) -> None:
    require("gfortran")
    integrator.export(build(DropletsExactConfig, []), tmp_path / "exact.c", overwrite=False)
    found = re.search(r" \* (module droplets_c\n.*?end module droplets_c)\n", (tmp_path / "exact.c").read_text(), re.S)
    assert found
    (tmp_path / "binding.f90").write_text(re.sub(r"^ \* ?", "", found[1], flags=re.M))
    (tmp_path / "loop.f90").write_text(LOOP[".f90"].format(**BY_BINDING))
    run(*STRICT[".c"], *flags, "-fPIC", "-c", "exact.c", folder=tmp_path)
    sources = ("binding.f90", "loop.f90", "exact.o")
    run(*STRICT[".f90"], *flags, "-shared", "-fPIC", *sources, "-o", "exact.so", "-lm", folder=tmp_path)
    for result in both(load(tmp_path / "exact.so"), [GROWING, DRYING]):
        assert result.status.tolist() == [lanes.DONE, lanes.DRIED]
        assert result.radius[0] > 1e-6
