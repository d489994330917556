"""What a step waits for under PBS, where a job can wait for a whole array (`afterok:7[]`) but not for one element."""

from pathlib import Path

import pytest

from jobs.standin.cluster import StandIn
from jobs.standin.state import read
from jobs.states import CANCELLED, COMPLETED, FAILED, RUNNING, WAITING
from jobs.test_chains import cluster, end_of, folder, job_ids, outputs, quick_start, states, submit, write_chain
from mpi import wait_until

__all__ = ["cluster", "folder", "quick_start"]  # fixtures

pytestmark = pytest.mark.parametrize("cluster", ["pbs"], indirect=True)

TEXT = """
    resources: {walltime: 10min, ranks_per_node: 1}
    steps:
      each:
        command: bash each.sh
        resources: {array: 0-2, resumable: true}
      last: {command: touch last, after: each}
"""
EACH = """\
index=$SCIMILL_ARRAY_INDEX
echo >>ran-$index
until [ -e end-$index ]; do sleep 0.05; done
exit $(cat end-$index)
"""


@pytest.fixture
def first(cluster: StandIn, folder: Path) -> set[str]:
    """A chain of an array and a step that waits for it; the jobs that there were before."""
    (folder / "each.sh").write_text(EACH)
    before = job_ids(cluster)
    submit(cluster, folder, write_chain(folder, TEXT))
    return before


def end(folder: Path, index: int, code: int) -> None:
    """Let an element of the array end with an exit code."""
    (folder / "new").write_text(str(code))
    (folder / "new").rename(folder / f"end-{index}")


def dependency(cluster: StandIn) -> set[str]:
    """Return what the last job that was queued for the last step waits for, after `afterok:`."""
    depend = [job.depend for job in read(cluster.folder).jobs if job.name == "last"][-1]
    kind, *jobs = depend.split(":")
    assert kind == "afterok"
    return set(jobs)


def number(cluster: StandIn, count: int) -> int:
    """Return the number of the latest job but so many."""
    return sorted({job.number for job in read(cluster.folder).jobs})[-1 - count]


def test_while_other_elements_run_a_failed_one_is_not_run_again(
    cluster: StandIn, folder: Path, first: set[str]
) -> None:
    """The array has one id: PBS deletes the waiting job only once the whole array has ended."""
    array = number(cluster, 1)
    assert dependency(cluster) == {f"{array}[].standin"}
    end(folder, 1, 7)
    wait_until(lambda: sum(job.code == 7 for job in cluster.jobs().values()) == 1, "the failure", 60)
    shown = submit(cluster, folder).stdout.split()
    assert shown == ["each", "running", "last", "waiting"]
    for index in (0, 2):
        end(folder, index, 0)
    end_of(cluster, first)
    assert states(folder) == {"each": "failed (0, 7)", "last": "to do"}


def test_the_step_waits_for_the_element_that_runs_again_and_not_for_the_array_that_failed(
    cluster: StandIn, folder: Path, first: set[str]
) -> None:
    """`afterok` of an array with a failed element is never satisfied: PBS would delete the job at once."""
    for index, code in ((0, 0), (1, 7), (2, 0)):
        end(folder, index, code)
    assert sorted(end_of(cluster, first)) == sorted([COMPLETED, COMPLETED, FAILED, CANCELLED])
    (folder / "end-1").unlink()
    again = job_ids(cluster)
    submit(cluster, folder)
    assert len(job_ids(cluster) - again) == 2
    assert dependency(cluster) == {f"{number(cluster, 1)}.standin"}
    wait_until(lambda: (folder / "ran-1").read_text().count("\n") == 2, "the second run", 60)
    assert [cluster.state(job) for job in sorted(job_ids(cluster) - again)] == [RUNNING, WAITING]
    end(folder, 1, 0)
    assert end_of(cluster, again) == [COMPLETED] * 2, outputs(cluster, again)
    assert states(folder) == {"each": "complete", "last": "complete"}
    assert [(folder / f"ran-{index}").read_text().count("\n") for index in range(3)] == [1, 2, 1]


def test_the_next_link_of_an_element_is_waited_for_beside_the_array(
    cluster: StandIn, folder: Path, first: set[str]
) -> None:
    array = number(cluster, 1)
    end(folder, 1, 75)
    wait_until(lambda: len(job_ids(cluster) - first) == 5, "the next link", 60)
    link = number(cluster, 0)
    wait_until(lambda: dependency(cluster) == {f"{link}.standin", f"{array}[].standin"}, "the new dependency", 60)
    end(folder, 1, 0)
    for index in (0, 2):
        end(folder, index, 0)
    assert end_of(cluster, first) == [COMPLETED] * 5, outputs(cluster, first)
    assert (folder / "last").exists()
