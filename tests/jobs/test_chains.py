"""Chains of steps: on a real Slurm, on stand-ins for PBS and Cobalt, and on this computer without a scheduler."""

import os
import shutil
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cluster import INTERVAL, Cluster
from jobs.conftest import DROPLETS
from jobs.states import COMPLETED, DEP_FAIL, ENDED, FAILED
from mpi import (
    Result,
    dataset_hashes,
    done_blocks,
    environment,
    forking_command,
    kill,
    processes,
    quick_path,
    scimill,
    start,
    succeed,
    wait_until,
)

MACHINES = {"slurm": "slurm-generic", "pbs": "pbs-generic", "cobalt": "cobalt-generic"}
SLOW = ("--count", "6e4", "--block-size", "1024", "--tolerance", "1e-12", "--seed", "5")
"""Seconds of work, to be interrupted."""
GENERATE = f"scimill droplets generate droplets.h5 {' '.join(DROPLETS)}"
TRAIN = "scimill droplets train droplets.h5 --epochs 1 --hidden 8 --batch-size 1024 --threads 1"
CHAIN = f"""
    resources: {{walltime: 10min, ranks_per_node: 1}}
    steps:
      export:
        command: scimill droplets export network network.onnx --format onnx --overwrite
        after: train
      generate:
        command: {GENERATE}
        resources: {{ranks_per_node: 2}}
      verify:
        command: scimill verify droplets.h5
        after: generate
      train:
        command: {TRAIN} --output network
        after: [verify, generate]
"""


ONE = f"resources: {{walltime: 10min, ranks_per_node: 2}}\nsteps: {{generate: {{command: {GENERATE}}}}}"


