"""Compare exported networks in Fortran and C with a plain Fortran loop of the same network, in ns per droplet.

The network has the default form, random weights and the widths of a preset. Each source is compiled with plain -O2 and
with -O3 -march=native, and called by a Fortran program with one droplet at a time and with all droplets at once, on one
thread. The baseline is what one writes by hand: the same features, then for each neuron a sum over its inputs and the
library's exp, one droplet after the other. A time is the least CPU time of some repetitions.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness
import numpy as np
import torch

from scimill.config import Layer, build, read_preset
from scimill.droplets.learning import c_source, fortran
from scimill.droplets.learning.formulas import FORMS, FORTRAN
from scimill.droplets.learning.network import DropletNetwork, predict, weights
from scimill.droplets.learning.sources import common_values, formulas
from scimill.droplets.learning.train import make_spec
from scimill.droplets.params import DropletsGenerateConfig, DropletsTrainConfig

SEED = 20261130
FLAGS = {"-O2": ("-O2",), "-O3 -march=native": ("-O3", "-march=native")}
PRECISIONS = ("float64", "float32")
PLAIN, ONE, MANY, DERIVATIVES = "plain loop, one", "one", "many", "one with derivatives"
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}  # largest relative difference from the Python model that is accepted

# ---- sources ----------------------------------------------------------------------------------------------------

BASELINE = """module plain
  use, intrinsic :: iso_fortran_env, only: wp => real64, real32, real64
  implicit none
  integer, parameter :: nk = {kind}, layers = {layers}, widest = {widest}, widths(0:layers) = {widths}
  real(nk) :: weight(widest, widest, layers), bias(widest, layers)  ! weight(input, output, layer)
  real(wp), parameter :: centre({features}) = {centre}
  real(wp), parameter :: scale({features}) = {scale}
{constants}
contains
  subroutine predict_plain(x, y)
    real(wp), intent(in) :: x(7)
    real(wp), intent(out) :: y(2)
    real(wp) :: f({features}), b(2), g(2), {names}
    real(nk) :: a(widest), z(widest), total
    integer :: i, j, layer

    associate (radius => x(1), temperature => x(2), salinity => x(3), air_temperature => x(4), &
               relative_humidity => x(5), air_density => x(6), time => x(7))
{steps}
    end associate
    a(:{features}) = real((f - centre) * scale, nk)
    do layer = 1, layers
      do j = 1, widths(layer)
        total = bias(j, layer)
        do i = 1, widths(layer - 1)
          total = total + weight(i, j, layer) * a(i)
        end do
        z(j) = total
        if (layer < layers) z(j) = total / (1 + exp(-total))
      end do
      a(:widths(layer)) = z(:widths(layer))
    end do
    y = [b(1) * exp({units[0]}_wp * g(1) * a(1)), b(2) + {units[1]}_wp * g(2) * a(2)]
  end subroutine predict_plain

  elemental real(wp) function arsinh(x)
    real(wp), intent(in) :: x
    arsinh = sign(log(abs(x) + sqrt(x**2 + 1)), x)
  end function arsinh
end module plain
"""

DRIVER = """program main
  use, intrinsic :: iso_c_binding, only: c_bool, c_double, c_float, c_size_t
  use plain
  use net_fortran
  implicit none
{interface}
  integer, parameter :: n = {n}, repeats = {repeats}
  integer(c_size_t), parameter :: count = n
  real(c_double) :: x(n, 7), t(7, n), y(n, 2), d(7, 2)
  real :: first, last
  integer :: unit, i, k

  open (newunit=unit, file="x.bin", access="stream", form="unformatted", status="old")
  read (unit) x, weight, bias
  close (unit)
  t = transpose(x)
  open (newunit=unit, file="y.bin", access="stream", form="unformatted", status="replace")
{timings}
end program main
"""

TIMING = """
  do i = 1, repeats
    call cpu_time(first)
{body}
    call cpu_time(last)
    print *, "{name}", (last - first) / n * 1e9
  end do
  write (unit) y
