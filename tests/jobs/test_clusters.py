"""Rendered scripts, run by a real Slurm and stand-ins of PBS and Cobalt, give the same results as here.

Walltimes of schedulers are minutes. So that no test computes for minutes, ranks that have done a block are stopped
until their time is over: then it is sure that a job has been interrupted, on machines of any speed.
"""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from jobs.cluster import Cluster, Entry
from jobs.conftest import DROPLETS
from jobs.slurm import Slurm
from jobs.standin.cluster import StandIn
from jobs.states import CANCELLED, COMPLETED, DEP_FAIL, FAILED, TIMEOUT
from mpi import dataset_hashes, done_blocks, forking_command, kill, processes, scimill, succeed, wait_until

COUNT = ("--count", "200000", "--block-size", "1000")
GENERATE = ("scimill", "droplets", "generate", "droplets.h5", *COUNT)
TRAINING = ("--epochs", "2", "--batch-size", "500", "--preset", "small")
UNTIL_GO = "until [ -e go ]; do sleep 0.05; done"
PATIENCE = 150.0  # s; for work that takes seconds on an idle machine
NEVER = {"slurm": CANCELLED, "pbs": CANCELLED, "cobalt": DEP_FAIL}
"""The final state of a job with a dependency that can no longer be met."""


@pytest.fixture(params=["slurm", "pbs", "cobalt"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A scheduler whose jobs start scimill quickly; the tests of walltimes start the real command."""
    found: Cluster = request.getfixturevalue(request.param)
    with found.searching_first(forking_command()):
        yield found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the command's output on one rank, without a job."""
    path = tmp_path_factory.mktemp("uninterrupted") / "droplets.h5"
    succeed("droplets", "generate", path, *COUNT)
    return dataset_hashes(path)


@pytest.fixture(scope="module")
def droplets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few droplets to train on."""
    path = tmp_path_factory.mktemp("droplets") / "droplets.h5"
    succeed("droplets", "generate", path, "--count", 4000, "--block-size", 500)
    return path


@pytest.fixture(scope="module")
def trained(droplets: Path) -> dict[str, torch.Tensor]:
    """Parameters of a network that was trained on two ranks, without a job."""
    run = droplets.parent / "run"
    succeed("droplets", "train", droplets, "--output", run, *TRAINING, ranks=2)
    return parameters(run)


def parameters(run: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(run / "checkpoint.pt", weights_only=True)["model"])


def render(cluster: Cluster, folder: Path, *command: str, **resources: str) -> Path:
    """Write scimill's script into the folder of the results, like a user who redirects its output."""
    given = {"ranks_per_node": "2", "walltime": "10min", "name": "job"} | resources
    options = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    machine = f"{cluster.name}-generic"
    result = scimill("jobs", "render", "--machine", machine, *options, "--", *command, cwd=folder)
    assert result.returncode == 0, result
    path = folder / f"{given['name']}.sh"
    path.write_text(result.stdout)
    path.chmod(0o755)
    return path


def statuses(folder: Path) -> list[str]:
    """Exit codes of the command in the links of a chain, from their records."""
    return sorted(path.read_text().strip() for path in folder.glob("scimill-jobs/job-*/status"))


# ---- one job ----------------------------------------------------------------------------------------------------


def test_generation_gives_the_same_bytes(cluster: Cluster, tmp_path: Path, alone: Path) -> None:
    job = cluster.submit(render(cluster, tmp_path, "scimill", "droplets", "generate", "droplets.h5", *DROPLETS))
    assert cluster.wait(job, PATIENCE) == (COMPLETED, 0), cluster.output(job)
    assert dataset_hashes(tmp_path / "droplets.h5") == dataset_hashes(alone)
    assert statuses(tmp_path) == ["0"]


def test_training_gives_the_same_network(
    cluster: Cluster, tmp_path: Path, droplets: Path, trained: dict[str, torch.Tensor]
) -> None:
    command = ("scimill", "droplets", "train", str(droplets), "--output", "run", *TRAINING)
    job = cluster.submit(render(cluster, tmp_path, *command))
    assert cluster.wait(job, PATIENCE) == (COMPLETED, 0), cluster.output(job)
    found = parameters(tmp_path / "run")
    assert found.keys() == trained.keys()
    assert all(torch.equal(found[name], trained[name]) for name in trained)


def test_a_failure_is_the_failure_of_the_job(cluster: Cluster, tmp_path: Path) -> None:
    job = cluster.submit(render(cluster, tmp_path, "scimill", "verify", "nosuch.h5", ranks_per_node="1"))
    assert cluster.wait(job, PATIENCE) == (FAILED, 3), cluster.output(job)
    assert "scimill: error:" in cluster.output(job)


@pytest.mark.parametrize("cluster", ["slurm", "pbs"], indirect=True)
def test_an_array_trains_a_sweep(cluster: Cluster, tmp_path: Path, droplets: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("learning_rate: [0.001, 0.002]\n")
    command = ("scimill", "droplets", "train", str(droplets), "--output", "runs", *TRAINING, "--sweep", "sweep.yaml")
    job = cluster.submit(render(cluster, tmp_path, *command, array="0-1", ranks_per_node="1"))
    assert cluster.wait(job, PATIENCE) == (COMPLETED, 0), cluster.output(job)
    trials = sorted((tmp_path / "runs").glob("*/config.yaml"))
    rates = [yaml.safe_load(path.read_text())["learning_rate"] for path in trials]
    assert rates == [0.001, 0.002]


# ---- chains of jobs ---------------------------------------------------------------------------------------------


def test_a_chain_runs_in_its_order(cluster: Cluster, tmp_path: Path) -> None:
    wait = render(cluster, tmp_path, "bash", "-c", UNTIL_GO, name="wait", ranks_per_node="1")
    first = cluster.submit(wait)
    count = ("--count", "2000", "--block-size", "500")
    generate = render(cluster, tmp_path, "scimill", "droplets", "generate", "a.h5", *count, name="make", after=first)
    second = cluster.submit(generate)
    third = cluster.submit(render(cluster, tmp_path, "scimill", "verify", "a.h5", name="verify", after=second))
    (tmp_path / "go").touch()
    for job in (first, second, third):
        assert cluster.wait(job, PATIENCE) == (COMPLETED, 0), cluster.output(job)


def test_a_dependency_that_can_never_be_met_does_not_wait_for_ever(cluster: Cluster, tmp_path: Path) -> None:
    fail = render(cluster, tmp_path, "bash", "-c", f"{UNTIL_GO}; exit 3", name="fail", ranks_per_node="1")
    first = cluster.submit(fail)
    second = cluster.submit(render(cluster, tmp_path, "touch", "second", name="second", after=first))
    third = cluster.submit(render(cluster, tmp_path, "touch", "third", name="third", after=second))
    (tmp_path / "go").touch()
    assert cluster.wait(first, PATIENCE) == (FAILED, 3), cluster.output(first)
    assert cluster.wait(second, PATIENCE)[0] == NEVER[cluster.name]
    if cluster.name == "cobalt":
        cluster.cancel(second)  # Cobalt keeps it until somebody does; the next then cannot be met either
    else:
        assert cluster.wait(third, PATIENCE)[0] == NEVER[cluster.name]
    assert not list(tmp_path.glob("second")) + list(tmp_path.glob("third"))


# ---- the walltime -----------------------------------------------------------------------------------------------


def ranks(folder: Path) -> list[int]:
    """Processes of scimill that run in a folder."""
    found = []
    for pid, _, _ in processes():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"generate" in words and b"python" in Path(words[0].decode()).name.encode():
                found += [pid] if Path(f"/proc/{pid}/cwd").readlink() == folder else []
    return found


def stop_ranks(folder: Path) -> list[int]:
    """Stop the two ranks of a job as soon as they have done a block."""
    part = folder / "droplets.h5.part"
    wait_until(lambda: done_blocks(part), f"a block in {part}", PATIENCE)
    stopped = ranks(folder)
    for pid in stopped:
        kill(pid, signal.SIGSTOP)
    assert len(stopped) == 2
    assert part.exists(), "it has ended before it could be stopped: more droplets are needed"
    return stopped


def assert_complete(links: list[Entry], folder: Path, uninterrupted: dict[str, str]) -> None:
    """Assert that there was more than one link, and that the result equals that of an uninterrupted run."""
    assert links[-1].state == COMPLETED
    assert len(links) > 1
    assert statuses(folder) == ["0", *["75"] * (len(links) - 1)]
    assert not (folder / "droplets.h5.part").exists()
    assert dataset_hashes(folder / "droplets.h5") == uninterrupted


@pytest.mark.timeout(900)
def test_jobs_stop_before_their_walltime_and_go_on_in_the_next(
    slurm: Slurm, pbs: StandIn, cobalt: StandIn, tmp_path: Path, uninterrupted: dict[str, str]
) -> None:
    """The jobs of all schedulers wait for their walltime at the same time."""
    seconds = 20  # the time that the first link works, out of its walltime of 600 s
    jobs, stopped = {}, []
    for cluster in (slurm, pbs, cobalt):
        folder = tmp_path / cluster.name
        folder.mkdir()
        (folder / "margin.yaml").write_text(f"walltime_margin: {600 - seconds}s\n")
        jobs[cluster] = cluster.submit(render(cluster, folder, *GENERATE, "--config", "margin.yaml"))
        stopped += stop_ranks(folder)
        # The next is to complete them, even where all takes long.
        (folder / "margin.yaml").write_text("walltime_margin: 60s\n")
    time.sleep(seconds)
    for pid in stopped:
        kill(pid, signal.SIGCONT)
    for cluster, job in jobs.items():
        assert_complete(cluster.wait_all(job, 2 * PATIENCE), tmp_path / cluster.name, uninterrupted)


class Submitted:
    """Jobs that wait for their walltime while other tests run: three minutes of generation, and a minute of sleep."""

    def __init__(self, slurm: Slurm, folder: Path) -> None:
        self.folder = folder
        sleep = render(slurm, folder, "sleep", "600", name="sleep", walltime="1min", ranks_per_node="1")
        self.sleep = slurm.submit(sleep)
        self.after_ok = slurm.submit(render(slurm, folder, "touch", "after", name="after", after=self.sleep))
        self.generate = slurm.submit(render(slurm, folder, *GENERATE, walltime="3min"))
        stop_ranks(folder)


@pytest.fixture(scope="module", autouse=True)
def submitted(slurm_of_the_session: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submitted]:
    folder = tmp_path_factory.mktemp("submitted")
    slurm_of_the_session.background.add(folder)
    yield Submitted(slurm_of_the_session, folder)
    slurm_of_the_session.background.remove(folder)


def test_slurm_signals_a_job_before_its_walltime_and_it_goes_on_in_the_next(
    slurm: Slurm, submitted: Submitted, uninterrupted: dict[str, str]
) -> None:
    """Slurm continues stopped processes before it sends them a signal."""
    wait_until(lambda: statuses(submitted.folder), "the end of the first link", 180)
    links = [entry for entry in slurm.wait_all(submitted.generate, PATIENCE) if entry.name == "job"]
    assert "stopped by signal SIGUSR2" in slurm.output(submitted.generate)
    assert "scimill: link 1 of at most 20 has stopped" in slurm.output(submitted.generate)
    assert_complete(links, submitted.folder, uninterrupted)


def test_slurm_ends_a_job_that_does_not_heed_its_walltime(slurm: Slurm, submitted: Submitted) -> None:
    assert slurm.wait(submitted.sleep, 180)[0] == TIMEOUT
    assert slurm.wait(submitted.after_ok)[0] == CANCELLED
