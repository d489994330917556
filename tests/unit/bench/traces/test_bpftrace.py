"""Recording by bpftrace: the program for a kernel, and what bpftrace 0.17 printed of a real run, one line moved."""

import re

import pytest

from scimill.bench.params import TraceConfig
from scimill.bench.traces import bpftrace
from scimill.bench.traces.bpftrace import ENTRIES, Bpftrace, program_for
from scimill.bench.traces.formats import read_trace
from scimill.bench.traces.recording import find_tracer, record
from scimill.errors import ConfigError, InputError

OUTPUT = """\
Attaching 45 probes...
5221 0 6988318447528 task 5227 0 16640
5227 6988318528590 6988318630192 execve 0 0 0 
5227 6988338176702 6988338181870 openat 4 4294967196 524288 /data/file
5227 6988338204073 6988338206166 read 1000 4 0 
5228 6988338397884 6988338400187 read 500 4 0 
5227 0 6988338285075 task 5228 0 4001536
5227 0 6988338656082 task 5229 0 18874368
5229 6988339186949 6988339188621 lseek 3000 4 0 
5229 6988339202172 6988339204014 read 7 4 0 
5227 6988339563264 6988339565908 pread64 10 4 5 
5227 6988339613750 6988339618166 chdir 0 -100 0 /data
5227 6988339656874 6988339692057 openat 5 4294967196 524865 co py
5227 6988339724937 6988339738106 write 77 5 0 
5227 6988339762092 6988339764155 write 3 5 0 
5227 6988339782223 6988339859338 close 0 5 0 
5227 6988339877996 6988339881692 openat 5 4294967196 524288 /data/file
5227 6988339899999 6988339901732 read 50 5 0 
5227 6988339919809 6988339921101 fcntl 6 4 1030 
5227 6988339938417 6988339939278 close 0 4 0 
5227 6988339962293 6988339965498 preadv2 30 6 60 
5227 6988340076825 6988340080360 openat -2 4294967196 524288 /data/file.missing
"""  # noqa: W291  (the path of a call without one)


def told(tmp_path, output):
    """Operations (kind, offset, bytes, file) of an output, in their order."""
    raw = tmp_path / "raw"
    raw.write_text(output)
    reader = Bpftrace(tmp_path)
    reader.read(raw)
    events = reader.events
    return list(zip(events.kind, events.offset, events.size, events.file, strict=True))


def test_the_output_of_a_real_run(tmp_path):
    """Threads share descriptors, children have copies, and lines of two processors do not come in order."""
    assert told(tmp_path, OUTPUT) == [
        ("open", -1, -1, "/data/file"), ("read", 0, 1000, "/data/file"), ("read", 1000, 500, "/data/file"),
        ("read", 3000, 7, "/data/file"), ("read", 5, 10, "/data/file"),
        ("open", -1, -1, "/data/co py"), ("write", 0, 77, "/data/co py"), ("write", 77, 3, "/data/co py"),
        ("open", -1, -1, "/data/file"), ("read", 0, 50, "/data/file"), ("read", 60, 30, "/data/file"),
    ]  # fmt: skip


def test_it_becomes_a_trace(tmp_path):
    raw, output = tmp_path / "raw", tmp_path / "trace.csv"
    raw.write_text(OUTPUT)
    reader = Bpftrace(tmp_path)
    reader.read(raw)
    assert reader.events.write(output, "*/file") == 8
    trace = read_trace(output)
    assert trace.start[0] == 6988338176702
    assert (trace.end - trace.start)[1] == 2093
    assert [trace.names[kind] for kind in trace.kind[:2]] == ["open", "read"]


def test_a_descriptor_is_the_file_that_it_is_at_the_time(tmp_path):
    """Closed at exec, closed and used again by a socket, copied over another one, opened in a directory."""
    assert told(
        tmp_path,
        "7 1 2 openat 3 -100 524288 /kept/not\n7 3 4 openat 4 -100 0 /kept\n7 5 6 execve 0 0 0 \n7 7 8 read 1 3 0 \n"
        "7 9 10 read 2 4 0 \n7 11 12 openat 5 4 0 below\n7 13 14 dup2 1 5 0 \n7 15 16 write 3 1 0 \n"
        "7 17 18 close 0 5 0 \n7 19 20 read 4 5 0 \n7 21 22 dup3 1 9 0 \n7 23 24 write 5 1 0 \n"
        "7 25 26 openat 3 -100 0 here\n7 27 28 openat 3 -100 0 /proc/self/maps\n7 29 30 read 6 3 0 \n",
    ) == [
        ("open", -1, -1, "/kept/not"), ("open", -1, -1, "/kept"), ("read", 0, 2, "/kept"),
        ("open", -1, -1, "/kept/below"), ("write", 0, 3, "/kept/below"), ("open", -1, -1, f"{tmp_path}/here"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("Lost 12 events\n", "bpftrace was too slow: lost 12 events"),
        ("hello\n", "not a line of bpftrace's"),
        ("7 1 2 read one 3 0 \n", "not a line of bpftrace's"),
    ],
)
def test_what_is_no_output_is_told(tmp_path, output, message):
    with pytest.raises(InputError, match=message) as caught:
        told(tmp_path, output)
    assert len(str(caught.value).splitlines()) <= 4


def test_the_program_has_the_calls_that_the_kernel_has(tmp_path, monkeypatch):
    """Those of old that some processors lack are left out; every printf has as many values as places."""
    for name in set(ENTRIES) - {"open", "creat", "dup2"}:
        (tmp_path / "syscalls" / f"sys_enter_{name}").mkdir(parents=True)
    monkeypatch.setattr(bpftrace, "FOLDERS", (tmp_path / "none", tmp_path))
    program = bpftrace.program_for_kernel()
    assert program == program_for([name for name in ENTRIES if name not in ("open", "creat", "dup2")])
    assert "sys_enter_openat " in program
    assert "sys_enter_open " not in program
    for form, values in re.findall(r'printf\("(.*?)", (.*?)\);', program):
        assert form.count("%") == len(values.replace("str(uptr(@path[tid]))", "path").split(","))


def test_without_tracepoints_or_bpftrace(tmp_path, monkeypatch):
    monkeypatch.setattr(bpftrace, "FOLDERS", (tmp_path / "none",))
    with pytest.raises(ConfigError, match="the tracepoints of the kernel cannot be seen"):
        bpftrace.program_for_kernel()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="bpftrace is not installed"):
        record(TraceConfig(tracer="bpftrace"), tmp_path / "trace.csv", ("true",), overwrite=False)
    program = tmp_path / "bpftrace"
    program.write_text("")
    program.chmod(0o755)
    assert find_tracer("any") == "bpftrace"
    (program.with_name("strace")).write_text("")
    program.with_name("strace").chmod(0o755)
    assert find_tracer("any") == "strace"
    assert not (tmp_path / "trace.csv").exists()
