"""Node-hours of a job: an upper bound, and an estimate where the campaign declares a measured rate of its command."""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from scimill.jobs.machine import Machine, complete_resources, ranks_per_node
from scimill.jobs.render import Command
from scimill.jobs.resources import Resources
from scimill.parallel.report import say

TIMEOUT = 60.0  # s for a dry run
TIME = re.compile(r"(?m)^time +about (\S+) core seconds")
"""What `Campaign.describe_time` writes into the plan of a dry run."""


@dataclass(frozen=True)
class Job:
    """A job, or some elements of its array; the name is that of its step, and empty outside a chain."""

    name: str
    command: Command
    resources: Resources
    elements: int


def most_hours(resources: Resources, elements: int = 1) -> float:
    """Return the node-hours that some elements of a job's array may take, without further links."""
    return elements * resources.nodes * resources.walltime / 3600


def estimated_hours(job: Job, machine: Machine) -> float | None:
    """Return the node-hours that a job takes if all its ranks work at the measured rate; None if none is known."""
    seconds = core_seconds(job.command)
    if seconds is None:
        return None
    return job.elements * seconds / ranks_per_node(complete_resources(job.resources, machine), machine) / 3600


def core_seconds(command: Command) -> float | None:
    """Return the core seconds that a command's dry run prints; None if its campaign declares no rate, or it fails."""
    if not command.rate or "dry_run" not in command.options:
        return None
    words = [sys.executable, "-m", "scimill", *command.words[1:], "--dry-run"]
    try:
        ended = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return None
    match = TIME.search(ended.stdout)  # it prints the plan even if it then refuses the output
    return float(match[1]) if match else None


def report(jobs: Sequence[Job], machine: Machine) -> None:
    """Print the node-hours of some jobs in one line: the upper bound, and the estimates."""
    if not jobs:
        return
    text = f"at most {sum(most_hours(job.resources, job.elements) for job in jobs):.4g} node-hours"
    hours = [(job, estimated_hours(job, machine)) for job in jobs]
    known = [(job, number) for job, number in hours if number is not None]
    names = ", ".join(job.name for job, _ in known if job.name)
    rates = "; ".join(dict.fromkeys(job.command.rate for job, _ in known))
    estimate = (
        f"; estimate{f' for {names}' if names else ''}: {sum(number for _, number in known):.2g}, at {rates}"
        if known
        else ""
    )
    say(f"{text}, without further links{estimate}")
