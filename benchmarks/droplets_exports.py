"""Compare exported programs with each other: nanoseconds per droplet, scalar and batch, C and Fortran, by flags.

CPU time of one process, the best of several repeats. Errors are those of the radius, relative to the Python kernel at
tolerance 1e-10. A last run counts failures among random droplets of the presets' ranges.
"""

import ctypes
import math
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import harness
import numpy as np
from numpy.typing import NDArray

from scimill import config as configuration
from scimill.config import Layer, read_preset
from scimill.droplets import CAMPAIGN, arguments
from scimill.droplets.exchange import integrator
from scimill.droplets.kernels import lanes, sampling
from scimill.droplets.kernels.physics import saturation_pressure
from scimill.droplets.params import DropletsExactConfig, DropletsGenerateConfig
from scimill.parallel.streams import block_stream

PRESETS = "scimill.droplets/presets"
EXPORTED = ("classic", "ntlp-2026")  # presets of the equations that can be exported
SEED = 20261130
TOLERANCE, REFERENCE = 1e-5, 1e-10
LONGEST = 0.1  # s: the longest step of a cloud model that the goals are about
FLAGS = {"-O2": ("-O2",), "-O3 -march=native": ("-O3", "-march=native")}
SCALAR_GOAL, BATCH_GOAL, ERROR_GOAL = 700.0, 350.0, 1e-5  # ns with -O2, ns with -O3 -march=native, 99th percentile
PART = 2**20  # random droplets per call

Array = NDArray[np.float64]


# ---- droplets ---------------------------------------------------------------------------------------------------


def make_config(name: str, count: int) -> DropletsGenerateConfig:
    """Return a shipped configuration with a number of droplets."""
    layers = [read_preset(PRESETS, name), Layer("benchmark", {"count": count, "seed": SEED})]
    return configuration.build(DropletsGenerateConfig, layers)


def draw_from_ranges(config: DropletsGenerateConfig, count: int, block: int) -> Array:
    """Draw droplets from a preset's ranges, with times uniform up to LONGEST; shape (7, count)."""
    stream = block_stream(SEED, CAMPAIGN.number, block)
    droplets = sampling.inputs(stream.random((count, 6)), arguments.ranges(config)).astype(float)
    return np.vstack([droplets, LONGEST * stream.random(count)])


def draw_les(config: DropletsGenerateConfig, count: int, longest: float) -> Array:
    """Draw droplets as a cloud model meets them, with times uniform up to `longest`; shape (7, count).

    The radius is log-uniform from 0.1 to 100 µm. The salt keeps the droplet in equilibrium with the air of the step
    before, whose humidity is uniform from 0.8 to 1. The air then changes by 0.05 K and 0.003 in humidity (standard
    deviations): air with a correlation time of some seconds changes so much in 0.1 s.
    """
    stream, k = block_stream(SEED, CAMPAIGN.number, 0), arguments.constants(config)
    r, T = 10 ** stream.uniform(-7, -4, count), stream.uniform(273, 303, count)
    humidity, density = stream.uniform(0.8, 1.0, count), stream.uniform(0.9, 1.25, count)
    solute = (k.kelvin / (r * T) - np.log(humidity)) * r**3 / k.raoult
    salinity = solute / arguments.solver_settings(config).solute_per_salinity
    changed = stream.normal(0, 0.05, count), stream.normal(0, 0.003, count)
    return np.stack([r, T, salinity, T + changed[0], humidity + changed[1], density, longest * stream.random(count)])


def solve(config: DropletsGenerateConfig, droplets: Array, tolerance: float) -> tuple[Array, NDArray[np.uint8]]:
    """Return final radius and status of the Python kernel."""
    settings = arguments.solver_settings(config)
    r, T, salinity, Tf, RH, rho, t = np.ascontiguousarray(droplets)
    solute, e = settings.solute_per_salinity * salinity, saturation_pressure(Tf, *settings.saturation)
    radius, _, status = lanes.integrate(
        r, T, solute, Tf, RH, rho, e, t[:, None], settings.constants, tolerance=tolerance, floor=settings.dry_radius
    )
    return radius[:, 0], status[:, 0]


# ---- programs ---------------------------------------------------------------------------------------------------