"""
LOOP = """    do k = 1, n
      {call}
    end do"""
EACH = "t(1, k), t(2, k), t(3, k), t(4, k), t(5, k), t(6, k), t(7, k), y(k, 1), y(k, 2)"
ALL = "x(:, 1), x(:, 2), x(:, 3), x(:, 4), x(:, 5), x(:, 6), x(:, 7), y(:, 1), y(:, 2)"
CALLS = {
    PLAIN: LOOP.format(call="call predict_plain(t(:, k), d(1:2, 1)); y(k, :) = d(1:2, 1)"),
    f"Fortran, {ONE}": LOOP.format(call=f"call predict_droplets({EACH})"),
    f"Fortran, {MANY}": f"    call predict_droplets({ALL})",
    f"Fortran, {DERIVATIVES}": LOOP.format(call=f"call predict_droplets_derivatives({EACH}, d)"),
    f"C, {ONE}": LOOP.format(call=f"call net_c_predict({EACH})"),
    f"C, {MANY}": f"    call net_c_predict_many(count, {ALL})",
    f"C, {DERIVATIVES}": LOOP.format(call=f"call net_c_derivatives({EACH}, d)"),
}


def make_network(preset: str) -> DropletNetwork:
    """Make a network with random weights for the default ranges."""
    torch.manual_seed(SEED)
    config = build(DropletsTrainConfig, [read_preset("scimill.droplets/presets/train", preset)])
    data = build(DropletsGenerateConfig, [Layer("benchmark", {"count": 1})])
    return DropletNetwork(make_spec(config, data)).double().eval()


def draw_droplets(model: DropletNetwork, n: int) -> np.ndarray:
    """Draw droplets from the ranges, those of more than half a decade log-uniformly, (n, 7)."""
    low, high = np.array(model.spec.ranges).T
    x = np.random.default_rng(SEED).uniform(size=(n, len(low)))
    return np.asarray(np.where(high / low > 5, low * (high / low) ** x, low + (high - low) * x))


def write_baseline(model: DropletNetwork, path: Path) -> None:
    """Write the plain loop; its weights are read from a file."""
    values = common_values(model, {})
    text = formulas(FORMS[model.spec.network], FORTRAN, "{}({})", 1)
    widths = [len(values["centre"]), *model.spec.hidden, 2]
    steps = [f"{name} = {expression}" for name, expression in (*text["steps"], *text["results"]("%s"))]
    listed = {key: f"[{', '.join(f'{value!r}_wp' for value in values[key])}]" for key in ("centre", "scale")}
    constants = "\n".join(f"  real(wp), parameter :: {name} = {value!r}_wp" for name, value in values["constants"])
    path.write_text(BASELINE.format(
        kind="real32" if values["single"] else "real64", layers=len(widths) - 1, widest=max(widths), widths=widths,
        features=widths[0], names=text["names"](text["steps"]), steps="\n".join(steps), constants=constants,
        units=values["units"], **listed,
    ))  # fmt: skip


def write_data(model: DropletNetwork, x: np.ndarray, path: Path) -> None:
    """Write droplets, and the weights for the plain loop."""
    layers = weights(model)
    widest = max(max(weight.shape) for weight, _ in layers)
    table = np.zeros((len(layers), widest, widest), layers[0][0].dtype)
    bias = np.zeros((len(layers), widest), table.dtype)
    for place, (weight, offset) in enumerate(layers):
        table[place, : weight.shape[0], : weight.shape[1]], bias[place, : len(offset)] = weight, offset
    path.write_bytes(x.T.tobytes() + table.tobytes() + bias.tobytes())


def write_sources(model: DropletNetwork, x: np.ndarray, repeats: int, folder: Path) -> None:
    """Write the exports, the baseline, the program that calls them, and its data."""
    exports = {"net_fortran.f90": fortran.make_module, "net_c.c": c_source.make_source}
    for name, make in exports.items():
        (folder / name).write_text(make(model, folder / name, {"made": "for a benchmark"}))
    write_baseline(model, folder / "plain.f90")
    comment = [line.removeprefix(" *") for line in (folder / "net_c.c").read_text().splitlines()]
    stripped = [line.strip() for line in comment]
    interface = "\n".join(comment[stripped.index("interface") : stripped.index("end interface") + 1])
    timings = "".join(TIMING.format(name=name, body=body) for name, body in CALLS.items())
    program = DRIVER.format(n=len(x), repeats=repeats, timings=timings, interface=interface)
    (folder / "main.f90").write_text(program)
    write_data(model, x, folder / "x.bin")


# ---- measurement ------------------------------------------------------------------------------------------------


def time_calls(model: DropletNetwork, x: np.ndarray, repeats: int, flags: tuple[str, ...]) -> dict[str, float]:
    """Return ns per droplet of each way to call; exit if a result differs from that of the Python model."""
    precision = str(next(model.parameters()).dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_sources(model, x, repeats, folder)
        for command in (
            ["gcc", "-std=c11", *flags, "-c", "net_c.c"],
            ["gfortran", "-ffree-line-length-none", *flags, "plain.f90", "net_fortran.f90", "main.f90", "net_c.o",
             "-lm", "-o", "main"],
        ):  # fmt: skip
            subprocess.run(command, cwd=folder, check=True)
        text = subprocess.run("./main", cwd=folder, check=True, capture_output=True, text=True).stdout
        outcomes = np.fromfile(folder / "y.bin").reshape(len(CALLS), 2, len(x))
    expected = predict(model.double(), x).T
    for call, outcome in zip(CALLS, outcomes, strict=True):
        if not np.max(np.abs(outcome / expected - 1)) < TOLERANCE[precision]:
            raise SystemExit(f"{call}, {precision}: the results differ from those of the Python model")
    times: dict[str, list[float]] = {call: [] for call in CALLS}
    for line in text.splitlines():
        call, _, nanoseconds = line.strip().rpartition(" ")
        times[call.strip()].append(float(nanoseconds))
    return {call: min(values) for call, values in times.items()}


def measure(preset: str, n: int, repeats: int) -> tuple[list[harness.Goal], dict[str, Any]]:
    """Measure and print everything; return the goals and all numbers."""
    times = {
        f"{precision}, {name}": time_calls(model.to(getattr(torch, precision)), x, repeats, flags)
        for precision in PRECISIONS
        for name, flags in FLAGS.items()
        for model in [make_network(preset)]
        for x in [draw_droplets(model, n)]
    }
    rows = [("ns per droplet", *times), *((call, *(f"{part[call]:,.0f}" for part in times.values())) for call in CALLS)]
    print(harness.format_table(rows))
    plain, native = times["float64, -O2"], times["float64, -O3 -march=native"]
    goals = [
        *(harness.Goal(f"{language}, one, float64, -O2: ns", plain[f"{language}, {ONE}"], most=700)
          for language in ("Fortran", "C")),
        *(harness.Goal(f"{language}, {way}, float64, {name}: times as fast as the plain loop",
                       part[PLAIN] / part[f"{language}, {way}"], least=1.0)
          for name, part in (("-O2", plain), ("-O3 -march=native", native))
          for language in ("Fortran", "C") for way in (ONE, MANY)),
    ]  # fmt: skip
    return goals, {"nanoseconds_per_droplet": times}


def main() -> int:
    """Measure and compare."""
    options = harness.parse(
        __doc__,
        harness.Option("preset", "small", "small", "training preset that gives the widths of the network"),
        harness.Option("droplets", 8192, 1024, "droplets per repetition"),
        harness.repeats(40),
        needs=("gfortran", "gcc"),
    )
    torch.set_num_threads(1)
    print(f"{harness.describe_machine()}; preset {options.preset}\n")
    goals, results = measure(options.preset, options.droplets, options.repeats)
    return harness.conclude(goals, results, options.json)


if __name__ == "__main__":
    sys.exit(main())
