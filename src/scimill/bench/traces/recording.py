"""Record the reads and writes of a command with strace."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scimill.bench.params import TraceConfig
from scimill.bench.traces.formats import CALLS, Events, Strace, read_lines
from scimill.errors import ConfigError, InputError
from scimill.files import check_directory, replacing
from scimill.store.output import Output, check_absent

INSTALL_STRACE = (
    "install strace (apt-get install strace, or load its module), or use another tracer that writes CSV "
    "start,end,type,offset,bytes,file"
)


def record(config: TraceConfig, output: Path, command: Sequence[str], overwrite: bool) -> int:
    """Run a command and write its operations to a CSV trace; return their number.

    Raises
    ------
    ConfigError : strace is not installed, or there is no such command.
    InputError : the command failed, in which case the trace so far is kept, or strace may not trace it.
    StorageError : the output exists or cannot be written.

    """
    check_directory(output)
    if not overwrite:
        check_absent(Output(output))
    if shutil.which("strace") is None:
        raise ConfigError("strace is not installed", where="PATH", remedy=INSTALL_STRACE)
    if shutil.which(command[0]) is None:
        raise ConfigError(f"no such command: {command[0]}", where="the command after --")
    with replacing(output, "trace") as part:
        raw = part.with_name(f"{part.name}.strace")
        try:
            code, events = trace_command(raw, command)
        finally:
            raw.unlink(missing_ok=True)
        if not events.kind:
            raise InputError(
                f"strace recorded nothing (exit code {code})", where=command[0], remedy="see the messages above"
            )
        count = events.write(part, config.only)
    if code:
        what = f"the command failed with exit code {code}; its trace so far is kept"
        raise InputError(what, where=" ".join(command), remedy=f"see {output}")
    return count


def strace_command() -> list[str]:
    """Return the strace command whose output `Strace` reads."""
    calls = "trace=" + ",".join(f"?{name}" for name in CALLS)
    return ["strace", "-f", "-ttt", "-T", "-y", "-s", "0", "-e", calls, "-e", "signal=none"]


def run_interruptible(words: Sequence[str]) -> int:
    """Run strace and return its exit code; pass Ctrl-C on to the command, so that its trace is kept.

    Both are in a process group of their own: strace does not get the signal, and ends when the command does.
    """
    with subprocess.Popen(words, process_group=0) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                os.killpg(process.pid, signal.SIGINT)


def trace_command(raw: Path, command: Sequence[str]) -> tuple[int, Events]:
    """Run a command under strace; return its exit code and operations."""
    code = run_interruptible([*strace_command(), "-o", str(raw), "--", *command])
    return code, read_lines(raw, Strace()) if raw.exists() else Events()
