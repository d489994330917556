"""What is read from the answers of schedulers."""

import pytest

from scimill.jobs.schedulers import SCHEDULERS

SQUEUE = {
    "PENDING Dependency": "waiting",
    "PENDING Resources": "queued",
    "REQUEUE_HOLD None": "queued",
    "SPECIAL_EXIT None": "queued",
    "RUNNING None": "running",
    "SIGNALING None": "running",
    "RESIZING None": "running",
    "STOPPED None": "running",
    "A_STATE_OF_A_LATER_SLURM None": "running",
    "COMPLETED None": None,
    "NODE_FAIL None": None,
    "REVOKED None": None,
}
"""State and reason as squeue prints them, and what that is to us; None: the job is over."""


@pytest.mark.parametrize("answer", SQUEUE)
def test_a_job_of_slurm_is_there_until_it_has_ended(answer: str) -> None:
    expected = SQUEUE[answer]
    assert dict(SCHEDULERS["slurm"].parse(f"17_2 {answer}\n")) == ({"17_2": expected} if expected else {})
