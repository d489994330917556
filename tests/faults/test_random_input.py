"""1 000 random configurations and 1 000 damaged files; fuzz.py runs ten thousand of each."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults import fuzz
from faults.conftest import CASES, SEED


@pytest.mark.parametrize("what", ["configs", "files"])
def test_only_short_messages_and_known_exit_codes(fuzzers: dict[str, subprocess.Popen[str]], what: str) -> None:
    output, _ = fuzzers[what].communicate(timeout=1200)
    assert f"{CASES} {what} with seed {SEED}: 0 wrong" in output, output
    assert fuzzers[what].returncode == 0, output


# ---- the fuzzer sees what it is to see --------------------------------------------------------------------------


def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def raise_an_error() -> None:
    raise RuntimeError("a defect")


def hang() -> None:
    time.sleep(60)


def say_too_much() -> None:
    print("scimill: error: much\n" * 5, file=sys.stderr)
    sys.exit(2)


def say_nothing() -> None:
    sys.exit(3)


def exit_strangely() -> None:
    print("scimill: error: strange", file=sys.stderr)
    sys.exit(17)


COMPLAINTS = {
    crash: "killed by SIGSEGV",
    raise_an_error: "traceback",
    hang: "HANG",
    say_too_much: "message too long",
    say_nothing: "no message",
    exit_strangely: "no such exit code",
}


@pytest.mark.parametrize("defect", COMPLAINTS, ids=lambda defect: defect.__name__)
def test_a_defect_is_found(defect: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scimill.__main__ import launch

    monkeypatch.setattr(fuzz, "LIMIT", 1)
    monkeypatch.setattr(fuzz.__main__, "main", lambda: launch(defect))
    assert COMPLAINTS[defect] in fuzz.complain(fuzz.run(["verify", "x"], tmp_path))
