"""Traces recorded by a real strace: of threads and children, of a command, and an error on several ranks."""

import subprocess
import sys
import textwrap

import pytest

from mpi import scimill, succeed
from scimill.bench.params import TraceConfig
from scimill.bench.traces.formats import read_trace
from scimill.bench.traces.recording import record, strace_command
from scimill.errors import InputError, StorageError

pytestmark = pytest.mark.needs("strace")


def rows(trace):
    columns = (trace.start, trace.end, trace.offset, trace.size)
    kinds = [trace.names[kind] for kind in trace.kind]
    return list(zip(kinds, *(column.tolist() for column in columns), strict=True))


PROGRAM = """\
import os, threading
file = os.open("DATA", os.O_RDONLY)
os.read(file, 1000)
thread = threading.Thread(target=os.read, args=(file, 500))
thread.start()
thread.join()
child = os.fork()
if child == 0:
    os.lseek(file, 3000, os.SEEK_SET)
    os.read(file, 7)
    os._exit(0)
os.waitpid(child, 0)
os.pread(file, 10, 5)
with open("COPY", "wb", buffering=0) as copy:
    copy.write(b"x" * 77)
    copy.write(b"x" * 3)
os.read(os.open("DATA", os.O_RDONLY), 50)
try:
    os.open("DATA.missing", os.O_RDONLY)
except OSError:
    pass
"""


def test_real_strace_output(tmp_path):
    """Offsets are right across threads, which share a descriptor, and children, which have copies."""
    data, output = tmp_path / "data", tmp_path / "strace.txt"
    data.write_bytes(bytes(5000))
    program = textwrap.dedent(PROGRAM).replace("DATA", str(data)).replace("COPY", str(tmp_path / "copy"))
    subprocess.run([*strace_command(), "-o", output, sys.executable, "-c", program], check=True, timeout=120)
    trace = read_trace(output, only=f"{tmp_path}/*")
    recorded = [(kind, offset, size) for kind, _, _, offset, size in rows(trace)]
    assert recorded == [
        ("open", -1, -1), ("read", 0, 1000), ("read", 1000, 500), ("read", 3000, 7), ("read", 5, 10),
        ("open", -1, -1), ("write", 0, 77), ("write", 77, 3), ("open", -1, -1), ("read", 0, 50),
    ]  # fmt: skip
    assert (trace.end >= trace.start).all()


def test_a_recording(tmp_path):
    """The command's own operations, in order, as CSV that reads back unchanged."""
    output, copy = tmp_path / "trace.csv", tmp_path / "co,py"
    program = f"open({str(copy)!r}, 'wb').write(b'x' * 100_000); open({str(copy)!r}, 'rb', 0).read(70_000)"
    config = TraceConfig(only=f"{tmp_path}/*")
    assert record(config, output, (sys.executable, "-c", program), overwrite=False) == 4
    assert [(kind, *rest[2:]) for kind, *rest in rows(read_trace(output))] == [
        ("open", -1, -1), ("write", 0, 100_000), ("open", -1, -1), ("read", 0, 70_000),
    ]  # fmt: skip
    with pytest.raises(StorageError, match="the output already exists"):
        record(config, output, ("true",), overwrite=False)
    with pytest.raises(InputError, match="the command failed with exit code 7; its trace so far is kept"):
        record(TraceConfig(), output, (sys.executable, "-c", "raise SystemExit(7)"), overwrite=True)
    assert len(read_trace(output)) > 10
    assert [path.name for path in tmp_path.iterdir() if path != copy] == ["trace.csv"]


def test_the_commands(tmp_path):
    """Record twice and compare, as a user does."""
    files = [tmp_path / name for name in ("a.csv", "b.csv")]
    for file in files:
        result = succeed("bench", "trace", file, "--", "cksum", sys.executable)
        assert "operations" in result.stdout
    text = succeed("bench", "similarity", *files, "--plot", tmp_path / "both.png").stdout
    assert float(text.split()[1]) > 0.8
    assert (tmp_path / "both.png").read_bytes()[:4] == b"\x89PNG"
    failed = scimill("bench", "similarity", files[0], tmp_path / "none", ranks=3)
    assert (failed.returncode, len(failed.errors), failed.tracebacks) == (3, 1, 0), failed
