"""The command ``scimill``, also ``python -m scimill``."""

import errno
from typing import NoReturn

from scimill.errors import StorageError
from scimill.parallel.world import launch

NAMES_REFUSED = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM)
"""Errors that a path can cause wherever it is looked at; a user's mistake, not a defect."""


def main() -> NoReturn:
    """Run the command line under the guard that ends all ranks together."""
    launch(run)


def run() -> int:
    """Run the command line on this rank; return its exit code."""
    from scimill.cli import scimill

    try:
        return int(scimill.main(prog_name="scimill", standalone_mode=False) or 0)
    except ModuleNotFoundError as error:
        from scimill.extras import explain

        raise explain(error) from None
    except OSError as error:
        if error.errno not in NAMES_REFUSED:
            raise
        raise StorageError((error.strerror or "unusable name").lower(), where=str(error.filename)) from None


if __name__ == "__main__":
    main()
