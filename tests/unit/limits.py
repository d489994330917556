"""Limits that the kernel sets to this process."""

import contextlib
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def no_file_may_grow() -> Iterator[None]:
    """Let the kernel refuse what extends a file, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