C_LOOP = """
#define DROPLETS_DECLARATIONS_ONLY
#include "exact.c"
void one_by_one(size_t n, const double *x, double tolerance, double *r, double *T, int *status) {
  for (size_t i = 0; i < n; i++)
    status[i] = advance_droplet(x[i], x[n + i], x[2 * n + i], x[3 * n + i], x[4 * n + i], x[5 * n + i], x[6 * n + i],
                                tolerance, r + i, T + i);
}
void together(size_t n, const double *x, double tolerance, double *r, double *T, int *status) {
  advance_droplets(n, x, x + n, x + 2 * n, x + 3 * n, x + 4 * n, x + 5 * n, x + 6 * n, tolerance, r, T, status);
}
"""
FORTRAN_LOOP = """
subroutine one_by_one(n, x, tolerance, r, t, status) bind(C)
  use, intrinsic :: iso_c_binding
  use exact
  integer(c_size_t), value :: n
  real(c_double), intent(in) :: x(n, 7)
  real(c_double), value :: tolerance
  real(c_double), intent(out) :: r(n), t(n)
  integer(c_int), intent(out) :: status(n)
  integer(c_size_t) :: i
  do i = 1, n
    call advance_droplets(x(i, 1), x(i, 2), x(i, 3), x(i, 4), x(i, 5), x(i, 6), x(i, 7), tolerance, &
                          r(i), t(i), status(i))
  end do
end subroutine one_by_one
subroutine together(n, x, tolerance, r, t, status) bind(C)
  use, intrinsic :: iso_c_binding
  use exact
  integer(c_size_t), value :: n
  real(c_double), intent(in) :: x(n, 7)
  real(c_double), value :: tolerance
  real(c_double), intent(out) :: r(n), t(n)
  integer(c_int), intent(out) :: status(n)
  call advance_droplets(x(:, 1), x(:, 2), x(:, 3), x(:, 4), x(:, 5), x(:, 6), x(:, 7), tolerance, r, t, status)
end subroutine together
"""


class Language(NamedTuple):
    """How to compile an exported program and the loop that calls it into a library."""

    suffix: str
    compiler: str
    standard: str
    loop: str


LANGUAGES = {
    "C": Language(".c", "gcc", "-std=c11", C_LOOP),
    "Fortran": Language(".f90", "gfortran", "-std=f2008", FORTRAN_LOOP),
}

Call = Callable[[Array, float], tuple[Array, NDArray[np.int32]]]


class Program(NamedTuple):
    """An exported program: what it is, and its scalar and its batch call (droplets, tolerance -> radius, status)."""

    title: str
    language: str
    flags: str
    calls: dict[str, Call]


