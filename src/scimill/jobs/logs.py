"""The output of jobs: where each scheduler puts it, and what has been printed of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

from scimill.jobs.chain import Step
from scimill.jobs.steps import Steps

PATTERNS = {
    # of the files of a job, by its id's number, and its index in an array
    "slurm": ("{name}-{job}.log",),
    "pbs": ("{name}.o{number}", "{name}.o{number}.*"),
    "cobalt": ("{job}.output", "{job}.error"),
    "flux": ("{name}-{job}.log",),
}


class Logs:
    """The output of a step's jobs, printed once.

    Parameters
    ----------
    folder : folder that the jobs were submitted from.

    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._printed: dict[Path, int] = {}

    @property
    def count(self) -> int:
        """Number of files that were found."""
        return len(self._printed)

    def patterns(self, steps: Steps, step: Step) -> Iterator[str]:
        """Yield the patterns of the files of all jobs of a step, those of the first links first."""
        jobs = [job for unit in steps.units(step) for job in (*unit.former, unit.job) if job]
        for job in dict.fromkeys(jobs):
            number = job.partition(".")[0].partition("[")[0]
            for pattern in PATTERNS.get(steps.state.scheduler, ()):
                for name in (step.resources.name, f"{steps.chain.name[:10]}-pack"):
                    yield pattern.format(name=name, job=job, number=number)
            yield from (f"{unit}-{number}.log" for unit in step.units)  # of a packed job

    def print_new(self, steps: Steps, step: Step, report: Callable[[str], None]) -> bool:
        """Print what has been added since the last call, with the name of each file; return whether anything was."""
        paths = [path for pattern in self.patterns(steps, step) for path in sorted(self._folder.glob(pattern))]
        return sum(self._print_file(path, report) for path in dict.fromkeys(paths)) > 0

    def _print_file(self, path: Path, report: Callable[[str], None]) -> int:
        """Print what has been added to a file; return its size in bytes."""
        with path.open("rb") as file:
            file.seek(self._printed.get(path, 0))
            text = file.read()
        if path not in self._printed:
            report(f"== {path.name}")
        self._printed[path] = self._printed.get(path, 0) + len(text)
        if text:
            report(text.decode("utf-8", "replace").removesuffix("\n"))
        return len(text)
