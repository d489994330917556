"""``scimill doctor``: check that this machine can run scimill, by trying it where possible.

Each check returns one `Finding`. A warning means less speed or fewer ranks; a failure means that nothing can be
generated. Without a launcher, the doctor starts two ranks itself; under a launcher, it checks the launcher's ranks.
"""

import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import os
import platform
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from scimill.claim import local_locks, mount
from scimill.errors import ConfigError, ScimillError, StorageError
from scimill.extras import PURPOSES, extras, requirements
from scimill.parallel.partition import share
from scimill.parallel.report import describe_count
from scimill.parallel.world import COLLECTIVE, World, launched, library_version, world
from scimill.plugins import installed
from scimill.version import __version__

TIMEOUT = 20.0  # s after which two ranks, or a tool asked for its version, are considered hung
OLDEST_HDF5 = (1, 10, 7)  # the first version that lets a program choose its file locking
ROUND_TRIP_ROWS = 8192  # per block and rank, of 8 bytes
LONGEST_TEXT = 300  # characters of a message from elsewhere
SETUP = "run scripts/setup.sh"
FAST_VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2", "asimd": "NEON"}

# Releases whose own MPI-IO (ompio) loses data or fails above 2 GiB (open-mpi/ompi issue 6285, openPMD-api issue 446).
# For each release line, the first fixed release; 2.x was never fixed.
OMPIO_FIXED = {(3, 0): 5, (3, 1): 5, (4, 0): 3}

