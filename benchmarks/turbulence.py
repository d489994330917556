"""Compare an RK4 step with hw2d's, schemes by CPU time at equal error, and one rank with two.

CPU time of one process with one thread, the best of several repeats, all in the same run. The benchmark also times
writing snapshots. Two ranks are compared by wall-clock time, which means nothing unless two cores are free.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import harness
import numpy as np
from numpy.typing import NDArray

from scimill.config import Layer, build, read_preset
from scimill.parallel.world import World, world
from scimill.store.output import Output
from scimill.store.writer import Writer
from scimill.turbulence import simulate
from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.solver import FlowSolver
from scimill.turbulence.params import SimulateConfig

SIMLINT = FlowPhysics(1.0, 2.0, 0.005, 0.005, modified=True, box=25.6)
OURS = (("spectral", "float64"), ("spectral", "float32"), ("arakawa", "float64"), ("arakawa", "float32"))
REPEATS = 5
COURANT = {"spectral": 1.1, "arakawa": 2.3}
"""Courant number of each scheme near its limit of stability, for the longest steps that it can take."""
COMPARED = 42  # highest mode in which errors are measured
CANDIDATES = (192, 216, 240, 256)
"""Grids of the spectral scheme; the smallest one as accurate as Arakawa's 1024² is compared with it."""

Grid = NDArray[np.float64]


def cpu_ms(function: Callable[[], Any], least: float = 0.15) -> float:
    """Return the CPU milliseconds of a call, the best of several repeats of enough calls."""
    function()
    started = time.process_time()
    function()
    calls = max(1, round(least / max(time.process_time() - started, 1e-6)))
    best = float("inf")
    for _ in range(REPEATS):
        started = time.process_time()
        for _ in range(calls):
            function()
        best = min(best, (time.process_time() - started) / calls)
    return 1e3 * best


def smooth_state(points: int) -> tuple[Grid, Grid]:
    """Return density and vorticity of a smooth state of order one."""
    k = 2 * np.pi * np.arange(points) / points
    n = np.sin(k[:, None] + 2 * k) + 0.5 * np.cos(3 * k[:, None] - k)
    return n, np.cos(2 * k[:, None] + k) - 0.3 * np.sin(5 * k + k[:, None])


# ---- steps ------------------------------------------------------------------------------------------------------


def hw2d_step(points: int) -> float:
    """Return the CPU milliseconds of a step of hw2d, without its test of conservation."""
    from hw2d.model import HW
    from hw2d.utils.namespaces import Namespace

    dx = SIMLINT.box / points
    model = HW(dx=dx, N=1, c1=1.0, nu=0.005, k0=SIMLINT.wave_number(1), TEST_CONSERVATION=False)
    density, omega = smooth_state(points)
    plasma = Namespace(density=density, omega=omega, phi=model.get_phi(omega=omega, dx=dx), age=0)
    return cpu_ms(lambda: model.rk4_step(plasma, dt=1e-5, dx=dx))


def our_step(points: int, scheme: Any, precision: Any) -> float:
    """Return the CPU milliseconds of a step of scimill."""
    solver = FlowSolver(SIMLINT, points, scheme, precision)
    solver.load(*smooth_state(points))
    return cpu_ms(lambda: solver.step(1e-5))


def compare_steps(sizes: list[int]) -> tuple[dict[str, dict[int, float]], list[harness.Goal]]:
    """Print the table of steps; return it and the goals for 1024²."""
    table = {"hw2d 1.0.4": {points: hw2d_step(points) for points in sizes}}
    for scheme, precision in OURS:
        table[f"{scheme} {precision}"] = {points: our_step(points, scheme, precision) for points in sizes}
    print("\nCPU ms per RK4 step" + " " * 3 + "".join(f"{points:>9}²" for points in sizes) + "   times hw2d's speed")
    hw2d = table["hw2d 1.0.4"]
    for name, row in table.items():
        ratios = "  ".join(f"{hw2d[points] / row[points]:.1f}" for points in sizes)
        print(f"{name:<22}" + "".join(f"{row[points]:>10.2f}" for points in sizes) + f"   {ratios}")
    if 1024 not in sizes:
        return table, []
    wanted = {"spectral float64": 2.5, "arakawa float64": 5.4}
    return table, [
        harness.Goal(f"1024², {name}: times hw2d's speed", hw2d[1024] / table[name][1024], least=least)
        for name, least in wanted.items()
    ]


# ---- equal error ------------------------------------------------------------------------------------------------


