"""What a user sees of a chain: its states, why it waits, its output; and commands that ask for another job."""

from pathlib import Path

import pytest

from jobs.cluster import Cluster
from jobs.states import COMPLETED
from jobs.test_chains import (
    assert_refused,
    cluster,
    end_of,
    folder,
    job_ids,
    outputs,
    quick_start,
    states,
    submit,
    write_chain,
)
from mpi import scimill, start

__all__ = ["cluster", "folder", "quick_start"]  # fixtures


def test_a_command_that_ends_with_75_runs_again_and_its_output_is_shown(cluster: Cluster, folder: Path) -> None:
    text = """
        resources: {walltime: 30min, ranks_per_node: 1}
        steps:
          count:
            command: "bash -c 'echo >>lines; echo this is run $(wc -l <lines); [ $(wc -l <lines) = 3 ] || exit 75'"
            resources: {resumable: true}
          last: {command: cp lines last, after: count}
    """
    before = job_ids(cluster)
    submit(cluster, folder, write_chain(folder, text))
    assert end_of(cluster, before) == [COMPLETED] * 4, outputs(cluster, before)
    assert (folder / "last").read_text() == "\n\n\n"
    assert states(folder) == {"count": "complete", "last": "complete"}
    shown = scimill("jobs", "logs", "chain.yaml", "count", cwd=folder)
    runs = [line for line in shown.stdout.splitlines() if line.startswith("this is run")]
    assert runs == ["this is run 1", "this is run 2", "this is run 3"], shown


@pytest.mark.parametrize("cluster", ["slurm"], indirect=True)
def test_watching_ends_with_the_chain(cluster: Cluster, folder: Path) -> None:
    text = """
        resources: {walltime: 30min, ranks_per_node: 1, nodes: 1}
        steps:
          a: {command: "bash -c 'echo begun; until [ -e go ]; do sleep 0.05; done; echo done'"}
          b: {command: touch b, after: a}
    """
    name = write_chain(folder, text)
    assert_refused(scimill("jobs", "logs", name, "c", cwd=folder), "unknown step 'c'")
    none = scimill("jobs", "logs", name, "a", cwd=folder)
    assert (none.returncode, none.errors) == (3, ["scimill: error: step a has no output yet"]), none
    submit(cluster, folder, name)
    shown = scimill("jobs", "status", name, cwd=folder).stdout.splitlines()
    assert shown[1].split()[1] == "waiting"
    assert "[Dependency] touch b" in shown[1]
    assert shown[2] == "at most 1 node-hours left, without further links"
    with (
        start("jobs", "status", name, "--watch", cwd=folder) as watching,
        start("jobs", "logs", name, "a", "--follow", cwd=folder) as following,
    ):
        (folder / "go").touch()
        watched, followed = watching.wait(120), following.wait(120)
    assert (watched.returncode, followed.returncode) == (0, 0), (watched, followed)
    assert [line.split()[1] for line in watched.stdout.splitlines()[-2:]] == ["complete", "complete"]
    assert followed.stdout.splitlines()[1:] == ["begun", "done"]