LAUNCH_REMEDIES = (
    # (part of a launcher's message, what to do)
    ("as root", "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1"),
    ("without MPI", f"{SETUP} with a parallel HDF5; until then use one rank"),
    ("two different MPIs", "put the mpirun of the MPI that mpi4py has loaded first on PATH"),
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """Result of a check.

    Parameters
    ----------
    text : the finding in one line.
    remedy : what to do; empty if all is well.
    exit_code : not 0 if nothing can be generated.

    """

    text: str
    remedy: str = ""
    exit_code: int = 0

    @property
    def ok(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.remedy or self.exit_code)

    def describe(self, name: str) -> str:
        """Describe the finding in one line, and what to do in a second one."""
        status = "ok" if self.ok else "failed" if self.exit_code else "warning"
        first = f"{status:<8} {name:<12} {' '.join(self.text.split())[:LONGEST_TEXT]}"
        return f"{first}\n{'':<21} do: {self.remedy}" if self.remedy else first


@dataclasses.dataclass(frozen=True)
class CheckContext:
    """Input of the checks: the ranks, a scratch directory where outputs would go, and two test ranks."""

    ranks: World
    scratch: Path
    two_ranks: "subprocess.Popen[str] | None"


Check = Callable[[CheckContext], Finding]


@click.command()
@click.argument("directory", type=click.Path(path_type=Path), default=".", help="where outputs would go")
@click.option("--round-trip", is_flag=True, hidden=True)
def doctor(directory: Path, round_trip: bool) -> int:
    """Check this machine: versions, MPI, launcher, parallel HDF5 in DIRECTORY, locks, schedulers, containers.

    Warnings leave the exit code at 0; it is 2 or 4 if nothing could be generated.
    """
    ranks = world()
    if round_trip:
        write_and_read(ranks, directory / "round-trip.h5")
        return 0
    with scratch_directory(ranks, directory) as scratch:
        findings = run_checks(ranks, scratch)
    for name, finding in findings.items():
        click.echo(finding.describe(name))
    code = max((finding.exit_code for finding in findings.values()), default=0)
    if code:
        ranks.abort(code)  # skip the interpreter's exit, where HDF5 would retry failed writes
    ranks.barrier()  # if rank 0 has failures to report, it ends the others here
    return 0


def run_checks(ranks: World, scratch: Path) -> dict[str, Finding]:
    """Run all checks; collective. Only rank 0 returns the findings, by name."""
    if ranks.size > 1:
        together = check_launched_ranks(ranks, scratch)
        context = CheckContext(ranks, scratch, None)
        alone = {name: run_check(check, context) for name, check in CHECKS.items() if ranks.is_root}
        return alone | {f"{ranks.size} ranks": together} if ranks.is_root else {}
    two_ranks = start_two_ranks(scratch)  # they work during the other checks
    try:
        context = CheckContext(ranks, scratch, two_ranks)
        return {name: run_check(check, context) for name, check in (CHECKS | {"two ranks": two_ranks_write}).items()}
    finally:
        if two_ranks:
            _terminate(two_ranks)


def run_check(check: Check, context: CheckContext) -> Finding:
    """Run a check; if it cannot be run, return that as its finding."""
    try:
        return check(context)
    except ScimillError as error:
        return Finding(error.what, error.remedy or SETUP, error.exit_code)
    except subprocess.SubprocessError as error:
        return Finding(f"unknown: {error}", "try again when the machine is less busy")
    except (ImportError, OSError, RuntimeError) as error:
        return Finding(f"{type(error).__name__}: {error}", SETUP, ConfigError.exit_code)


@contextmanager
def scratch_directory(ranks: World, directory: Path) -> Iterator[Path]:
    """Make a scratch directory; remove it with its content, even if interrupted. Collective."""
    scratch = ranks.broadcast(directory.resolve() / f".scimill-doctor-{secrets.token_hex(4)}")
    try:
        ranks.on_root(_make_scratch, scratch)
        yield scratch
    finally:
        if ranks.is_root:
            shutil.rmtree(scratch, ignore_errors=True)


def _make_scratch(scratch: Path) -> None:
    try:
        scratch.mkdir(mode=0o700)
    except OSError as error:
        what = f"cannot write to the directory: {error.strerror}"
        remedy = "name the directory for your outputs: scimill doctor DIRECTORY"
        raise StorageError(what, where=str(scratch.parent), remedy=remedy) from None


# ---- software ---------------------------------------------------------------------------------------------------


def versions(_: CheckContext) -> Finding:
    """Compare the installed packages with the versions that scimill works with."""
    needed = requirements("")
    here = {each.name: _installed(each.name) for each in needed}
    shown = "; ".join(f"{name} {here.get(name)}" for name in ("numpy", "numba", "scipy"))
    text = f"{__version__}; Python {platform.python_version()}; {shown}"
    missing = [name for name, version in here.items() if not version]
    if missing:
        return Finding(f"{text}; not installed: {', '.join(missing)}", SETUP, ConfigError.exit_code)
    others = [
        f"{each.name} {here[each.name]}, not {each.specifier}"
        for each in needed
        if not each.specifier.contains(here[each.name], prereleases=True)
    ]
    return Finding("; ".join([text, *others]), f"{SETUP}: it installs versions that were tested" if others else "")


def _installed(package: str) -> str:
    """Return the version of a package without importing it; empty if it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def campaigns(_: CheckContext) -> Finding:
    """List the installed campaigns, other packages with versions, and those that cannot be used."""
    plugins = installed().values()
    names = [plugin.name if plugin.is_own else f"{plugin.name} ({plugin.package})" for plugin in plugins]
    failures = "; ".join(f"{plugin.name} ({plugin.package}): {plugin.failure}" for plugin in plugins if plugin.failure)
    return Finding(f"{', '.join(names)}", f"repair or uninstall {failures}" if failures else "")


def optional_packages(_: CheckContext) -> Finding:
    """Look for the packages of each extra, without importing them."""
    missing = {extra: [name for name in packages if not _installed(name)] for extra, packages in extras().items()}
    present = ", ".join(extra for extra, names in missing.items() if not names)
    remedies = [
        f"for {PURPOSES[extra]}: pip install 'scimill[{extra}]' ({', '.join(names)})"
        for extra, names in missing.items()
        if names
    ]
    return Finding(f"installed: {present or 'none'}", "; ".join([*remedies, SETUP] if remedies else ()))


def kernel_cache(_: CheckContext) -> Finding:
    """Find where numba keeps compiled kernels; it cannot compile without such a place."""
    from numba import njit

    try:
        place = str(njit(cache=True)(_installed).stats.cache_path)
    except RuntimeError as error:
        remedy = "export NUMBA_CACHE_DIR=/a/writable/directory"
        return Finding(str(error), remedy, ConfigError.exit_code)
    return Finding(place)


def horovod(_: CheckContext) -> Finding:
    """Look for Horovod and its compiled part without importing it, which would import torch."""
    version, torch = _installed("horovod"), _installed("torch")
    remedy = f"{SETUP}; without it, networks are trained on one rank only"
    if not version or not torch:
        return Finding("not installed", remedy)
    spec = importlib.util.find_spec("horovod")
    folders = spec.submodule_search_locations if spec else None
    compiled = [file for folder in folders or () for file in Path(folder).glob("torch/mpi_lib*.so")]
    text = f"{version}; torch {torch}"
    return Finding(text) if compiled else Finding(f"{text}; not built for torch", remedy)


# ---- MPI and HDF5 -----------------------------------------------------------------------------------------------


def mpi(context: CheckContext) -> Finding:
    """Name the MPI library that mpi4py loads, and the number of ranks."""
    try:
        library = library_version()
    except (ImportError, RuntimeError) as error:
        return Finding(f"no MPI library loads, so one rank only: {error}", f"load the MPI module, or {SETUP}")
    # `world` has already compared the launcher's number of ranks with the library's.
    text = f"{library}; " + (f"{context.ranks.size} ranks" if launched()[1] > 1 else "one process, no launcher")
    return Finding(text, "" if identify_mpi(library) else "unrecognised MPI: check the first runs closely")


def _library() -> str:
    """Return the name of the MPI library; empty if none loads, which `mpi` reports."""
    try:
        return library_version()
    except (ImportError, RuntimeError):
        return ""


def identify_mpi(text: str) -> str:
    """Return the MPI family of a library or launcher: "Open MPI", "MPICH" (with its derivatives), or empty."""
    signs = {
        "Open MPI": ("Open MPI", "OpenRTE", "PRRTE"),
        "MPICH": ("MPICH", "HYDRA", "Intel(R) MPI", "MVAPICH", "PALS"),
    }
    return next((name for name, words in signs.items() if any(word in text for word in words)), "")


def launcher(_: CheckContext) -> Finding:
    """Check that launchers on PATH fit the library: another MPI's start ranks that see only themselves."""
    answers = {name: _tool_output(name, "--version") for name in ("mpirun", "mpiexec", "srun") if shutil.which(name)}
    if not answers:
        return Finding("none on PATH: one rank only", "load the MPI module, or install MPI's mpirun")
    text = "; ".join(f"{name}: {identify_mpi(answer) or _first_line(answer)}" for name, answer in answers.items())
    ours = identify_mpi(_library())
    others = [name for name, answer in answers.items() if identify_mpi(answer) not in ("", ours)]
    if others and ours:
        remedy = f"put {ours}'s {others[0]} first on PATH, or install scimill with the other MPI"
        return Finding(f"{text}; the library is {ours}", remedy)
    broken = [name for name, answer in answers.items() if "error:" in answer]
    return Finding(text, f"do not use {broken[0]} here, or find out why {broken[0]} --version fails" if broken else "")


def single_mpi_library(_: CheckContext) -> Finding:
    """Check in this process's memory map that h5py has not loaded a second MPI."""
    from scimill.store import hdf5

    _library()
    files = mpi_libraries()
    text = ", ".join(files) or "none"
    if not hdf5.is_parallel():
        return Finding(f"{text}; h5py does not use MPI")
    if len(files) > 1:
        remedy = "build h5py with the MPI that mpi4py loads (scripts/setup.sh), or unset MPI4PY_LIBMPI"
        return Finding(f"h5py and mpi4py use two MPIs: {text}", remedy, ConfigError.exit_code)
    return Finding(f"{text}, used by mpi4py and h5py")


def mpi_libraries() -> list[str]:
    """List the files of all MPI libraries that this process has loaded."""
    library = re.compile(r"/\S*/libp?mpi(?:ch|_cray|_gnu\w*|_intel|_nvidia)?\.so\S*$")
    matches = map(library.search, Path("/proc/self/maps").read_text("utf-8").splitlines())
    return sorted({match[0] for match in matches if match})


def hdf5_library(_: CheckContext) -> Finding:
    """Name HDF5's version, and whether it is parallel."""
    from scimill.store import hdf5

    version = hdf5.library_version()
    text = f"HDF5 {'.'.join(map(str, version))}, h5py {_installed('h5py')}"
    if version < OLDEST_HDF5:
        needed = ".".join(map(str, OLDEST_HDF5))
        return Finding(text, f"build h5py with HDF5 {needed} or newer", ConfigError.exit_code)
    if not hdf5.is_parallel():
        return Finding(f"{text}, without MPI: one rank only", f"{SETUP} with a parallel HDF5")
    return Finding(f"{text}, with MPI")


def mpi_io(context: CheckContext) -> Finding:
    """Name the MPI-IO below HDF5: ROMIO, or Open MPI's own ompio, which is slower and has lost data."""
    library = _library()
    if identify_mpi(library) != "Open MPI":
        return Finding("ROMIO" if identify_mpi(library) else "unknown")
    if context.ranks.size == 1 and not shutil.which("mpirun"):
        return Finding("not checked: no mpirun on PATH, and one rank does not use MPI-IO")
    used, available = mpi_io_components(context.scratch / "mpi-io")
    others = ", ".join(sorted(available - {used}))
    text = f"{used or 'unknown'}" + (f" (also available: {others})" if others else "")
    if not used:
        return Finding(text, "list the components: ompi_info | grep 'MCA io'")
    if used == "ompio" and ompio_loses_data(library):
        remedy = "export OMPI_MCA_io=^ompio, or update Open MPI"
        return Finding(f"{text}, which loses data in {library}", remedy, StorageError.exit_code)
    return Finding(text, "stop preferring ompio: ROMIO writes faster" if used == "ompio" and others else "")


def mpi_io_components(path: Path) -> tuple[str, set[str]]:
    """Return the MPI-IO component that Open MPI uses (empty if unknown), and all available ones.

    Open MPI names them only in its log, and logs until it ends: so a separate process creates a file.
    """
    dropped = ("PMI", "PRTE_", "OMPI_")  # with these, the process would join this one's launcher
    kept = ("OMPI_MCA_io", "OMPI_ALLOW_RUN")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(dropped) or k.startswith(kept)}
    # The same priority as in `world`.
    environment = {"OMPI_MCA_io_ompio_priority": "1"} | environment | {"OMPI_MCA_io_base_verbose": "10"}
    code = "import sys; from scimill.parallel.world import create_striped; create_striped(sys.argv[1], {})"
    log = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False,
    ).stderr  # fmt: skip
    used = re.search(r"Selected io module (\w+)", log)
    return (used[1] if used else ""), set(re.findall(r"component available: (\w+)", log))


