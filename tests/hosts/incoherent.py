"""Ranks of this machine that see one folder through caches of their own, as ranks on two hosts may."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hosts import writeback
from mpi import wait_until

CLIENTS = 2
WRAPPER = """\
#!/bin/bash
# Run a program with the mount of its rank's client at {shared}, for itself alone.
client=$((${{OMPI_COMM_WORLD_RANK:-0}} % {clients}))
exec unshare --mount bash -c 'mount --bind "$1" {shared} && shift && exec "$@"' - {folder}/client-$client "$@"
"""


@dataclass(frozen=True)
class Incoherent:
    """A folder behind mounts that do not see each other's writes in time.

    Attributes
    ----------
    shared : the folder as ranks see it.
    storage : the folder itself, without caches.
    wrapper : a program to put before scimill, under mpirun.
    """

    shared: Path
    storage: Path
    wrapper: Path


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Incoherent]:
    """Mount the folder of an `Incoherent` below `folder`, once for each client."""
    parts = Incoherent(folder / "shared", folder / "storage", folder / "wrapper")
    clients = [folder / f"client-{number}" for number in range(CLIENTS)]
    for directory in (parts.shared, parts.storage, *clients):
        directory.mkdir(parents=True)
    parts.wrapper.write_text(WRAPPER.format(shared=parts.shared, clients=CLIENTS, folder=folder))
    parts.wrapper.chmod(0o755)
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(_mounted(parts.storage, client))
        yield parts


@contextlib.contextmanager
def _mounted(storage: Path, client: Path) -> Iterator[None]:
    command = [sys.executable, writeback.__file__, str(storage), str(client)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: client.is_mount() or process.poll() is not None, f"the mount of {client}")
            assert client.is_mount(), "the file system has ended"
            yield
        finally:
            subprocess.run(["umount", "--lazy", client], check=False)
            process.kill()
