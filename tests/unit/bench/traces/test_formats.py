"""Reading traces: CSV, strace output, Darshan's DXT, and files that are not traces."""

import pytest

from scimill.bench.params import TraceConfig
from scimill.bench.traces.formats import read_trace
from scimill.bench.traces.recording import record
from scimill.errors import ConfigError, InputError

CSV = "100,150,OPENAT,,,/data/a\n200,290,READ,0,4096,/data/a\n300,310,BIOR,8192,512,\n250,260,READ,4096,100,/data/b\n"
DXT = """\
# DXT, file_id: 16457598720760448348, file_name: /data/test file
# DXT, rank: 0, hostname: node1
# DXT, write_count: 1, read_count: 1
# DXT, mnt_pt: /, fs_type: ext4
# Module    Rank  Wt/Rd  Segment          Offset       Length    Start(s)      End(s)  [OST]
 X_POSIX       0  write        0               0          262144      0.0029      0.0032  [1]
 X_POSIX       0   read        0          262144             100      0.0100      0.0150
 X_MPIIO       0   read        0          262144             100      0.0100      0.0160
"""


def rows(trace):
    columns = (trace.start, trace.end, trace.offset, trace.size)
    kinds = [trace.names[kind] for kind in trace.kind]
    return list(zip(kinds, *(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("header", ["", "start,end,type,offset,bytes,file\n"])
def test_csv(tmp_path, header):
    path = tmp_path / "trace.csv"
    path.write_text(header + CSV)
    trace = read_trace(path)
    assert rows(trace) == [
        ("open", 100, 150, -1, -1), ("read", 200, 290, 0, 4096), ("read", 250, 260, 4096, 100),
        ("block_read", 300, 310, 8192, 512),
    ]  # fmt: skip
    assert trace.file[0] == trace.file[1] != trace.file[2]
    assert trace.file[3] == -1
    assert len(read_trace(path, only="/data/b")) == 1


def test_csv_of_three_columns_in_other_units(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("1.5,2.5,READ\n1.0,1.25,READ\n")
    assert rows(read_trace(path, "ms")) == [("read", 0, 250_000, -1, -1), ("read", 500_000, 1_500_000, -1, -1)]


def test_calls_that_failed_are_dropped(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text(f"1,2,READ,0,{2**63 - 1},/a\n3,4,READ,0,10,/a\n")
    assert len(read_trace(path)) == 1


def test_darshan(tmp_path):
    path = tmp_path / "trace.txt"
    path.write_text("# darshan log version: 3.41\n" + DXT)
    assert rows(read_trace(path)) == [
        ("write", 2_900_000, 3_200_000, 0, 262144), ("read", 10_000_000, 15_000_000, 262144, 100)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not an I/O trace"),
        ("hello\nworld\n", "not an I/O trace"),
        ("\x00\x01\x02", "not an I/O trace"),
        ("# darshan log version: 3.41\nPOSIX\t0\t1\tPOSIX_OPENS\t1\t/a\t/\text4\n", "not an I/O trace"),
        ("start,end,type\n", "the trace holds no operation"),
        ("start,end,type\n1,2,READ\n5,4,READ\n", "operation 2 ends before it starts"),
        ("start,end,type\n1,x,READ\n", "damaged CSV trace"),
        ("start,end,type\n1,2\n", "damaged CSV trace"),
        ("start,end,type\n1,,READ\n", "a line has no start, end or type"),
        ("1,2,READ,0,5,/a\n1,2,READ,0,99999999999999999999999,/a\n", "damaged CSV trace"),
        ('12 1795633526.688021 read(3</a>, ""..., 5) = 5 <0.1>\ngarbage\n', "not a line of strace"),
        (DXT + "X_POSIX 0 garbage\n", "not a row of darshan-dxt-parser"),
    ],
)
def test_a_file_that_is_not_a_trace_is_refused(tmp_path, content, message):
    path = tmp_path / "trace"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4


def test_a_missing_trace_is_reported(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_trace(tmp_path / "none")


def test_without_strace_or_command(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no such command: nothing-of-this-name"):
        record(TraceConfig(), tmp_path / "trace.csv", ("nothing-of-this-name",), overwrite=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="strace is not installed"):
        record(TraceConfig(), tmp_path / "trace.csv", ("true",), overwrite=False)
    assert not any(tmp_path.iterdir())
