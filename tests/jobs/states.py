"""States of jobs, in words that all schedulers' are translated to."""

WAITING, RUNNING, COMPLETED, FAILED = "waiting", "running", "completed", "failed"
CANCELLED = "cancelled"
"""Taken away by a user or, with a dependency that can no longer be met, by the scheduler."""
TIMEOUT = "timeout"
DEP_FAIL = "dep_fail"
"""Cobalt: a dependency can no longer be met, and the job stays where it is."""
ENDED = {COMPLETED, FAILED, CANCELLED, TIMEOUT, DEP_FAIL}
