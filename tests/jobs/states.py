"""Common names for the job states of all schedulers."""

WAITING, RUNNING, COMPLETED, FAILED = "waiting", "running", "completed", "failed"
CANCELLED = "cancelled"
"""Removed by a user or, if its dependency can no longer be met, by the scheduler."""
TIMEOUT = "timeout"
DEP_FAIL = "dep_fail"
"""Cobalt: a dependency can no longer be met, and the job stays in the queue."""
ENDED = {COMPLETED, FAILED, CANCELLED, TIMEOUT, DEP_FAIL}