def ompio_loses_data(library: str) -> bool:
    """Return whether a release of Open MPI is known to lose data with its own MPI-IO."""
    major, minor, release = (int(part) for part in re.findall(r"(\d+)\.(\d+)\.(\d+)", library)[0])
    return major == 2 or release < OMPIO_FIXED.get((major, minor), 0)


def one_rank_writes(context: CheckContext) -> Finding:
    """Write a store with this process alone, and read it back."""
    write_and_read(World(None), context.scratch / "one-rank.h5")
    return Finding("writes a store and reads it back")


def write_and_read(ranks: World, path: Path) -> None:
    """Write a small store as a campaign does, and verify it; collective.

    Raises
    ------
    ScimillError : as when generating here.

    """
    import numpy as np

    from scimill.parallel.world import Stop
    from scimill.store.layout import Field, Layout
    from scimill.store.output import Output
    from scimill.store.provenance import Provenance
    from scimill.store.writer import BlockData, open_writer

    layout = Layout(ROUND_TRIP_ROWS * ranks.size, ROUND_TRIP_ROWS, (Field("number", "float64", "1", "row number"),))
    output = Output(path, read_back_all=True)
    writer = open_writer(ranks, output, layout, Provenance("doctor", 1, "", 0), lambda _: "", Stop(ranks))
    assert writer is not None  # a new store is not complete
    for block in share(writer.pending, ranks.rank, ranks.size).tolist():
        span = layout.span(block)
        writer.write(block, BlockData({"number": np.arange(span.start, span.stop)}), time.monotonic())
    writer.finish()