def build_integrator(folder: Path, config: DropletsGenerateConfig, language: str, flags: str) -> Program:
    """Export the exact integrator of a configuration, and compile it."""
    suffix, compiler, standard, loop = LANGUAGES[language]
    used = {name: getattr(config, name) for name in configuration.parameters_of(DropletsExactConfig)}
    exported = configuration.build(DropletsExactConfig, [Layer("benchmark", used)])
    integrator.export(exported, folder / f"exact{suffix}", overwrite=True)
    (folder / f"loop{suffix}").write_text(loop)
    library = folder / f"{language}{flags.replace(' ', '')}{config.salinity_kind}.so"
    sources = [f"exact{suffix}", f"loop{suffix}"]
    command = [compiler, standard, *FLAGS[flags], "-shared", "-fPIC", *sources, "-o", str(library), "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    loaded = ctypes.CDLL(str(library))
    return Program("exact", language, flags, {"scalar": bind(loaded.one_by_one), "batch": bind(loaded.together)})


def bind(function: Any) -> Call:
    """Make a Python function of one in a library."""
    function.restype = None
    function.argtypes = [ctypes.c_size_t, ctypes.c_void_p, ctypes.c_double, *[ctypes.c_void_p] * 3]

    def call(droplets: Array, tolerance: float) -> tuple[Array, NDArray[np.int32]]:
        n = droplets.shape[1]
        radius, temperature, status = np.empty(n), np.empty(n), np.empty(n, np.int32)
        outputs = (values.ctypes.data for values in (radius, temperature, status))
        function(n, droplets.ctypes.data, tolerance, *outputs)
        return radius, status

    return call


# ---- measuring --------------------------------------------------------------------------------------------------


def time_call(call: Call, droplets: Array, repeats: int) -> float:
    """Return nanoseconds per droplet, the best of several repeats."""
    best = math.inf
    for _ in range(repeats):
        started = time.process_time()
        call(droplets, TOLERANCE)
        best = min(best, time.process_time() - started)
    return 1e9 * best / droplets.shape[1]


def measure(program: Program, droplets: Array, exact: Array, repeats: int) -> list[dict[str, Any]]:
    """Measure time and error of the scalar and the batch call on droplets with known final radii."""
    rows = []
    for kind, call in program.calls.items():
        radius, status = call(droplets, TOLERANCE)
        error = np.abs(radius / exact - 1)[status == lanes.DONE]
        rows.append(
            {
                "program": program.title, "language": program.language, "flags": program.flags, "call": kind,
                "nanoseconds": time_call(call, droplets, repeats),
                "p99": float(np.quantile(error, 0.99)), "largest": float(error.max()),
            }
        )  # fmt: skip
    return rows


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print the table of one kind of droplets."""
    heading = ("program", "language", "flags", "call", "ns", "p99 of the error", "largest")
    cells = [
        (row["program"], row["language"], row["flags"], row["call"], f"{row['nanoseconds']:.0f}",
         f"{row['p99']:.1e}", f"{row['largest']:.1e}")
        for row in rows
    ]  # fmt: skip
    print(f"\n{title}\n{harness.format_table([heading, *cells])}")


def count_failures(call: Call, config: DropletsGenerateConfig, count: int) -> dict[str, int]:
    """Count how random droplets end: reached their time, dried, or failed."""
    ends = np.zeros(7, dtype=np.int64)
    for block in range(math.ceil(count / PART)):
        size = min(PART, count - block * PART)
        radius, status = call(draw_from_ranges(config, size, block + 1), TOLERANCE)
        status[~np.isfinite(radius)] = lanes.NOT_FINITE
        ends += np.bincount(status, minlength=7)
    failed = int(ends.sum() - ends[lanes.DONE] - ends[lanes.DRIED])
    return {
        "droplets": int(ends.sum()),
        "done": int(ends[lanes.DONE]),
        "dried": int(ends[lanes.DRIED]),
        "failed": failed,
    }


def make_goals(title: str, rows: list[dict[str, Any]]) -> list[harness.Goal]:
    """Return the goals of the exact integrator for one kind of droplets."""
    goals = []
    for row in rows:
        name = f"{title}: {row['language']}, {row['call']}"
        if (row["call"], row["flags"]) == ("scalar", "-O2"):
            goals.append(harness.Goal(f"{name}, -O2, ns", row["nanoseconds"], most=SCALAR_GOAL))
        if (row["call"], row["flags"]) == ("batch", "-O3 -march=native"):
            goals.append(harness.Goal(f"{name}, -O3 -march=native, ns", row["nanoseconds"], most=BATCH_GOAL))
            goals.append(harness.Goal(f"{name}, p99 of the error", row["p99"], most=ERROR_GOAL))
    return goals


def main() -> int:
    """Measure and print; return 0 if every goal is met."""
    options = harness.parse(
        __doc__,
        harness.Option("droplets", 100_000, 5_000, "droplets to time"),
        harness.Option("random", 10_000_000, 20_000, "random droplets of each preset among which failures are counted"),
        harness.repeats(5),
        needs=("gcc", "gfortran"),
    )
    print(f"{harness.describe_machine()}; CPU time of one process; tolerance {TOLERANCE:g}")
    results: dict[str, Any] = {"times": {}, "random": {}}
    goals: list[harness.Goal] = []
    classic = make_config("classic", options.droplets)
    populations = {
        "LES, dt to 0.01 s": draw_les(classic, options.droplets, 0.01),
        "LES, dt to 0.1 s": draw_les(classic, options.droplets, LONGEST),
        "ranges of classic, dt to 0.1 s": draw_from_ranges(classic, options.droplets, 0),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs = [build_integrator(folder, classic, language, flags) for language in LANGUAGES for flags in FLAGS]
        for title, droplets in populations.items():
            exact, _ = solve(classic, droplets, REFERENCE)
            rows = [row for program in programs for row in measure(program, droplets, exact, options.repeats)]
            show(title, rows)
            results["times"][title] = rows
            goals += make_goals(title, rows)
        for preset in EXPORTED:
            config = make_config(preset, options.random)
            program = build_integrator(folder, config, "C", "-O3 -march=native")
            found = results["random"][preset] = count_failures(program.calls["batch"], config, options.random)
            print(f"\n{preset}: " + ", ".join(f"{value:,} {key}" for key, value in found.items()))
            goals.append(
                harness.Goal(f"{preset}: failed of {found['droplets']:,} random droplets", found["failed"], most=0)
            )
    return harness.conclude(goals, results, options.json)


if __name__ == "__main__":
    raise SystemExit(main())
