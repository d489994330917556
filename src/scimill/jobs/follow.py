"""Queue a chain one job at a time, for queues that accept no more, and stay until it is complete."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from scimill.errors import ScimillError, Stopped
from scimill.jobs.machine import Machine, complete_resources
from scimill.jobs.parts import CONTINUED
from scimill.jobs.render import Command
from scimill.jobs.schedulers import Unclear
from scimill.jobs.steps import IN_QUEUE, Steps
from scimill.jobs.submit import StepPlan, Submission, make_plans, submit_chain

SHORTEST, LONGEST = 1.0, 60.0  # s between questions to the scheduler; ever longer while nothing changes
GONE = 1  # exit code for a job that ended without recording its own


class StepFailure(ScimillError):
    """A step's command failed and has reported why itself."""

    def __init__(self, what: str, code: int, **details: str) -> None:
        super().__init__(what, **details)
        self.exit_code = code


def needs_one_at_a_time(steps: Steps, machine: Machine) -> bool:
    """Whether a queue that the chain uses takes no more than one job of a user."""
    resources = (complete_resources(step.resources, machine) for step in steps.chain.steps.values())
    names = {name for one in resources for name in one.queues}
    return any(queue.most_jobs == 1 for name, queue in machine.queues.items() if name in names)


def follow(steps: Steps, machine: Machine, commands: Mapping[str, Command], report: Callable[[str], None]) -> None:
    """Queue each job of a chain once the one before has left the queue, until all steps are complete.

    A scheduler that does not answer is asked again.

    Parameters
    ----------
    steps : the chain.
    machine : machine to submit to.
    commands : commands of its steps, by name.
    report : prints a line of progress.

    Raises
    ------
    ConfigError : a step is wrong, or the scheduler refuses it.
    Stopped : interrupted; queued jobs stay.
    StepFailure : a step failed.
    """
    attempts: Counter[str] = Counter()
    trouble = ""
    for pause in pauses():
        before = attempts.total()
        try:
            if _advance(steps, machine, commands, attempts, report):
                return
            trouble = ""
        except Unclear as error:
            if error.what != trouble:
                report(f"{error.what}; asking again")
            trouble = error.what
        if attempts.total() > before:
            pause.restart()


class Pause:
    """The time until the scheduler is asked again: ever longer while nothing changes."""

    def __init__(self) -> None:
        self.seconds = SHORTEST

    def restart(self) -> None:
        """Ask again soon, because something has changed."""
        self.seconds = SHORTEST

    def wait(self) -> None:
        """Wait; the next time is twice as long, up to a limit."""
        time.sleep(self.seconds)
        self.seconds = min(2 * self.seconds, LONGEST)


def pauses() -> Iterator[Pause]:
    """Yield the same pause for ever, and wait after each time.

    Raises
    ------
    Stopped : interrupted.
    """
    pause = Pause()
    try:
        while True:
            yield pause
            pause.wait()
    except KeyboardInterrupt:
        raise Stopped("stopped; queued jobs stay", remedy="run the same command again to continue") from None


def _advance(
    steps: Steps,
    machine: Machine,
    commands: Mapping[str, Command],
    attempts: Counter[str],
    report: Callable[[str], None],
) -> bool:
    """Queue the next job if none is in the queue; return whether the chain is complete."""
    with steps.locked() as lock:
        plans = make_plans(steps, machine, commands)
        if any(plan.condition in IN_QUEUE for plan in plans):
            Submission(steps, machine, lock).release()  # if an earlier command was killed before it did
            return False
        complete = [plan for plan in plans if plan.condition == "complete"]
        due = next((plan for plan in plans if plan.due), None)
        if due is not None:
            _check_attempts(steps, due, attempts)
            one = replace(due, due=due.due[:1])
        queued = submit_chain(steps, machine, complete if due is None else [*complete, one], lock)
    for name, jobs in queued.items():
        report(f"{name:<16} {' '.join(jobs)}")
    return due is None


def _check_attempts(steps: Steps, plan: StepPlan, attempts: Counter[str]) -> None:
    """Count an attempt to run the first due unit of a step; refuse to repeat what failed."""
    name = plan.due[0]
    code = steps.state.unit(name).code
    most = plan.step.resources.links if code == CONTINUED else 1
    if attempts[name] >= most:
        what = f"the job of {name} ended " + (f"with exit code {code}" if code else "without an exit code")
        raise StepFailure(what, code or GONE, remedy="see its log, then run the same command again")
    attempts[name] += 1
