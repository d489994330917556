"""Recording what a command reads and writes, by strace."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scimill.bench.params import TraceConfig
from scimill.bench.traces import CALLS, Strace, read_lines
from scimill.errors import ConfigError, InputError
from scimill.files import check_directory, replacing
from scimill.store.output import Output, check_absent


def record(config: TraceConfig, output: Path, command: Sequence[str], overwrite: bool) -> int:
    """Run a command and write its operations to a CSV trace; return how many they are.

    Raises
    ------
    ConfigError : there is no strace, or no such command.
    InputError : the command failed, or strace may not watch it. What was recorded of a failed command is kept.
    StorageError : the output exists or cannot be written.

    """
    check_directory(output)
    if not overwrite:
        check_absent(Output(output))
    strace = find_strace()
    if shutil.which(command[0]) is None:
        raise ConfigError(f"no such command: {command[0]}", where="what follows --")
    with replacing(output, "trace") as part:
        raw = part.with_name(part.name + ".strace")
        try:
            code = subprocess.run([*strace, "-o", str(raw), "--", *command], check=False).returncode
            events = read_lines(raw, Strace()) if raw.exists() else Strace().events
        finally:
            raw.unlink(missing_ok=True)
        if not events.kind:
            raise InputError(f"strace recorded nothing (exit code {code})", where=command[0], remedy="see above")
        count = events.write(part, config.only)
    if code:
        what = f"the command failed with exit code {code}; what it did until then is kept"
        raise InputError(what, where=" ".join(command), remedy=f"see {output}")
    return count


def find_strace() -> list[str]:
    """Return the strace command line that records what `traces.Strace` reads.

    Raises
    ------
    ConfigError : there is none.

    """
    program = shutil.which("strace")
    if program is None:
        raise ConfigError(
            "strace is not installed", where="PATH", remedy="apt-get install strace, or load its module; any other "
            "tracer will do whose record is CSV start,end,type,offset,bytes,file",
        )  # fmt: skip
    calls = "trace=" + ",".join(f"?{name}" for name in CALLS)
    return [program, "-f", "-ttt", "-T", "-y", "-s", "0", "-e", calls, "-e", "signal=none"]