def resample(field: Grid, points: int) -> Grid:
    """Return the same modes on another grid, as far as it can hold them."""
    old = field.shape[0]
    keep = min(old, points) // 2 - 1
    source, target = np.fft.rfft2(field), np.zeros((points, points // 2 + 1), complex)
    target[: keep + 1, : keep + 1] = source[: keep + 1, : keep + 1]
    target[-keep:, : keep + 1] = source[-keep:, : keep + 1]
    made: Grid = np.fft.irfft2(target) * (points / old) ** 2
    return made


def turbulent_state(points: int) -> tuple[Grid, Grid]:
    """Make a saturated state with SiMLInt's parameters: grown at 128², its small scales at `points`."""
    noise = build(SimulateConfig, [Layer("noise", {"snapshots": 1, "points": 128, "amplitude": 1.0, "box": 25.6})])
    from scimill.turbulence.exchange.states import initial

    state = initial(noise, 0, slice(0, 128))[:2]
    for size, duration in ((128, 60.0), (points, 4.0)):
        solver = FlowSolver(SIMLINT, size, courant=1.0)
        solver.load(*(resample(field, size) for field in state))
        solver.advance(duration)
        state = solver.fields()
    return state


def run_to_one(state: tuple[Grid, Grid], points: int, scheme: Any, courant: float) -> tuple[Grid, float]:
    """Return the vorticity at t = 1 in the compared modes, and the CPU seconds to reach it."""
    solver = FlowSolver(SIMLINT, points, scheme, courant=courant)
    solver.load(*(resample(field, points) for field in state))
    solver.step(1e-9)  # compiles before the clock starts
    started = time.process_time()
    solver.advance(1.0)
    seconds = time.process_time() - started
    return resample(solver.fields()[1], 2 * COMPARED + 2), seconds


def compare_at_equal_error() -> tuple[dict[str, Any], list[harness.Goal]]:
    """Compare the second-order scheme at 1024² with the smallest spectral grid that is as accurate."""
    state = turbulent_state(256)
    truth, _ = run_to_one(state, 512, "spectral", 0.6)
    rows: dict[str, Any] = {}

    def measure(points: int, scheme: str, courant: float) -> tuple[float, float]:
        vorticity, seconds = run_to_one(state, points, scheme, courant)
        error = float(np.linalg.norm(vorticity - truth) / np.linalg.norm(truth))
        rows[f"{scheme} {points}²"] = {"error": error, "seconds": seconds}
        print(f"{scheme:>9} {points:>5}²   error {error:.4f}   {seconds:7.2f} CPU s to t = 1")
        return error, seconds

    print(f"\nError of the vorticity at t = 1 in modes up to {COMPARED}, relative to 512² spectral")
    limit, slow = measure(1024, "arakawa", COURANT["arakawa"])
    for points in CANDIDATES:
        error, fast = measure(points, "spectral", COURANT["spectral"])
        if error <= limit:
            break
    return rows, [
        harness.Goal("spectral at equal error: times the speed of second order at 1024²", slow / fast, least=20)
    ]


# ---- writing, ranks ---------------------------------------------------------------------------------------------


def time_writing() -> list[harness.Goal]:
    """Measure the share of a run at 1024² spent on writing snapshots at the original's interval."""
    spent = {"write": 0.0, "run": 0.0}

    def timed(owner: Any, name: str, key: str) -> None:
        function = getattr(owner, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            result = function(*args, **kwargs)
            spent[key] += time.process_time() - started
            return result

        setattr(owner, name, wrapper)

    timed(Writer, "write_shared", "write")
    timed(simulate.TeamRun, "make", "run")
    layers = [read_preset("scimill.turbulence/presets", "simlint"), Layer("flags", {"snapshots": 4, "amplitude": 1.5})]
    with tempfile.TemporaryDirectory() as folder:
        simulate.simulate(build(SimulateConfig, layers), Output(Path(folder) / "a.h5"), World(None))
    return [
        harness.Goal("1024², snapshots every 0.026: writing, % of the run", 100 * spent["write"] / spent["run"], most=3)
    ]


def time_ranks(_: str) -> None:
    """Print the wall-clock milliseconds of a step on the ranks of this job."""
    team = world()
    solver = FlowSolver(SIMLINT, 1024, team=team)
    solver.load(*(field[slice(*solver.rows)] for field in smooth_state(1024)))
    best = float("inf")
    for _ in range(6):
        team.barrier()
        started = time.monotonic()
        for _ in range(3):
            solver.step(1e-5)
        team.barrier()
        best = min(best, (time.monotonic() - started) / 3)
    if team.is_root:
        print(1e3 * best)


def compare_ranks() -> list[harness.Goal]:
    """Compare one rank with two by wall-clock time."""
    one, two = (float(harness.run_part("step", ranks=count).split()[-1]) for count in (1, 2))
    print(
        f"\n1024² spectral, wall-clock ms per step: 1 rank {one:.1f}, 2 ranks {two:.1f}; load {os.getloadavg()[0]:.1f}"
    )
    return [harness.Goal("1024² on two ranks: times the speed of one, wall-clock", one / two, least=1.6)]


def main() -> int:
    given = harness.parse(
        __doc__,
        harness.Option("points", [256, 512, 1024], [128, 1024], "grid points along each axis"),
        harness.Option("skip-error", False, True, "do not compare CPU time at equal error"),
        harness.Option("skip-ranks", False, False, "do not compare one rank with two"),
        needs=("hw2d", "mpirun"),
        part=time_ranks,
    )
    print(f"{harness.describe_machine()}; load {os.getloadavg()[0]:.1f}")
    table, goals = compare_steps(given.points)
    errors: dict[str, Any] = {}
    if not given.skip_error:
        errors, more = compare_at_equal_error()
        goals += more
    goals += time_writing()
    if not given.skip_ranks:
        goals += compare_ranks()
    return harness.conclude(goals, {"steps": table, "equal_error": errors}, given.json)


if __name__ == "__main__":
    sys.exit(main())
