"""Shared helpers: configurations of the presets, droplets drawn as in the product, a solver."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdist.scheduler import LoadScopeScheduling

import droplets_reference
import needs
from mpi import succeed
from scimill.config import Layer, build, read_preset
from scimill.droplets import CAMPAIGN, arguments
from scimill.droplets.kernels import lanes, sampling
from scimill.droplets.kernels.physics import Constants, saturation_pressure
from scimill.droplets.params import DropletsGenerateConfig
from scimill.parallel.streams import block_stream
from scimill.parallel.world import world

world()  # importing h5py starts MPI, unless a process without a launcher has called world() first


@pytest.fixture(scope="session")
def compiled_kernel(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compile the droplets kernel once, for tests whose time limit is too short to compile it."""
    succeed("droplets", "generate", tmp_path_factory.mktemp("warm") / "a.h5", "--count", 16)


@pytest.fixture(autouse=True)
def denormal_numbers() -> Iterator[None]:
    """Restore the denormal numbers that training in this process disables."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output in its own folder, so that leftover files are noticed."""
    folder = tmp_path / "output"
    folder.mkdir()
    return folder / "droplets.h5"


@pytest.fixture(params=["classic", "ntlp-2026"])
def preset(request: pytest.FixtureRequest) -> str:
    """A preset of the original model."""
    return str(request.param)


@pytest.fixture(params=["classic", "ntlp-2026", "cloud"])
def any_preset(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def configure() -> Callable[..., DropletsGenerateConfig]:
    """Make a configuration from a preset and values that override it."""

    def make(preset: str = "classic", **values: Any) -> DropletsGenerateConfig:
        layers = [read_preset("scimill.droplets/presets", preset), Layer("test", {"count": 1000, **values})]
        return build(DropletsGenerateConfig, layers)

    return make


@pytest.fixture(scope="session")
def draw() -> Callable[..., tuple[sampling.Single, sampling.Single]]:
    """Draw the first n droplets of a block: float32 inputs (6, n) and times (n, samples)."""

    def droplets(config: DropletsGenerateConfig, n: int, block: int = 0) -> tuple[sampling.Single, sampling.Single]:
        stream, ranges = block_stream(config.seed, CAMPAIGN.number, block), arguments.ranges(config)
        times = sampling.times(stream, n, config.samples, ranges)
        return sampling.inputs(stream.random((n, len(sampling.INPUTS))), ranges), times

    return droplets


@pytest.fixture(scope="session")
def constants(configure: Callable[..., DropletsGenerateConfig]) -> Constants:
    return arguments.constants(configure())


@pytest.fixture(scope="session")
def saturation(configure: Callable[..., DropletsGenerateConfig]) -> Callable[[np.ndarray], np.ndarray]:
    """Saturation vapour pressure of the presets, Pa, at a temperature in K."""
    coefficients = arguments.solver_settings(configure()).saturation
    return lambda T: saturation_pressure(np.asarray(T, dtype=float), *coefficients)


@pytest.fixture(scope="session")
def integrate(constants: Constants, saturation: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
    """Integrate droplets (rows r, T, S, Tf, RH, rho) to times (n,) or (n, samples) with the lanes or the reference."""

    def solve(droplets: Any, times: Any, *, tolerance: float = 1e-11, by: str = "lanes", **more: Any) -> Any:
        columns = np.asarray(droplets, dtype=float).reshape(len(droplets), -1)
        times = np.asarray(times, dtype=float, order="C").reshape(columns.shape[1], -1)
        k = more.pop("k", constants)
        integrator = {"lanes": lanes.integrate, "reference": droplets_reference.integrate}[by]
        return integrator(*np.ascontiguousarray(columns), saturation(columns[3]), times, k, tolerance=tolerance, **more)

    return solve


SHARED = {
    "cluster": ("tests/jobs/",),
    "hosts": ("tests/hosts/",),
    "image": ("tests/containers/",),
    "fuzzers": ("tests/faults/test_disk.py", "tests/faults/test_kill.py", "tests/faults/test_random_input.py"),
}
"""Shared resources that are costly to start or unique, and the path prefixes of the tests that use them."""

ALONE = ("tests/docs/test_commands.py", "tests/parallel/test_shipped_chains.py")
"""Files of a few long tests that share nothing: each test goes to whichever process is free."""


class Together(LoadScopeScheduling):
    """Run the tests of a file, or all that share a resource, in one process of scripts/test.sh."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path in ALONE:
            return nodeid
        return next((what for what, paths in SHARED.items() if path.startswith(paths)), path)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


# ---- tests that this machine cannot run ---------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): what the test needs of the machine, see tests/needs.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        needs.require(*mark.args)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = terminalreporter.stats.get("skipped", [])
    if not reports:
        return
    terminalreporter.section(f"not run: {len(reports)}")
    by_reason: dict[str, Counter[str]] = {}
    for report in reports:
        reason = report.longrepr[2].removeprefix("Skipped: ")
        by_reason.setdefault(reason, Counter())[report.nodeid.partition("[")[0]] += 1
    for reason, tests in by_reason.items():
        terminalreporter.write_line(reason)
        for name, cases in tests.items():
            terminalreporter.write_line(f"    {name}" + (f" ({cases} cases)" if cases > 1 else ""))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI every test runs: one that skips itself without asking tests/needs.py fails the session."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter and reporter.stats.get("skipped")
    if needs.IN_CI and skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
