"""The solver compared with analysis: dispersion, invariants, budgets, orders of convergence."""

import math

import numpy as np
import pytest

from scimill.turbulence.kernels import equations
from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.solver import DivergenceError, FlowSolver, potential
from scimill.turbulence.kernels.stepping import StepControl

SIMLINT = FlowPhysics(1.0, 2.0, 0.005, 0.005, modified=True, box=25.6)
TABLE = {
    # Growth rate and frequency of the modes (kx 0, ky m): two matrix forms agree, see docs/turbulence.md.
    "alpha 1": (FlowPhysics(alpha=1.0), {
        1: (0.00047354, 0.14669621), 3: (0.02312951, 0.37132774), 5: (0.07295558, 0.45604487),
        7: (0.10144362, 0.45138319), 10: (0.10484419, 0.40303091), 20: (0.06207002, 0.26985066),
    }),
    "alpha 0.1": (FlowPhysics(alpha=0.1), {
        1: (0.00471114, 0.14639574), 3: (0.10757853, 0.27469290), 5: (0.13861034, 0.24024091),
        7: (0.13351857, 0.20806151), 10: (0.11762832, 0.17557671), 20: (0.07965232, 0.12326698),
    }),
    "alpha 5": (FlowPhysics(alpha=5.0), {
        1: (0.00009471, 0.14669914), 3: (0.00471281, 0.37410161), 5: (0.01649071, 0.47886286),
        7: (0.02580576, 0.49671686), 10: (0.02891234, 0.45787251), 20: (0.01596942, 0.29828516),
    }),
    "simlint": (SIMLINT, {
        1: (0.01183581, 0.46234637), 3: (0.21965034, 0.82580246), 5: (0.27016994, 0.73431254),
        10: (0.16880198, 0.52106942), 20: (-0.02453906, 0.33034150),
    }),
}  # fmt: skip
CASES = [(name, mode) for name, (_, modes) in TABLE.items() for mode in modes]


def grid(points: int, box: float) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(points) * box / points
    return x[:, None], x[None, :]


