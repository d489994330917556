"""The ways scimill can fail: each class is one kind of failure with its exit code.

A message has at most four lines: what happened, where, what is allowed, what to do. The user never sees a traceback
for any of these; a traceback means a bug in scimill.
"""

from collections.abc import Sequence
from typing import Self


class ScimillError(Exception):
    """Base of all errors that are reported without a traceback.

    Parameters
    ----------
    what : what happened, in one line.
    where : the file, key or flag concerned.
    allowed : what would have been accepted.
    remedy : what the user can do now.

    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", allowed: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.allowed, self.remedy = what, where, allowed, remedy

    def __str__(self) -> str:
        rows = (("where", self.where), ("allowed", self.allowed), ("do", self.remedy))
        details = "".join(f"\n  {name + ':':<9}{_one_line(text)}" for name, text in rows if text)
        return f"scimill: error: {_one_line(self.what)}{details}"

    @classmethod
    def unreadable(cls, what: str, error: OSError, where: object) -> Self:
        """Return the error of an input that the operating system does not read; `what` is what it should be."""
        missing = isinstance(error, FileNotFoundError)
        return cls("no such file" if missing else f"cannot read the {what}: {error.strerror}", where=str(where))


class ConfigError(ScimillError):
    """A parameter, flag or configuration file is wrong."""

    exit_code = 2


class InputError(ScimillError):
    """An input file is missing, damaged or of the wrong kind."""

    exit_code = 3


class NotAnArtifact(InputError):
    """The path is not an artifact of scimill.

    Parameters
    ----------
    where : the path.
    looked_for : the kinds of artifacts that were tried.

    """

    WHAT = "not an artifact of scimill"

    def __init__(self, where: str, looked_for: Sequence[str]) -> None:
        super().__init__(f"{self.WHAT}: looked for {', '.join(f'a {kind}' for kind in looked_for)}", where=where)


class StorageError(ScimillError):
    """The file system refused: full, read-only, locked, or the stored bytes are damaged."""

    exit_code = 4


class NumericalError(ScimillError):
    """The computation cannot give a valid result with these parameters."""

    exit_code = 5


class Stopped(ScimillError):
    """The run stopped between blocks, before the walltime or on a signal; ``--resume`` continues it."""

    exit_code = 75

    def __str__(self) -> str:
        return f"scimill: {_one_line(self.what)}" + (f"\n  do:      {_one_line(self.remedy)}" if self.remedy else "")


def _one_line(text: str, limit: int = 400) -> str:
    """Collapse white space and truncate, so a hostile file name or value cannot flood a job log."""
    folded = " ".join(text.split())
    return folded if len(folded) <= limit else folded[: limit - 1] + "…"