@pytest.fixture(autouse=True)
def quick_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scripts find a ``scimill`` that forks; test_clusters starts the real one."""
    monkeypatch.setenv("PATH", quick_path())


@pytest.fixture(params=MACHINES)
def cluster(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    found: Cluster = request.getfixturevalue(request.param)
    with found.searching_first(forking_command()):
        for name, value in found.env.items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to run chains in, with a space and a quote in its name."""
    place = tmp_path / "it's here"
    place.mkdir()
    return place


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Hashes of the output of `SLOW` without a job."""
    path = tmp_path_factory.mktemp("slow") / "droplets.h5"
    succeed("droplets", "generate", path, *SLOW, ranks=2)
    return dataset_hashes(path)


def write_chain(folder: Path, text: str, name: str = "chain") -> str:
    (folder / f"{name}.yaml").write_text(textwrap.dedent(text))
    return f"{name}.yaml"


def submit(cluster: Cluster, folder: Path, name: str = "chain.yaml", *flags: str) -> Result:
    result = scimill("jobs", "submit", name, "--machine", MACHINES[cluster.name], *flags, cwd=folder)
    assert result.returncode == 0, result
    return result


def states(folder: Path, name: str = "chain.yaml") -> dict[str, str]:
    """Return the state of each step that status prints."""
    result = scimill("jobs", "status", name, cwd=folder)
    assert result.returncode == 0, result
    lines = [line for line in result.stdout.splitlines() if not line.startswith("at most ")]
    return {line.split()[0]: line[17:32].strip() for line in lines}


def job_ids(cluster: Cluster) -> set[str]:
    return set(cluster.jobs())


def end_of(cluster: Cluster, before: set[str], timeout: float = 240.0) -> list[str]:
    """Wait until all jobs submitted since then have ended; return their states."""

    def job_states() -> list[str]:
        return [entry.state for job, entry in cluster.jobs().items() if job not in before]

    wait_until(lambda: all(state in ENDED for state in job_states()), f"the jobs of {cluster.name}", timeout, INTERVAL)
    return job_states()


# ---- with a scheduler -------------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_a_chain_is_queued_at_once_and_later_only_its_missing_steps(
    cluster: Cluster, folder: Path, alone: Path
) -> None:
    before = job_ids(cluster)
    queued = submit(cluster, folder, write_chain(folder, CHAIN))
    assert [line.split()[0] for line in queued.stdout.splitlines()] == ["generate", "verify", "train", "export"]
    assert len(job_ids(cluster) - before) == 4
    assert end_of(cluster, before) == [COMPLETED] * 4, outputs(cluster, before)
    assert set(states(folder).values()) == {"complete"}
    assert dataset_hashes(folder / "droplets.h5") == dataset_hashes(alone)
    assert (folder / "network.onnx").stat().st_size > 1000
    before = job_ids(cluster)
    again = submit(cluster, folder)
    assert [line.split()[1] for line in again.stdout.splitlines()] == ["complete"] * 4
    assert job_ids(cluster) == before
    (folder / "network.onnx").unlink()
    part = submit(cluster, folder)
    assert [line.split()[1] for line in part.stdout.splitlines()][:3] == ["complete"] * 3
    assert end_of(cluster, before) == [COMPLETED]
    assert (folder / "network.onnx").exists()


def outputs(cluster: Cluster, before: set[str]) -> str:
    return "\n".join(f"{job}:\n{cluster.output(job)}" for job in job_ids(cluster) - before)


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_jobs_that_are_queued_are_not_queued_twice(cluster: Cluster, folder: Path) -> None:
    waiting = CHAIN.replace("scimill verify droplets.h5", "bash -c 'until [ -e go ]; do sleep 0.05; done'")
    before = job_ids(cluster)
    submit(cluster, folder, write_chain(folder, waiting))
    submit(cluster, folder)
    assert len(job_ids(cluster) - before) == 4
    assert states(folder)["export"] == "waiting"
    (folder / "go").touch()
    assert end_of(cluster, before) == [COMPLETED] * 4, outputs(cluster, before)


def test_a_step_that_fails_ends_the_chain_and_the_same_command_repairs_it(cluster: Cluster, folder: Path) -> None:
    """The missing file makes the second step fail; steps that wait for it never run."""
    text = """
        resources: {walltime: 10min, ranks_per_node: 1}
        steps:
          first: {command: touch first}
          second: {command: cp missing second, after: first}
          third: {command: touch third, after: second}
    """
    before = job_ids(cluster)
    submit(cluster, folder, write_chain(folder, text))
    end_of(cluster, before)
    assert not (folder / "third").exists()
    found = states(folder)
    assert (found["first"], found["second"]) == ("complete", "failed (1)")
    (folder / "missing").write_text("here")
    stuck = [job for job, entry in cluster.jobs().items() if entry.state == DEP_FAIL]
    if stuck:  # Cobalt keeps it until somebody deletes it
        refused = scimill("jobs", "submit", "chain.yaml", "--machine", "cobalt-generic", cwd=folder)
        assert_refused(refused, f"step third, job {stuck[0]}, waits for a job that has ended")
        cluster.cancel(stuck[0])
    submit(cluster, folder)
    wait_until((folder / "third").exists, "the third step", 60)
    assert (folder / "second").read_text() == "here"


def test_links_of_a_step_complete_it_before_those_that_wait_for_it_begin(
    cluster: Cluster, folder: Path, slow: dict[str, str]
) -> None:
    """A link is stopped like by a scheduler, with a signal to its ranks; test_clusters waits for walltimes."""
    text = f"""
        resources: {{walltime: 30min, ranks_per_node: 2}}
        steps:
          generate: {{command: scimill droplets generate droplets.h5 {" ".join(SLOW)}}}
          verify: {{command: scimill verify droplets.h5, after: generate}}
    """
    before = job_ids(cluster)
    submit(cluster, folder, write_chain(folder, text))
    part, done = folder / "droplets.h5.part", 0
    for link in (1, 2):
        wait_for_blocks(part, done + 8)  # of this link: one that has just started would miss the signal
        stop_rank(folder)
        wait_for_jobs(cluster, before, 2 + link)
        done = len(done_blocks(part))
    assert end_of(cluster, before) == [COMPLETED] * 4, outputs(cluster, before)
    assert set(states(folder).values()) == {"complete"}, outputs(cluster, before)
    assert dataset_hashes(folder / "droplets.h5") == slow


def wait_for_blocks(path: Path, count: int) -> None:
    wait_until(lambda: len(done_blocks(path)) > count, f"{count} blocks", 60)


def wait_for_jobs(cluster: Cluster, before: set[str], count: int) -> None:
    wait_until(lambda: len(job_ids(cluster) - before) == count, f"{count} jobs of {cluster.name}", 60)


def stop_rank(folder: Path) -> None:
    """Send USR2 to one rank of the job that runs in a folder; it notifies the others."""

    def ranks() -> list[int]:
        here = [pid for pid, _, _ in processes() if working_directory(pid) == folder]
        signs = (b"OMPI_COMM_WORLD_RANK=", b"PMIX_RANK=")
        return [pid for pid in here if any(word.startswith(signs) for word in environment(pid))]

    wait_until(ranks, "a rank", 30)
    kill(ranks()[-1], signal.SIGUSR2)


def working_directory(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None


def test_trials_of_a_sweep_run_as_an_array_even_where_the_scheduler_has_none(
    cluster: Cluster, folder: Path, alone: Path
) -> None:
    shutil.copy(alone, folder / "droplets.h5")
    (folder / "sweep.yaml").write_text("learning_rate: [1e-3, 1e-2]\n")
    text = f"""
        resources: {{walltime: 10min, ranks_per_node: 1}}
        steps:
          sweep:
            command: {TRAIN} --output trials --sweep sweep.yaml
            resources: {{array: 0-1}}
          rank: {{command: scimill droplets trials trials, after: sweep}}
    """
    before = job_ids(cluster)
    submit(cluster, folder, write_chain(folder, text))
    assert set(end_of(cluster, before)) == {COMPLETED}, outputs(cluster, before)
    assert set(states(folder).values()) == {"complete"}
    text = outputs(cluster, before)
    assert "trial-0000" in text
    assert "trial-0001" in text


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_only_the_failed_elements_of_an_array_run_again(cluster: Cluster, folder: Path) -> None:
    text = """
        resources: {walltime: 10min, ranks_per_node: 1}
        steps:
          each:
            command: "bash -c 'echo >>ran-$SCIMILL_ARRAY_INDEX; ls go-$SCIMILL_ARRAY_INDEX'"
            resources: {array: 0-2}
          last: {command: touch last, after: each}
    """
    (folder / "go-0").touch()
    (folder / "go-2").touch()
    before = job_ids(cluster)
    submit(cluster, folder, write_chain(folder, text))
    end_of(cluster, before)
    assert states(folder) == {"each": "failed (0, 2)", "last": "to do"}
    (folder / "go-1").touch()
    submit(cluster, folder)
    end_of(cluster, before)
    assert states(folder) == {"each": "complete", "last": "complete"}
    assert [len((folder / f"ran-{index}").read_text()) for index in range(3)] == [1, 2, 1]


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_a_step_waits_for_a_job_outside_its_chain(cluster: Cluster, folder: Path) -> None:
    (folder / "wait.sh").write_text("#!/bin/bash\nuntil [ -e go ]; do sleep 0.05; done; touch went\n")
    before = job_ids(cluster)
    outside = cluster.submit(folder / "wait.sh", cwd=folder)
    text = f"""
        resources: {{walltime: 10min, ranks_per_node: 1}}
        steps: {{a: {{command: cp went a, resources: {{after: '{outside}'}}}}}}
    """
    submit(cluster, folder, write_chain(folder, text))
    assert states(folder) == {"a": "waiting"}
    (folder / "go").touch()
    assert end_of(cluster, before) == [COMPLETED] * 2, outputs(cluster, before)


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_a_job_that_was_submitted_again_steps_aside(cluster: Cluster, folder: Path) -> None:
    """Its submission was killed before it could write the id, and the scheduler did not list the job yet."""
    text = "resources: {walltime: 10min, ranks_per_node: 1}\nsteps: {a: {command: bash -c 'echo >>a; ls go'}}"
    before = job_ids(cluster)
    submit(cluster, folder, write_chain(folder, text))
    end_of(cluster, before)
    [script] = (folder / "scimill-jobs").glob("*.sh")
    (folder / "go").touch()
    submit(cluster, folder)
    end_of(cluster, before)
    old = cluster.submit(script, cwd=folder)
    assert cluster.wait(old) == (FAILED, 3)
    assert "a was submitted again" in cluster.output(old)
    assert len((folder / "a").read_text()) == 2
    assert states(folder) == {"a": "complete"}


# ---- here -------------------------------------------------------------------------------------------------------


def run(folder: Path, *flags: object, name: str = "chain.yaml") -> Result:
    return scimill("jobs", "run", name, *flags, cwd=folder)


def test_a_chain_runs_here_and_is_skipped_the_second_time(folder: Path) -> None:
    write_chain(folder, CHAIN)
    assert set(states(folder).values()) == {"to do"}
    first = run(folder)
    assert first.returncode == 0, first
    assert first.stdout.count("== ") == 4
    assert "2 rank" not in first.stderr  # train requests one
    assert set(states(folder).values()) == {"complete"}
    second = run(folder)
    assert second.stdout.count("already complete") == 4


def test_a_step_that_ran_with_another_command_is_refused(folder: Path) -> None:
    write_chain(folder, ONE)
    assert run(folder).returncode == 0
    write_chain(folder, ONE.replace("--count 20000", "--count 10000"))
    assert_refused(run(folder), "step generate ran with another command")


def test_an_output_made_by_hand_is_taken_over_only_with_the_same_configuration(folder: Path) -> None:
    write_chain(folder, ONE)
    succeed("droplets", "generate", folder / "droplets.h5", "--count", 2000)
    assert states(folder)["generate"] == "to do"
    refused = run(folder)
    assert refused.returncode == 2, refused
    assert "another configuration" in refused.stderr
    (folder / "droplets.h5").unlink()
    succeed("droplets", "generate", folder / "droplets.h5", *DROPLETS)
    before = (folder / "droplets.h5").stat().st_mtime_ns
    assert run(folder).returncode == 0
    assert (folder / "droplets.h5").stat().st_mtime_ns == before


def test_a_damaged_output_is_not_complete(folder: Path) -> None:
    write_chain(folder, ONE)
    assert run(folder).returncode == 0
    with (folder / "droplets.h5").open("r+b") as file:
        file.seek((folder / "droplets.h5").stat().st_size // 2)
        file.write(b"\xff" * 64)
    assert states(folder)["generate"] == "to do"


def test_an_array_runs_here_one_after_the_other(folder: Path) -> None:
    text = """
        resources: {walltime: 1h}
        steps:
          each: {command: "bash -c 'touch done-$SCIMILL_ARRAY_INDEX'", resources: {array: "5,3-4", ranks_per_node: 1}}
    """
    write_chain(folder, text)
    assert run(folder).returncode == 0
    assert sorted(path.name for path in folder.glob("done-*")) == ["done-3", "done-4", "done-5"]


def test_a_failing_step_ends_the_run_with_its_exit_code(folder: Path) -> None:
    write_chain(folder, "resources: {walltime: 1h}\nsteps:\n  bad: {command: 'bash -c \"exit 9\"'}")
    result = run(folder, "--ranks", 1)
    assert result.returncode == 9, result
    assert result.errors == ["scimill: error: step bad ended with exit code 9"]
    assert states(folder)["bad"] == "failed (9)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("ranks", [1, 2])
def test_interrupted_it_stops_and_the_same_command_goes_on(
    folder: Path, slow: dict[str, str], number: int, ranks: int
) -> None:
    text = f"""
        resources: {{walltime: 1h, ranks_per_node: {ranks}}}
        steps: {{generate: {{command: scimill droplets generate droplets.h5 {" ".join(SLOW)}}}}}
    """
    write_chain(folder, text)
    with start("jobs", "run", "chain.yaml", cwd=folder) as job:
        wait_until((folder / "droplets.h5.part").exists, "the output", 60)
        os.kill(job.process.pid, number)
        stopped = job.wait(300)
    assert stopped.returncode == 75, stopped
    assert stopped.tracebacks == 0
    assert not (folder / "droplets.h5").exists()
    finished = run(folder)
    assert finished.returncode == 0, finished
    assert dataset_hashes(folder / "droplets.h5") == slow


# ---- wrong chains -----------------------------------------------------------------------------------------------

STEP = "command: scimill verify a.h5"
WRONG = {
    "circle": ("steps: {a: {STEP, after: b}, b: {STEP, after: a}}", "in a cycle: "),
    "waits-for-itself": ("steps: {a: {STEP, after: a}}", "in a cycle: a after a"),
    "unknown-step": ("steps: {a: {STEP, after: c}}", "unknown step 'c'"),
    "unknown-key": ("steps: {a: {STEP, befor: c}}", "unknown key 'befor'"),
    "unknown-resource": ("steps: {a: {STEP, resources: {node: 2}}}", "did you mean 'nodes'?"),
    "no-steps": ("steps: {}", "has no steps"),
    "no-command": ("steps: {a: {}}", "command is required"),
    "empty-command": ("steps: {a: {command: ''}}", "the command is empty"),
    "open-quote": ("steps: {a: {command: \"echo 'a\"}}", "No closing quotation"),
    "bad-name": ("steps: {A b: {STEP}}", "invalid name of a step"),
    "no-walltime": ("steps: {a: {STEP}}", "walltime is required"),
    "bad-command": ("steps: {a: {command: scimill verfy a.h5}}", "did you mean verify?"),
    "bad-config": ("steps: {a: {command: scimill droplets generate a.h5 --count 0}}", "--count 0 is out of range"),
    "overwrites": ("steps: {a: {command: scimill droplets generate a.h5 --count 9 --overwrite}}", "restart each time"),
    "no-folder": ("steps: {a: {command: scimill droplets generate no/a.h5 --count 9}}", "directory does not exist"),
    "text": ("steps: 5", "steps"),
    "list": ("steps: {a: [1]}", "steps"),
}  # fmt: skip


def assert_refused(result: Result, message: str) -> None:
    assert (result.returncode, result.tracebacks, len(result.errors), result.stdout) == (2, 0, 1, ""), result
    assert len(result.stderr.splitlines()) <= 4, result
    assert message in result.stderr, result


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_chain_is_refused_before_anything_runs(folder: Path, name: str) -> None:
    text, message = WRONG[name][0].replace("STEP", STEP), WRONG[name][1]
    write_chain(folder, text if name == "no-walltime" else f"resources: {{walltime: 1h}}\n{text}")
    assert_refused(run(folder, "--ranks", 1), message)
    assert [path.name for path in folder.iterdir()] == ["chain.yaml"]


def test_a_missing_chain_is_refused(folder: Path) -> None:
    assert_refused(run(folder, name="gone.yaml"), "chain file not found")


def test_a_shipped_chain_is_found_by_its_name(folder: Path) -> None:
    assert states(folder, "droplets.yaml")["train"] == "to do"


def test_run_needs_a_machine_without_a_scheduler(folder: Path) -> None:
    write_chain(folder, CHAIN)
    assert_refused(run(folder, "--machine", "slurm-generic"), "has a scheduler")


DATASETS = """
    resources: {walltime: 10min, ranks_per_node: 1}
    steps:
      first:
        command: scimill bench generate dlrm first --size 1MB --format npz
      second:
        command: scimill bench generate dlrm second --size 1MB --seed 2
        after: first
