"""Where ranks look for compiled kernels in numba's cache: all read it, rank 0 alone writes to it.

numba tests each place by writing a file there, for each kernel, and every rank that compiles a kernel stores it: on
10 000 ranks, 10 000 of each. numba imports this module on the other ranks, because `launch` names its classes in
``NUMBA_CACHE_LOCATOR_CLASSES``.
"""

import os
from typing import Any

from numba.core import caching


class _Reading:
    """Takes a place without writing there."""

    def ensure_cache_path(self) -> None:
        """Do nothing: rank 0 makes the place."""


class UserProvided(_Reading, caching.UserProvidedCacheLocator):
    """The folder that ``NUMBA_CACHE_DIR`` names."""


class InTree(caching.InTreeCacheLocator):
    """The folder of the module's own compiled code, if it can be written."""

    def ensure_cache_path(self) -> None:
        """Refuse a folder that rank 0 cannot write to."""
        folder = str(self.get_cache_path())  # type: ignore[no-untyped-call]
        if not os.access(folder, os.W_OK):
            raise PermissionError(folder)


class UserWide(_Reading, caching.UserWideCacheLocator):
    """The user's cache folder."""


def _store_nothing(*_: Any) -> None:
    """Leave the cache as it is."""


caching.FunctionCache.save_overload = _store_nothing  # type: ignore[method-assign]
