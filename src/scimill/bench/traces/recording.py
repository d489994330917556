"""Recording what a command reads and writes, by strace or bpftrace."""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from scimill.bench.params import TraceConfig
from scimill.bench.traces import bpftrace
from scimill.bench.traces.formats import CALLS, Events, Strace, read_lines
from scimill.errors import ConfigError, InputError
from scimill.files import check_directory, replacing
from scimill.store.output import Output, check_absent

TRACERS = ("strace", "bpftrace")
REMEDY = (
    "apt-get install strace, or load its module; or use any tracer that writes CSV start,end,type,offset,bytes,file"
)


def record(config: TraceConfig, output: Path, command: Sequence[str], overwrite: bool) -> int:
    """Run a command and write its operations to a CSV trace; return how many they are.

    Raises
    ------
    ConfigError : there is no tracer, or no such command.
    InputError : the command failed, or the tracer may not watch it. What was recorded of a failed command is kept.
    StorageError : the output exists or cannot be written.

    """
    check_directory(output)
    if not overwrite:
        check_absent(Output(output))
    tracer = find_tracer(config.tracer)
    if shutil.which(command[0]) is None:
        raise ConfigError(f"no such command: {command[0]}", where="what follows --")
    with replacing(output, "trace") as part:
        raw = part.with_name(f"{part.name}.{tracer}")
        try:
            code, events = (by_strace if tracer == "strace" else by_bpftrace)(raw, command)
        finally:
            raw.unlink(missing_ok=True)
        if not events.kind:
            raise InputError(f"{tracer} recorded nothing (exit code {code})", where=command[0], remedy="see above")
        count = events.write(part, config.only)
    if code:
        what = f"the command failed with exit code {code}; what it did until then is kept"
        raise InputError(what, where=" ".join(command), remedy=f"see {output}")
    return count


def find_tracer(wanted: str) -> str:
    """Name the tracer that is there.

    Raises
    ------
    ConfigError : there is none.

    """
    names = TRACERS if wanted == "any" else (wanted,)
    found = [name for name in names if shutil.which(name)]
    if not found:
        what = f"{' and '.join(names)} {'are' if len(names) > 1 else 'is'} not installed"
        raise ConfigError(what, where="PATH", remedy=REMEDY)
    return found[0]


def strace_command() -> list[str]:
    """Return the strace command line that records what `traces.Strace` reads."""
    calls = "trace=" + ",".join(f"?{name}" for name in CALLS)
    return ["strace", "-f", "-ttt", "-T", "-y", "-s", "0", "-e", calls, "-e", "signal=none"]


def run(words: Sequence[str], environment: Mapping[str, str] | None) -> int:
    """Run a tracer and return its exit code; Ctrl-C is passed on to the command, so that what was recorded is kept.

    Both are in a process group of their own: strace does not hear the signal, and ends when the command does.
    """
    with subprocess.Popen(words, env=environment, process_group=0) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                os.killpg(process.pid, signal.SIGINT)


def by_strace(raw: Path, command: Sequence[str]) -> tuple[int, Events]:
    """Run a command under strace; return its exit code and its operations."""
    code = run([*strace_command(), "-o", str(raw), "--", *command], None)
    return code, read_lines(raw, Strace()) if raw.exists() else Events()


def by_bpftrace(raw: Path, command: Sequence[str]) -> tuple[int, Events]:
    """Run a command under bpftrace; return its exit code, bpftrace's own where the command was not run, and operations.

    bpftrace splits its command at spaces and does not report its exit code, so it runs a script that does.
    """
    program = bpftrace.program_for_kernel()
    with tempfile.TemporaryDirectory(prefix="scimill-") as folder:
        script, ended = Path(folder) / "command.sh", Path(folder) / "code"
        script.write_text(f"{shlex.join(command)}\necho $? > {shlex.quote(str(ended))}\n")
        words = ["bpftrace", "-o", str(raw), "-c", f"/bin/sh {script}", "-e", program]
        environment = {**bpftrace.ENVIRONMENT, **os.environ}
        code = run(words, environment)
        code = int(ended.read_text()) if ended.exists() else code
    reader = bpftrace.Bpftrace(Path.cwd())
    if raw.exists():
        reader.read(raw)
    return code, reader.events
