"""Messages and progress, on a terminal and in a job log."""

import os
import pty
import re
import termios

import pytest

from scimill.parallel import report
from scimill.parallel.report import Progress, describe_count, describe_numbers, human


def test_numbers_are_listed_up_to_a_limit() -> None:
    assert describe_numbers("block", [7]) == "block 7"
    assert describe_numbers("block", [3, 5000]) == "blocks 3, 5,000"
    assert describe_numbers("block", range(11)) == "blocks 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 1 more"
    assert (describe_count(1, "row"), describe_count(2000, "row")) == ("1 row", "2,000 rows")
    assert describe_count(2, "entry", "entries") == "2 entries"


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 50, "1 PiB"), (1 << 60, "1024 PiB")]
)
def test_sizes_have_readable_units(size: int, text: str) -> None:
    assert human(size) == text


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream, os.fdopen(controller, "rb", buffering=0) as screen:
        termios.tcsetwinsize(terminal, (25, 80))
        monkeypatch.setattr("sys.stderr", stream)
        progress = Progress(200, initial=100, unit="rows", what="make", enabled=True)
        assert not progress.due()  # a moment ago
        progress.update(150)
        progress.close()
        stream.flush()
        os.set_blocking(controller, False)
        shown = b"".join(iter(lambda: screen.read(1000), None)).decode()
    assert re.search(r"make: +50%\|.*100/200", shown), shown
    assert re.search(r"make: +75%\|.*150/200", shown), shown


def test_a_log_gets_lines_and_other_ranks_say_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "LINE_INTERVAL", 0.0)
    for enabled in (True, False):
        progress = Progress(200, unit="rows", what="make", enabled=enabled)
        assert progress.due() == enabled
        progress.update(50)
        progress.close()
    assert re.fullmatch(r"scimill: make:  25% 50\.0/200 \[.* rows/s\]\n", capsys.readouterr().err)
