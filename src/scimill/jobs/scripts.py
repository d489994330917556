"""Scripts of jobs: kept beside the results under new names, and rewritten for the jobs that resume them."""

import re
import secrets
from pathlib import Path
from typing import Literal

from scimill.files import storage_errors
from scimill.jobs.schedulers import SCHEDULERS

RECORDS = "scimill-jobs"
"""Folder for records of jobs, below the folder that a job runs in."""
ARRAY_LOG = re.compile(r"(?m)^(#SBATCH --output=.*)%A_%a")


def reserve_script(name: str) -> Path:
    """Make an empty script with a new name where it is submitted; Cobalt needs it executable.

    Its name tells the job from all others, even from a later one to which the scheduler gives the same id.

    Raises
    ------
    StorageError : it cannot be made.
    """
    path = Path(RECORDS, f"{name}-{secrets.token_hex(5)}.sh")
    with storage_errors(path.resolve(), "writing the script"):
        path.parent.mkdir(exist_ok=True)
        path.touch(0o777, exist_ok=False)
    return path


def write_script(text: str, path: Path) -> None:
    """Write the text of a script.

    Raises
    ------
    StorageError : it cannot be written.
    """
    with storage_errors(path.resolve(), "writing the script"):
        path.write_text(text, "utf-8")


def detach(text: str, *kinds: Literal["array", "after"], **variables: object) -> str:
    """Return a script without its directives of these kinds, and with other values of some of its variables."""
    for scheduler in SCHEDULERS.values():
        for kind in kinds:
            text = re.sub(f"(?m)^({scheduler.directives[kind]})\n", "", text)
    if "array" in kinds:
        text = ARRAY_LOG.sub(r"\1%j", text)
    for name, value in variables.items():
        text = re.sub(rf"(?m)^{name}=.*$", f"{name}={value}", text)
    return text