def smooth(points: int, physics: FlowPhysics) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth state of many modes, the same on every grid, with a potential of order one."""
    (x, y), k = grid(points, physics.box), physics.wave_number(1)
    n = np.sin(k * x + 2 * k * y) + 0.5 * np.cos(3 * k * x - k * y) + 0.2 * np.sin(2 * k * x)
    w = 5 * np.cos(2 * k * x + k * y) + 1.5 * np.sin(2 * k * y + k * x) - 0.4 * np.cos(k * x) + 1.8 * np.sin(3 * k * y)
    return n, -(k**2) * w


def turbulent(points: int, physics: FlowPhysics, highest: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Return a state of random modes up to `highest`."""
    rng = np.random.default_rng(3)
    modes = np.fft.fftfreq(points, 1 / points)
    shell = np.hypot(modes[:, None], modes[: points // 2 + 1])
    inside = (shell > 0) & (shell <= highest)
    fields = [np.fft.irfft2(np.fft.rfft2(rng.standard_normal((points, points))) * inside) for _ in range(2)]
    return 2 * fields[0] / fields[0].std(), 3 * fields[1] / fields[1].std()


def growth(physics: FlowPhysics, symbols: equations.Symbols) -> complex:
    """Return the eigenvalue γ − iω of the linear operator of one mode, the faster growing of two."""
    values = np.linalg.eigvals(equations.linear_operator(physics, symbols).reshape(2, 2))
    return complex(values[np.argmax(values.real)])


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_growth_rate_and_frequency_of_the_equations(name: str, mode: int) -> None:
    physics, table = TABLE[name]
    ky = np.array([physics.wave_number(mode)])
    fastest = growth(physics, equations.spectral_symbols(np.zeros(1), ky))
    assert (fastest.real, -fastest.imag) == pytest.approx(table[mode], abs=1e-6)


def evolved(
    physics: FlowPhysics, points: int, mode: int, scheme: str, symbols: equations.Symbols, steps: int
) -> complex:
    """Return the eigenvalue of a mode in the solver, from the amplitude of its density over a short time."""
    (_, y), k = grid(points, physics.box), physics.wave_number(mode)
    eigenvalue = growth(physics, symbols)
    (a, b), _ = equations.linear_operator(physics, symbols)
    ratio = (eigenvalue - a[0]) / b[0]  # of vorticity to density in the eigenvector
    wave, small = np.exp(1j * k * y) * np.ones((points, 1)), 1e-6
    solver = FlowSolver(physics, points, scheme)
    solver.load((small * wave).real, (small * ratio * wave).real)
    before = np.fft.fft2(solver.fields()[0])[0, mode]
    solver.advance(0.02, 0.02 / steps)
    return complex(np.log(np.fft.fft2(solver.fields()[0])[0, mode] / before) / 0.02)


@pytest.mark.parametrize(("name", "mode"), CASES)
def test_spectral_solver_has_the_dispersion_of_the_equations(name: str, mode: int) -> None:
    physics, table = TABLE[name]
    symbols = equations.spectral_symbols(np.zeros(1), np.array([physics.wave_number(mode)]))
    value = evolved(physics, 64, mode, "spectral", symbols, 1)
    assert (value.real, -value.imag) == pytest.approx(table[mode], abs=1e-6)


@pytest.mark.parametrize("mode", [1, 3, 10, 20])
@pytest.mark.parametrize("name", TABLE)
def test_arakawa_solver_has_the_dispersion_of_its_differences(name: str, mode: int) -> None:
    physics, _ = TABLE[name]
    ky = np.array([physics.wave_number(mode)])
    symbols = equations.difference_symbols(np.zeros(1), ky, physics.box / 64)
    value = evolved(physics, 64, mode, "arakawa", symbols, 40)
    assert value == pytest.approx(growth(physics, symbols), abs=1e-6)


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_bracket_keeps_what_it_should(scheme: str) -> None:
    physics = FlowPhysics(alpha=0, kappa=0, box=25.6)
    solver = FlowSolver(physics, 64, scheme)
    solver.load(*turbulent(64, physics))
    means = solver.diagnose()
    size = means.values["energy"] * solver.speed()
    assert abs(means.values["energy_rate"]) < 1e-13 * size
    assert abs(means.values["enstrophy_rate"]) < 1e-13 * size
    inner = solver._scheme
    (n, w), (dn, dw) = inner.modes(), inner.rate()
    weight = inner.symbols.weight
    for field, rate in ((n, dn), (w, dw)):
        assert abs((weight * (field.conj() * rate).real).sum()) < 1e-13 * size


@pytest.mark.parametrize("modified", [True, False])
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_budgets_close(scheme: str, order: int, modified: bool) -> None:
    physics = FlowPhysics(0.7, 1.3, 0.004, 0.007, 1e-3 ** (order - 1) * 1e-3, order, modified, 25.6)
    solver = FlowSolver(physics, 48, scheme)
    solver.load(*turbulent(48, physics, 12))
    means = solver.diagnose()
    assert abs(means.values["energy_dissipation"]) > 1e-6
    assert abs(means.energy_residual) < 1e-12 * means.values["energy"]
    assert abs(means.enstrophy_residual) < 1e-12 * means.values["enstrophy"]


def test_arakawa_is_of_second_order_in_space() -> None:
    physics = FlowPhysics(box=25.6)
    errors = []
    exact = FlowSolver(physics, 64)
    exact.load(*smooth(64, physics))
    rate = exact._scheme.rate()[:, :4, :4]
    for points in (64, 128, 256):
        solver = FlowSolver(physics, points, "arakawa")
        solver.load(*smooth(points, physics))
        errors.append(np.abs(solver._scheme.rate()[:, :4, :4] - rate).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert orders == pytest.approx([2.0, 2.0], abs=0.05)


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_time_steps_are_of_fourth_order(scheme: str) -> None:
    physics = SIMLINT
    results = []
    for steps in (10, 20, 40, 160):
        solver = FlowSolver(physics, 32, scheme)
        solver.load(*turbulent(32, physics, 6))
        solver.advance(0.2, 0.2 / steps)
        results.append(np.array(solver.fields()))
    errors = [np.abs(result - results[-1]).max() for result in results[:-1]]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.3)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_both_libraries_of_transforms_give_the_same(scheme: str, precision: str) -> None:
    fields = []
    for library in ("fftw", "scipy"):
        solver = FlowSolver(SIMLINT, 48, scheme, precision, fft=library)
        assert solver.library == library
        for _ in range(2):  # a second state must not meet what is left of the first
            solver.load(*smooth(48, SIMLINT))
            solver.advance(0.02, 0.01)
        fields.append(np.stack([*solver.fields(), solver.potential()]))
    np.testing.assert_allclose(
        fields[0], fields[1], rtol=0, atol=40 * np.finfo(precision).eps * np.abs(fields[0]).max()
    )


def test_both_schemes_solve_the_same_equations() -> None:
    physics = FlowPhysics(0.7, 1.3, 0.004, 0.007, 1e-4, 2, True, 25.6)
    ends = {}
    for scheme in ("spectral", "arakawa"):
        solver = FlowSolver(physics, 128, scheme)
        solver.load(*smooth(128, physics))
        solver.advance(0.5)
        ends[scheme] = np.array(solver.fields())
    assert np.abs(ends["spectral"] - ends["arakawa"]).max() < 0.01 * np.abs(ends["spectral"]).max()


def test_reflection_in_x_with_a_change_of_sign_is_a_symmetry() -> None:
    n, w = turbulent(32, SIMLINT, 8)
    ends = []
    for fields in ((n, w), tuple(-np.roll(f[::-1], 1, axis=0) for f in (n, w))):
        solver = FlowSolver(SIMLINT, 32)
        solver.load(*fields)
        solver.advance(0.1)
        ends.append(np.array(solver.fields()))
    np.testing.assert_allclose(-np.roll(ends[1][:, ::-1], 1, axis=1), ends[0], atol=1e-12)


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_potential_solves_the_poisson_equation(scheme: str) -> None:
    solver = FlowSolver(SIMLINT, 64, scheme)
    solver.load(*smooth(64, SIMLINT))
    np.testing.assert_allclose(solver.potential(), potential(solver.fields()[1], SIMLINT.box), atol=1e-12)


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_single_precision_follows_double(scheme: str) -> None:
    ends = []
    for precision in ("float64", "float32"):
        solver = FlowSolver(SIMLINT, 64, scheme, precision)
        solver.load(*turbulent(64, SIMLINT, 10))
        solver.advance(0.2, 0.01)
        ends.append(np.array(solver.fields()))
    assert ends[1].dtype == np.float32
    assert np.linalg.norm(ends[1] - ends[0]) < 1e-5 * np.linalg.norm(ends[0])


def test_a_step_is_made_shorter_before_it_is_unstable() -> None:
    """The target is within a fifth of the limit, and the flow becomes faster by less than a fifth."""
    control = StepControl(remaining=1.0, step=None, courant=1.2, longest=np.inf, stable=1.3)
    assert control.next(speed=100) * 100 <= 1.2
    control.count_step()
    assert control.next(speed=115) * 115 <= 1.2


def test_steps_that_are_chosen_end_exactly_and_keep_the_courant_number() -> None:
    solver = FlowSolver(SIMLINT, 64, courant=0.5)
    solver.load(*turbulent(64, SIMLINT, 10))
    solver.advance(0.3)
    assert solver.time == 0.3
    assert solver.last_step * solver.speed() < 0.65
    assert 0.3 / solver.last_step == pytest.approx(solver.steps, rel=0.3)


def test_a_step_that_the_flow_does_not_allow_is_refused() -> None:
    solver = FlowSolver(SIMLINT, 64)
    solver.load(*turbulent(64, SIMLINT, 10))
    with pytest.raises(DivergenceError, match=r"too long \(the flow allows at most"):
        solver.advance(10, 1.0)
    still = FlowSolver(FlowPhysics(alpha=5), 32, "arakawa")
    still.load(np.zeros((32, 32)), np.zeros((32, 32)))
    with pytest.raises(DivergenceError, match="the linear terms allow at most"):
        still.advance(1, 0.1)


@pytest.mark.parametrize("scheme", ["spectral", "arakawa"])
def test_nan_ends_the_run(scheme: str) -> None:
    n, w = turbulent(32, SIMLINT, 8)
    n[3, 5] = math.nan
    solver = FlowSolver(SIMLINT, 32, scheme)
    solver.load(n, w)
    with pytest.raises(DivergenceError, match="NaN or infinite values after step"):
        solver.advance(1.0)
