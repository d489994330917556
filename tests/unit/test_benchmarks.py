"""The benchmarks are listed in the README and by the runner, which runs them and prints one table."""

import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = {path.stem for path in BENCHMARKS.glob("*.py")} - {"run", "harness"}
GOALS = '''"""Compare two numbers."""
import sys, harness
given = harness.parse(__doc__, harness.Option("rows", 100, 7, "rows"))
goals = [harness.Goal("rows", given.rows, most=50), harness.Goal("columns", 1, least=5)]
sys.exit(harness.conclude(goals, {}, given.json))
'''
NEEDS = '"""Compare nothing."""\nimport harness\nharness.parse(__doc__, needs=("sys", "sh", "no.such_package"))\n'
IMPORTS = '"""Compare nothing."""\nimport harness\nimport no_such_package\n'
FAILS = '"""Compare nothing."""\nraise SystemExit(9)\n'
WAITS = '"""Compare nothing."""\nimport time\nprint("begun", flush=True)\ntime.sleep(60)\n'


def python(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the runner but no benchmarks."""
    for name in ("run.py", "harness.py"):
        shutil.copy(BENCHMARKS / name, tmp_path)
    return tmp_path


def test_the_readme_lists_every_script_and_no_other() -> None:
    commands = re.findall(r"^\| `python benchmarks/(\w+)\.py` \|", (BENCHMARKS / "README.md").read_text(), re.M)
    assert sorted(commands) == sorted(SCRIPTS)


def test_help_and_list_name_every_script_and_what_it_compares() -> None:
    for flag in ("--help", "--list"):
        text = python(BENCHMARKS / "run.py", flag).stdout
        assert set(re.findall(r"^(\w+) +Compare ", text, re.M)) == SCRIPTS


def test_an_unknown_benchmark_is_refused() -> None:
    done = python(BENCHMARKS / "run.py", "sky", "skies")
    assert done.returncode == 2
    assert "unknown benchmark: skies; --list shows all" in done.stderr


def test_one_table_of_all_goals(folder: Path) -> None:
    (folder / "counts.py").write_text(GOALS)
    done = python(folder / "run.py", "--quick")
    table = [re.split(r" {2,}", line) for line in done.stdout.splitlines()[-3:]]
    assert table[0] == ["benchmark", "quantity", "measured", "goal", "seconds"]
    assert [row[:-1] for row in table[1:]] == [
        ["counts", "rows", "7", "<= 50", "met"],
        ["counts", "columns", "1", ">= 5", "missed"],
    ]
    assert done.returncode == 0


def test_a_flag_wins_over_quick(folder: Path) -> None:
    (folder / "counts.py").write_text(GOALS)
    assert "rows     60  <= 50  missed" in python(folder / "counts.py", "--quick", "--rows", 60).stdout


def test_a_script_that_fails_makes_the_exit_code_1_and_the_next_one_runs(folder: Path) -> None:
    (folder / "fails.py").write_text(FAILS)
    (folder / "counts.py").write_text(GOALS)
    done = python(folder / "run.py")
    assert done.returncode == 1
    assert re.search(r"^fails +did not run: exit code 9 +failed +\d+$", done.stdout, re.M)
    assert re.search(r"^counts +rows +100 +<= 50 +missed +\d+$", done.stdout, re.M)


@pytest.mark.parametrize(
    ("script", "name"),
    [
        pytest.param(NEEDS, "no.such_package", id="declared"),
        pytest.param(IMPORTS, "no_such_package", id="imported"),
    ],
)
def test_a_missing_package_gives_one_line(folder: Path, script: str, name: str) -> None:
    (folder / "needs.py").write_text(script)
    done = python(folder / "needs.py")
    assert (done.returncode, done.stderr) == (1, f"needs {name}; run scripts/setup.sh --with-benchmarks\n")
    done = python(folder / "needs.py", "--help")
    assert "Compare nothing." in done.stdout
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_the_script_and_prints_the_table_so_far(folder: Path) -> None:
    (folder / "waits.py").write_text(WAITS)
    command = [sys.executable, str(folder / "run.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "begun\n":
            assert process.poll() is None
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=300)
    assert process.returncode == 130
    assert time.monotonic() - started < 30
    assert out.splitlines()[-1].startswith("benchmark")