def check_launched_ranks(ranks: World, scratch: Path) -> Finding:
    """Write a store with all ranks of the launcher and read it back; collective."""
    try:
        write_and_read(ranks, scratch / "round-trip.h5")
    except ScimillError as error:
        if COLLECTIVE not in getattr(error, "__notes__", ()):
            raise  # the other ranks do not know of it: the job must end
        return Finding(error.what, error.remedy or "see the lines above", error.exit_code)
    return Finding("write one store in parallel and read it back")


def start_two_ranks(scratch: Path) -> "subprocess.Popen[str] | None":
    """Start a parallel write and read on two ranks, if there is a launcher."""
    program = shutil.which("mpirun") or shutil.which("mpiexec")  # not srun, which would queue for an allocation
    if program is None:
        return None
    # Two ranks may share one core: slow, but enough for this check.
    crowded = {"OMPI_MCA_rmaps_base_oversubscribe": "1", "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}
    return subprocess.Popen(
        [program, "-n", "2", sys.executable, "-m", "scimill", "doctor", "--round-trip", str(scratch)],
        env={"OMPI_MCA_mpi_yield_when_idle": "1"} | crowded | os.environ,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def _terminate(process: "subprocess.Popen[str]") -> None:
    """End the two ranks if they are still running; mpirun ends its ranks when it is terminated."""
    if process.poll() is None:
        process.terminate()
        try:
            process.communicate(timeout=3)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def two_ranks_write(context: CheckContext) -> Finding:
    """Wait for the two ranks and report their result."""
    process = context.two_ranks
    if process is None:
        return Finding("not tried: neither mpirun nor mpiexec on PATH", "load the MPI module")
    try:
        _, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return Finding(f"no answer in {TIMEOUT:.0f} s", "try in a job: mpirun -n 2 scimill doctor")
    if process.returncode == 0:
        return Finding("write one store in parallel and read it back")
    remedies = (remedy for sign, remedy in LAUNCH_REMEDIES if sign in errors)
    remedy = next(remedies, "try in a job: mpirun -n 2 scimill doctor")
    return Finding(f"did not write: {_first_line(errors) or f'exit code {process.returncode}'}", remedy)


def _first_line(text: str) -> str:
    """Return the line that says what is wrong: the first error, or else the first line of text."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" -=*")]
    errors = (line for line in lines if re.match(r"scimill: error: |\w+Error: ", line))
    return next(errors, lines[0] if lines else "").removeprefix("scimill: error: ")


def _tool_output(*command: str) -> str:
    """Return the output of a tool, or that it did not answer."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT, check=False, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"no answer ({type(error).__name__})"
    return answer.stdout + answer.stderr


# ---- the directory ----------------------------------------------------------------------------------------------


def file_system(context: CheckContext) -> Finding:
    """Name the directory's file system and its free space."""
    kind, _ = mount(context.scratch)
    free = shutil.disk_usage(context.scratch).free
    text = f"{kind}, {free / 2**30:,.1f} GiB free in {context.scratch.parent}"
    if kind.startswith("nfs"):
        return Finding(text, "NFS is not a parallel file system: use one host, or the scratch file system")
    return Finding(text)


def file_locks(context: CheckContext) -> Finding:
    """Lock a file twice: the second lock must be refused. Where hosts share no locks, a lease replaces them."""
    if reason := local_locks(context.scratch):
        return Finding(f"of this host only ({reason}); scimill takes leases")
    remedy = "scimill takes leases instead: after a killed run, the next one waits for the lease to expire"
    path = context.scratch / "lock"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Finding("work")
    except OSError as error:
        return Finding(f"none: {error.strerror}", remedy)
    finally:
        os.close(first)
        os.close(second)
    return Finding("not exclusive: two locks were granted at once", remedy)


def sparse_files(context: CheckContext) -> Finding:
    """Check that unwritten parts of a file take no space."""
    path, size = context.scratch / "sparse", 1 << 24
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size - 1)
        file.write(b"\1")
        file.flush()
        os.fsync(file.fileno())
    taken = path.stat().st_blocks * 512
    if taken > size // 2:
        return Finding("not supported: the room for rejected samples takes space", "lower weird_capacity")
    return Finding("work")


# ---- the machine ------------------------------------------------------------------------------------------------


def schedulers(_: CheckContext) -> Finding:
    """Name the schedulers whose tools are on PATH. PBS and Cobalt both call theirs qsub."""
    commands = {"sbatch": "Slurm's commands", "flux": "Flux's commands"}
    names = [name for command, name in commands.items() if shutil.which(command)]
    if shutil.which("qsub"):
        names.append(identify_qsub(_tool_output("qsub", "--version")))
    return Finding(", ".join(names) or "none: start runs with mpirun")


def identify_qsub(version: str) -> str:
    """Return the scheduler whose qsub prints this version."""
    signs = {"pbs_version": "PBS", "cobalt": "Cobalt", "slurm": "Slurm's qsub", "torque": "Torque"}
    return next((name for sign, name in signs.items() if sign in version.lower()), "an unknown qsub")


def containers(_: CheckContext) -> Finding:
    """Name the container tools on PATH."""
    names = [name for name in ("apptainer", "singularity") if shutil.which(name)]
    return Finding(", ".join(names) or "none; only jobs in containers need one")


def processor(_: CheckContext) -> Finding:
    """Count the usable cores, and name the widest vectors that kernels are compiled for."""
    model, vectors = model_and_vectors()
    cores = len(os.sched_getaffinity(0))
    text = f"{describe_count(cores, 'core')} of {model}, {vectors or 'no wide vectors'}"
    return Finding(text, "" if vectors else "expect a fifth of the speed of a processor with AVX2")


def model_and_vectors() -> tuple[str, str]:
    """Return the processor's name and the widest vector extension that helps kernels, empty if none."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    about = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = about.get("flags", about.get("features", "")).split()
    vectors = next((name for flag, name in FAST_VECTORS.items() if flag in flags), "")
    return about.get("model name", platform.machine()), vectors


CHECKS: dict[str, Check] = {
    "scimill": versions,
    "campaigns": campaigns,
    "extras": optional_packages,
    "kernel cache": kernel_cache,
    "processor": processor,
    "mpi": mpi,
    "launcher": launcher,
    "libmpi": single_mpi_library,
    "hdf5": hdf5_library,
    "mpi-io": mpi_io,
    "file system": file_system,
    "file locks": file_locks,
    "sparse files": sparse_files,
    "horovod": horovod,
    "scheduler": schedulers,
    "containers": containers,
    "one rank": one_rank_writes,
}
