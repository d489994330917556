"""Needs of tests, and whether this machine meets them.

A test states a need with a mark, `@pytest.mark.needs("gfortran")`, a fixture with `require("gfortran")`. If the need is
not met, a user's session skips the test and lists it at the end with the reason; a session with CI=true fails.
"""

import fcntl
import functools
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mpi import PEERS

IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
XFS_SIZE = 320 << 20  # bytes; mkfs.xfs refuses less than 300 MiB
GUESTS_MEMORY = 5 << 30  # bytes; the memory of the guests of tests/hosts is a file
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000  # linux/if_tun.h


def require(*needs: str) -> None:
    """Skip this test if the machine does not meet one of the needs; fail it in CI."""
    for need in needs:
        if reason := missing(need):
            (pytest.fail if IN_CI else pytest.skip)(f"needs {need}: {reason}")


@functools.cache
def missing(need: str) -> str:
    """Say why this machine does not meet a need of `NEEDS`; empty if it does."""
    return NEEDS[need]()


# ---- how to find out ----------------------------------------------------------------------------------------------


def programs(*names: str) -> str:
    absent = [name for name in names if not shutil.which(name, path=PATH)]
    return f"{', '.join(absent)} not found on PATH" if absent else ""


def attempt(*command: str | Path) -> str:
    """Run a command; return the first line of its error message, or nothing if it succeeds."""
    try:
        done = subprocess.run(
            command, env={**os.environ, "PATH": PATH}, capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    message = done.stderr.strip() or f"{command[0]} exits with {done.returncode}"
    return message.splitlines()[0] if done.returncode else ""


def root() -> str:
    return "only root may do this" if os.geteuid() else ""


def mounting() -> str:
    """Mount an empty tmpfs; root in a container may not be allowed to."""
    with tempfile.TemporaryDirectory() as folder:
        return root() or attempt("mount", "-t", "tmpfs", "tmpfs", folder) or attempt("umount", folder)


def loop_devices() -> str:
    return attempt("losetup", "--find")


def xfs() -> str:
    """Make an XFS whose files can share blocks, and mount it."""
    with tempfile.TemporaryDirectory() as folder:
        image, disk = Path(folder) / "image", Path(folder) / "disk"
        disk.mkdir()
        with image.open("wb") as file:
            file.truncate(XFS_SIZE)
        lacking = root() or attempt("mkfs.xfs", "-q", "-m", "reflink=1", image)
        return lacking or attempt("mount", "-o", "loop", image, disk) or attempt("umount", disk)


def tun_devices() -> str:
    """Make a TAP device that goes away with its file."""
    try:
        with Path("/dev/net/tun").open("r+b", buffering=0) as device:
            fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"", IFF_TAP | IFF_NO_PI))
    except OSError as error:
        return f"/dev/net/tun: {error.strerror}"
    return ""


def fuse() -> str:
    """Open a connection to a file system that is not mounted yet."""
    try:
        Path("/dev/fuse").open("r+b", buffering=0).close()
    except OSError as error:
        return f"/dev/fuse: {error.strerror}"
    return ""


def hosts() -> str:
    """Look for the guests' programs, memory for the guests, and a network of their own."""
    lacking = root() or programs("ip", "nsenter", "prlimit", "ssh", "ssh-keygen", "mkfs.ext4")
    lacking = lacking or beside_the_environment(PEERS.with_name("hosts"))() or tun_devices()
    if not lacking and shutil.disk_usage("/dev/shm").free < GUESTS_MEMORY:
        lacking = f"less than {GUESTS_MEMORY >> 30} GiB free in /dev/shm"
    return lacking or attempt("unshare", "--net", "true")


def rooms() -> str:
    """Look for what mounts a folder by sshfs, and through a cache of the tests' own."""
    return mounting() or fuse() or beside_the_environment(PEERS.with_name("hosts"))()


def beside_the_environment(folder: Path) -> Callable[[], str]:
    """Look for packages that scripts/setup.sh installs beside the environment."""
    return lambda: "" if folder.is_dir() else f"{folder} does not exist; run scripts/setup.sh --with-tests"


NEEDS: dict[str, Callable[[], str]] = {
    "root": root,
    "mounting": mounting,
    "loop devices": loop_devices,
    "XFS": xfs,
    "tun devices": tun_devices,
    "hosts": hosts,
    "rooms": rooms,
    "apptainer": functools.partial(programs, "apptainer"),
    "building images": lambda: root() or programs("apptainer", "debootstrap"),
    "Slurm": functools.partial(programs, "munged", "slurmctld", "slurmd", "sbatch", "srun"),
    "gfortran": functools.partial(programs, "gfortran"),
    "strace": lambda: programs("strace") or attempt("strace", "-o", os.devnull, "true"),
    "MPICH": beside_the_environment(PEERS / "mpich"),
    "serial HDF5": beside_the_environment(PEERS / "h5py"),
    "TensorFlow": beside_the_environment(PEERS / "tensorflow"),
    "SmartRedis": beside_the_environment(PEERS.with_name("smartredis")),
}