"""
FOLDERS = """
    resources: {walltime: 10min, ranks_per_node: 1}
    steps:
      scene:
        command: scimill sky scene sky --frames 8 --nodes 2 --rgb-height 48 --thermal-height 24
      pair:
        command: >-
          scimill sky pair sky --nodes sky/nodes.csv --output pairs.csv --workbook pairs.xlsx
        after: scene
      dataset:
        command: scimill bench generate dlrm dataset --size 1MB
      pictures:
        command: scimill bench plot dataset --output dataset-pictures
        after: dataset
"""


@pytest.mark.parametrize("text", [DATASETS, FOLDERS], ids=["datasets", "folders, an index, a workbook and pictures"])
def test_directories_and_files_that_are_not_stores_are_skipped_the_second_time(folder: Path, text: str) -> None:
    write_chain(folder, text)
    first = run(folder)
    assert first.returncode == 0, first
    again = run(folder)
    assert again.returncode == 0, again
    assert again.stdout.count("already complete") == text.count("command:"), again
    assert set(states(folder).values()) == {"complete"}


def test_a_picture_that_has_changed_is_drawn_again(folder: Path) -> None:
    write_chain(folder, FOLDERS)
    assert run(folder).returncode == 0
    picture = next((folder / "dataset-pictures").iterdir())
    picture.write_bytes(b"another")
    again = run(folder)
    assert again.stdout.count("already complete") == 3, again
    assert picture.read_bytes() != b"another"
