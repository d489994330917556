"""Node-hours that are printed before a job runs."""

from pathlib import Path

import pytest

from mpi import scimill
from scimill.jobs.estimate import core_seconds
from scimill.jobs.render import Command

RENDER = ("jobs", "render", "--machine", "slurm-generic", "--nodes", 2, "--walltime", "3h")
GENERATE = ("scimill", "droplets", "generate", "out.h5", "--count")
RATE = "200,000 droplets per second per core (benchmarks/droplets.py)"


@pytest.mark.parametrize(("flags", "factor"), [((), 1), (("--array", "0-3"), 4)], ids=["one", "array"])
def test_a_measured_command_has_an_estimate(tmp_path: Path, flags: tuple[str, ...], factor: int) -> None:
    """1.728e10 droplets at 2e5 per second are 24 core hours, and 1.5 node-hours with 16 ranks per node."""
    words = (*RENDER, "--ranks-per-node", 16, *flags, "--", *GENERATE, "1.728e10")
    printed = scimill(*words, cwd=tmp_path)
    expected = f"at most {6 * factor} node-hours, without further links; estimate: {1.5 * factor:g}, at {RATE}"
    assert (printed.returncode, printed.stderr) == (0, f"scimill: {expected}\n"), printed


@pytest.mark.parametrize("command", [("scimill", "verify", "out.h5"), ("sleep", "60")], ids=["no rate", "any program"])
def test_others_have_an_upper_bound_alone(command: tuple[str, ...]) -> None:
    printed = scimill(*RENDER, "--", *command)
    assert (printed.returncode, printed.stderr) == (0, "scimill: at most 6 node-hours, without further links\n"), (
        printed
    )


def test_a_chain_names_the_steps_that_the_estimate_is_for(tmp_path: Path) -> None:
    (tmp_path / "chain.yaml").write_text(f"""
resources: {{walltime: 1h, ranks_per_node: 1}}
steps:
  generate: {{command: {" ".join(GENERATE)} 1.44e9}}
  verify: {{command: scimill verify out.h5, after: generate}}
""")
    words = ("jobs", "submit", "chain.yaml", "--machine", "slurm-generic", "--dry-run")
    printed = scimill(*words, cwd=tmp_path)
    assert "at most 2 node-hours, without further links; estimate for generate: 2, at" in printed.stderr, printed


def test_a_plan_that_is_refused_has_a_time_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output exists: the job will resume it."""
    monkeypatch.chdir(tmp_path)
    Path("out.h5").touch()
    assert core_seconds(Command((*GENERATE, "2e6"), ("dry_run",), rate="known")) == 10
    assert core_seconds(Command((*GENERATE, "none"), ("dry_run",), rate="known")) is None
