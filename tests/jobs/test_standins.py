"""The stand-ins, through their command lines, refuse and run the same jobs as PBS and Cobalt."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.standin.cluster import StandIn
from jobs.states import CANCELLED, COMPLETED, DEP_FAIL, FAILED, RUNNING, TIMEOUT, WAITING
from mpi import Result, wait_until

PBS_HEAD = "#PBS -l select=1:ncpus=2:mpiprocs=2\n#PBS -l walltime=1:00:00\n#PBS -j oe\n"
COBALT_HEAD = "#COBALT -n 1\n#COBALT -t 60\n"
UNTIL_GO = "until [ -e go ]; do sleep 0.05; done"
"""A job that ends when the test writes a file in its folder."""


def script(folder: Path, text: str, head: str = PBS_HEAD, name: str = "job.sh") -> Path:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{head}{text}\n")
    path.chmod(0o755)
    return path


def cobalt_script(folder: Path, text: str, more: str = "") -> Path:
    return script(folder, text, COBALT_HEAD + more)


def values(output: str) -> dict[str, str]:
    """Parse the output of env."""
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)


# ---- PBS --------------------------------------------------------------------------------------------------------

PBS_REFUSED = {
    "trailing-comment": ("#PBS -A proj # comment", 1, "directive error"),
    "unknown-resource": ("#PBS -l foo=1", 187, "Unknown resource"),
    "filesystems-with-a-comma": ("#PBS -l filesystems=home,eagle", 187, "Unknown resource eagle"),
    "signal": ("#PBS -l signal=TERM@60", 187, "Unknown resource"),
    "of-cobalt": ("#PBS -n 2 -t 60", 1, "invalid option"),
    "windows-lines": ("#PBS -A proj\r", 1, "script contains cr, lf"),
    "select-and-ncpus": ("#PBS -l ncpus=4", 5, "select"),
    "name-of-two-words": ('#PBS -N "two words"', 2, "illegal -N"),
    "name-of-psij": ('#PBS -N="x"', 2, "illegal -N"),
    "name-with-a-star": ("#PBS -N 1*x", 2, "illegal -N"),
    "walltime-1h": ("#PBS -l walltime=1h", 166, "walltime"),
    "walltime-with-days": ("#PBS -l walltime=1:00:00:00", 166, "walltime"),
    "unknown-queue": ("#PBS -q nosuch", 170, "Unknown queue"),
    "above-the-queue": ("#PBS -q debug\n#PBS -l walltime=1:00:01", 188, "limits"),
    "above-the-default-queue": ("#PBS -l walltime=24:00:01", 188, "limits"),
    "variable-in-select": ("#PBS -l select=${N}:ncpus=4", 166, "select"),
    "continuation": ("#PBS -A proj \\", 1, "directive error"),
    "not-rerunable-array": ("#PBS -J 0-3\n#PBS -r n", 166, "array"),
}


@pytest.mark.parametrize("name", PBS_REFUSED)
def test_pbs_refuses(pbs: StandIn, tmp_path: Path, name: str) -> None:
    lines, code, message = PBS_REFUSED[name]
    before = len(pbs.jobs())
    result = pbs.run("qsub", str(script(tmp_path, "hostname", PBS_HEAD + lines + "\n")), cwd=tmp_path)
    assert (result.returncode, result.stdout) == (code, ""), result
    assert message in result.stderr
    assert len(pbs.jobs()) == before, "it was queued all the same"


PBS_TAKEN = {
    "comments-between": "# why\n\n#PBS -N named",
    "quoted": '#PBS -l "filesystems=home:eagle"\n#PBS -N named',
    "after-a-command": "#PBS -N named\nhostname\n#PBS -N late",
    "only-similar": "#PBS -N named\n# PBS -N late\n#pbs -N late",
    "seconds": "#PBS -l walltime=60\n#PBS -N named",
    "impossible": "#PBS -l select=99:ncpus=1\n#PBS -N named\n#PBS -h",
}


@pytest.mark.parametrize("name", PBS_TAKEN)
def test_pbs_takes(pbs: StandIn, tmp_path: Path, name: str) -> None:
    job = pbs.submit(script(tmp_path, "hostname", PBS_HEAD + PBS_TAKEN[name] + "\n"))
    assert pbs.jobs()[job].name == "named"


def test_pbs_site_makes_options_mandatory(pbs: StandIn, tmp_path: Path) -> None:
    pbs.configure(required=["A", "filesystems"])
    path = script(tmp_path, "hostname")
    assert pbs.run("qsub", str(path), cwd=tmp_path).stderr == "qsub: A is mandatory here\n"
    pbs.submit(path, "-A", "proj", "-l", "filesystems=home")


def test_pbs_command_line_wins(pbs: StandIn, tmp_path: Path) -> None:
    path = script(tmp_path, "sleep 60", PBS_HEAD + "#PBS -N of-script\n#PBS -q workq\n")
    job = pbs.submit(path, "-N", "of-line", "-qdebug", "-l", "walltime=0:30:00")
    shown = pbs.run("qstat", "-f", job).stdout
    for line in ("Job_Name = of-line", "queue = debug", "Resource_List.walltime = 00:30:00"):
        assert f"    {line}\n" in shown, shown


def test_pbs_environment(pbs: StandIn, tmp_path: Path) -> None:
    path = script(tmp_path, "pwd; env; cat $PBS_NODEFILE", PBS_HEAD + "#PBS -v GIVEN,WRITTEN=1\n")
    job = pbs.submit(path, env={"GIVEN": "2", "KEPT_BACK": "3"})
    assert pbs.wait(job) == (COMPLETED, 0), pbs.output(job)
    lines, found = pbs.output(job).splitlines(), values(pbs.output(job))
    assert lines[0] == str(pbs.home), "the shell starts at home"
    assert "KEPT_BACK" not in found, "only what was exported is passed on"
    assert lines[-1] == lines[-2] != "", "a line in the node file for each of mpiprocs"
    expected = {
        "PBS_JOBID": job, "PBS_O_WORKDIR": str(tmp_path), "PBS_QUEUE": "workq", "PBS_ENVIRONMENT": "PBS_BATCH",
        "GIVEN": "2", "WRITTEN": "1", "HOME": str(pbs.home), "PBS_JOBNAME": "job.sh",
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected


def test_pbs_passes_the_whole_environment_on_request(pbs: StandIn, tmp_path: Path) -> None:
    job = pbs.submit(script(tmp_path, "echo $OF_THE_USER"), "-V", env={"OF_THE_USER": "seen"})
    assert pbs.wait(job) == (COMPLETED, 0)
    assert pbs.output(job) == "seen\n"


def test_pbs_runs_a_copy_of_the_script(pbs: StandIn, tmp_path: Path) -> None:
    path = script(tmp_path, "echo first")
    job = pbs.submit(path, "-h")
    script(tmp_path, "echo second")
    assert pbs.state(job) == WAITING
    other = pbs.submit(script(tmp_path, "echo $0; echo third"))
    (tmp_path / "job.sh").unlink()
    assert pbs.wait(other) == (COMPLETED, 0)
    assert pbs.output(other).splitlines()[1] == "third"
    assert not pbs.output(other).startswith(str(tmp_path))


def test_pbs_outputs(pbs: StandIn, tmp_path: Path) -> None:
    both = pbs.submit(script(tmp_path, "echo out; echo err >&2", PBS_HEAD + "#PBS -N both\n"))
    two = pbs.submit(script(tmp_path, "echo out; echo err >&2", "#PBS -N two\n#PBS -l walltime=60\n"))
    assert pbs.wait(both) == pbs.wait(two) == (COMPLETED, 0)
    number = two.partition(".")[0]
    assert (tmp_path / f"both.o{both.partition('.')[0]}").read_text() == "out\nerr\n"
    assert (tmp_path / f"two.o{number}").read_text() == "out\n"
    assert (tmp_path / f"two.e{number}").read_text() == "err\n"


def test_pbs_array(pbs: StandIn, tmp_path: Path) -> None:
    text = "echo $PBS_ARRAY_INDEX $PBS_ARRAY_ID $PBS_JOBID; exit $PBS_ARRAY_INDEX"
    array = pbs.submit(script(tmp_path, text, PBS_HEAD + "#PBS -N many\n#PBS -J 0-4:2%2\n"))
    number = array.partition("[")[0]
    assert array == f"{number}[].standin"
    assert pbs.wait(array) == (FAILED, 2)
    assert pbs.wait(f"{number}[0].standin") == (COMPLETED, 0)
    for index in (0, 2, 4):
        written = (tmp_path / f"many.o{number}.{index}").read_text()
        assert written == f"{index} {array} {number}[{index}].standin\n"


def test_pbs_array_runs_no_more_at_a_time_than_it_may(pbs: StandIn, tmp_path: Path) -> None:
    array = pbs.submit(script(tmp_path, "sleep 60", PBS_HEAD + "#PBS -J 0-3%2\n"))
    wait_until(lambda: [e.state for e in pbs.tasks(array)].count(RUNNING) == 2, "two tasks", 10)
    assert [entry.state for entry in pbs.tasks(array)].count(WAITING) == 2


DEPENDENCIES = {
    ("afterok", 0): COMPLETED,
    ("afterok", 1): CANCELLED,
    ("afternotok", 0): CANCELLED,
    ("afternotok", 1): COMPLETED,
    ("afterany", 1): COMPLETED,
    ("after", 1): COMPLETED,
}


@pytest.mark.parametrize("kind, code", DEPENDENCIES)
def test_pbs_dependencies(pbs: StandIn, tmp_path: Path, kind: str, code: int) -> None:
    first = pbs.submit(script(tmp_path, f"sleep 0.3; exit {code}"))
    then = pbs.submit(script(tmp_path, "hostname"), "-W", f"depend={kind}:{first}")
    last = pbs.submit(script(tmp_path, "hostname"), "-W", f"depend=afterok:{then}")
    assert pbs.wait(then)[0] == DEPENDENCIES[kind, code]
    assert pbs.wait(last)[0] == DEPENDENCIES[kind, code]


def test_pbs_dependency_on_an_array(pbs: StandIn, tmp_path: Path) -> None:
    array = pbs.submit(script(tmp_path, "sleep 0.3; exit $((PBS_ARRAY_INDEX == 1))"), "-J", "0-1")
    job = pbs.submit(script(tmp_path, "hostname"), "-W", f"depend=afterok:{array}")
    assert pbs.wait(array) == (FAILED, 1)
    assert pbs.wait(job)[0] == CANCELLED


def test_pbs_job_that_depends_on_an_unknown_one_ends_at_once(pbs: StandIn, tmp_path: Path) -> None:
    job = pbs.submit(script(tmp_path, "hostname"), "-W", "depend=afterok:999999.standin")
    assert pbs.state(job) == CANCELLED


def test_pbs_without_history_forgets_what_has_ended(pbs: StandIn, tmp_path: Path) -> None:
    path = script(tmp_path, "true")
    first = pbs.submit(path)
    assert pbs.wait(first) == (COMPLETED, 0)
    assert pbs.wait(pbs.submit(path, "-W", f"depend=afterok:{first}")) == (COMPLETED, 0)
    pbs.configure(history=False)
    assert pbs.state(pbs.submit(path, "-W", f"depend=afterok:{first}")) == CANCELLED
    assert pbs.run("qstat", "-x", first).returncode == 153


def test_pbs_qalter_changes_what_a_job_waits_for(pbs: StandIn, tmp_path: Path) -> None:
    first = pbs.submit(script(tmp_path, "sleep 60"))
    second = pbs.submit(script(tmp_path, "sleep 0.5"))
    job = pbs.submit(script(tmp_path, "hostname"), "-W", f"depend=afterok:{first}")
    result = pbs.run("qalter", "-W", f"depend=afterok:{second}", job)
    assert result.returncode == 0, result
    assert pbs.wait(job) == (COMPLETED, 0)
    assert pbs.state(first) == RUNNING
    refused = pbs.run("qalter", "-W", f"depend=afterok:{second}", first)
    assert (refused.returncode, pbs.run("qalter", "-W", "depend=afterok:x", first).returncode) == (167, 2)


def test_pbs_walltime(pbs: StandIn, tmp_path: Path) -> None:
    pbs.configure(scale=0.01, kill_delay=0.5)
    polite = pbs.submit(script(tmp_path, "trap 'echo told; exit 0' TERM; sleep 60 & wait"), "-l", "walltime=60")
    deaf = pbs.submit(script(tmp_path, "trap '' TERM; while true; do sleep 0.1; done"), "-l", "walltime=60")
    assert pbs.wait(polite) == (TIMEOUT, -29)
    assert pbs.output(polite) == "told\n"
    assert pbs.wait(deaf) == (TIMEOUT, -29)


def test_pbs_qdel(pbs: StandIn, tmp_path: Path) -> None:
    running, waiting = pbs.submit(script(tmp_path, "sleep 60")), pbs.submit(script(tmp_path, "sleep 60"), "-h")
    wait_until(lambda: pbs.state(running) == RUNNING, "a job", 10)
    for job in (running, waiting):
        assert pbs.run("qdel", job).returncode == 0
        assert pbs.wait(job, 10)[0] == CANCELLED
    assert pbs.code(running) == 271
    again, unknown = pbs.run("qdel", running), pbs.run("qdel", "999999.standin")
    assert (again.returncode, unknown.returncode) == (35, 153)
    assert unknown.stderr == "qdel: Unknown Job Id 999999.standin\n"


def test_pbs_exit_codes(pbs: StandIn, tmp_path: Path) -> None:
    assert pbs.wait(pbs.submit(script(tmp_path, "exit 75"))) == (FAILED, 75)
    assert pbs.wait(pbs.submit(script(tmp_path, "kill -KILL $$"))) == (FAILED, 256 + 9)


def test_pbs_qstat(pbs: StandIn, tmp_path: Path) -> None:
    held = pbs.submit(script(tmp_path, "hostname", PBS_HEAD + "#PBS -N waits\n"), "-h")
    ended = pbs.submit(script(tmp_path, "exit 3"))
    assert pbs.wait(ended) == (FAILED, 3)
    header, rule, *rows = pbs.run("qstat").stdout.splitlines()
    assert header.split() == ["Job", "id", "Name", "User", "Time", "Use", "S", "Queue"]
    assert set(rule) == {"-", " "}
    assert [(row.split()[0], row.split()[1], *row.split()[-2:]) for row in rows] == [(held, "waits", "H", "workq")]
    full = pbs.run("qstat", "-x", "-f", ended).stdout
    assert full.startswith(f"Job Id: {ended}\n    Job_Name = job.sh\n")
    assert "    job_state = F\n" in full
    assert "    Exit_status = 3\n" in full
    assert pbs.run("qstat", ended).returncode == 35
    assert pbs.run("qstat", "999999").returncode == 153


# ---- Cobalt -----------------------------------------------------------------------------------------------------

COBALT_REFUSED = {
    "of-pbs": ("#COBALT -l walltime=1:00:00\n", 2, "no such option: -l"),
    "array": ("#COBALT -J 0-3\n", 2, "no such option: -J"),
    "no-value": ("#COBALT -q\n", 2, "requires 1 argument"),
    "half-nodes": ("#COBALT -n 1.5\n", 2, "invalid integer value"),
    "no-nodes": ("#COBALT -n 0\n", 1, "above zero"),
    "minutes-with-unit": ("#COBALT -t 60m\n", 1, "invalid time"),
    "time-of-psij": ("#COBALT --time=''\n", 1, "time"),
    "below-5-minutes": ("#COBALT -t 4\n", 1, "Walltime less than minimum"),
    "attributes-twice": ("#COBALT --attrs a=1 --attrs b=2\n", 1, "Multiple --attrs"),
    "attribute-with-two-equals-signs": ("#COBALT --attrs a=b=c\n", 1, "attrs"),
    "no-folder": ("#COBALT -O nosuch/a\n", 1, "does not exist"),
    "unknown-queue": ("#COBALT -q nosuch\n", 1, "queue 'nosuch' does not exist"),
    "above-the-queue": ("#COBALT -q debug -t 61\n", 1, "Walltime greater"),
    "interactive": ("#COBALT -I\n", 1, "interactive"),
}


@pytest.mark.parametrize("name", COBALT_REFUSED)
def test_cobalt_refuses(cobalt: StandIn, tmp_path: Path, name: str) -> None:
    lines, code, message = COBALT_REFUSED[name]
    before = len(cobalt.jobs())
    result = cobalt.run("qsub", str(cobalt_script(tmp_path, "hostname", lines)), cwd=tmp_path)
    assert (result.returncode, result.stdout) == (code, ""), result
    assert message in result.stderr
    assert len(cobalt.jobs()) == before, "it was queued all the same"


def test_cobalt_refuses_two_attributes_of_which_one_is_on_the_command_line(cobalt: StandIn, tmp_path: Path) -> None:
    path = cobalt_script(tmp_path, "hostname", "#COBALT --attrs a=1\n")
    result = cobalt.run("qsub", "--attrs", "b=2", str(path), cwd=tmp_path)
    assert (result.returncode, "Multiple --attrs" in result.stderr) == (1, True), result


@pytest.mark.parametrize("head", ["#COBALT -n 1\n", "#COBALT -t 60\n", "\n" + COBALT_HEAD, "# why\n" + COBALT_HEAD])
def test_cobalt_requires_nodes_and_time_in_its_first_lines(cobalt: StandIn, tmp_path: Path, head: str) -> None:
    result = cobalt.run("qsub", str(script(tmp_path, "hostname", head)), cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, ""), result


def test_cobalt_refuses_what_is_no_executable(cobalt: StandIn, tmp_path: Path) -> None:
    path = cobalt_script(tmp_path, "hostname")
    path.chmod(0o644)
    for name in (path.name, "nosuch.sh", "."):
        result = cobalt.run("qsub", name, cwd=tmp_path)
        assert (result.returncode, "not executable" in result.stderr) == (1, True), result


def test_cobalt_prints_the_id_alone(cobalt: StandIn, tmp_path: Path) -> None:
    result = cobalt.run("qsub", "--dependencies", "999999", str(cobalt_script(tmp_path, "hostname")), cwd=tmp_path)
    assert result.returncode == 0, result
    assert result.stdout.removesuffix("\n").isdecimal()
    assert "WARNING" in result.stderr


def test_cobalt_command_line_wins_but_for_a_trailing_comment(cobalt: StandIn, tmp_path: Path) -> None:
    won = cobalt.submit(cobalt_script(tmp_path, "hostname", "#COBALT --jobname a -h\n"), "--jobname", "b")
    lost = cobalt.submit(cobalt_script(tmp_path, "hostname", "#COBALT -h --jobname a # why\n"), "--jobname", "b")
    assert (cobalt.jobs()[won].name, cobalt.jobs()[lost].name) == ("b", "a")


def test_cobalt_environment(cobalt: StandIn, tmp_path: Path) -> None:
    path = cobalt_script(tmp_path, "pwd; env; echo words: $@; cat $COBALT_NODEFILE", "#COBALT -n 2\n")
    given = r"A=1:B=x\:y\=z"
    result = cobalt.run("qsub", "--env", given, path.name, "two", "words", cwd=tmp_path, env={"KEPT_BACK": "3"})
    job = result.stdout.strip()
    assert cobalt.wait(job) == (COMPLETED, 0), cobalt.output(job)
    lines, found = cobalt.output(job).splitlines(), values(cobalt.output(job))
    assert lines[0] == str(tmp_path), "a job starts where it was submitted"
    assert "KEPT_BACK" not in found, "the environment is a login's"
    assert lines[-3] == "words: two words"
    assert lines[-1] == lines[-2] == found["COBALT_PARTNAME"]
    expected = {"COBALT_JOBID": job, "COBALT_PARTSIZE": "2", "A": "1", "B": "x:y=z", "HOME": str(cobalt.home)}
    assert {name: found.get(name) for name in expected} == expected
    assert int(found["COBALT_ENDTIME"]) - int(found["COBALT_STARTTIME"]) == 3600
    allowed = {*cobalt.login, "USER", "LOGNAME", "SHELL", "A", "B", "PWD", "SHLVL", "_"}
    assert {name for name in found if not name.startswith("COBALT_")} <= allowed


def test_cobalt_runs_the_script_as_it_is_when_the_job_starts(cobalt: StandIn, tmp_path: Path) -> None:
    first = cobalt.submit(cobalt_script(tmp_path, UNTIL_GO).rename(tmp_path / "first.sh"))
    job = cobalt.submit(cobalt_script(tmp_path, "echo as submitted"), "--dependencies", first)
    cobalt_script(tmp_path, "echo as it is now")
    (tmp_path / "go").touch()
    assert cobalt.wait(job) == (COMPLETED, 0)
    assert cobalt.output(job) == "as it is now\n"


def test_cobalt_outputs(cobalt: StandIn, tmp_path: Path) -> None:
    path = cobalt_script(tmp_path, "echo out; echo err >&2")
    job, other = cobalt.submit(path), cobalt.submit(path, "-O", "run-$jobid")
    assert cobalt.wait(job) == cobalt.wait(other) == (COMPLETED, 0)
    for prefix in (job, f"run-{other}"):
        assert (tmp_path / f"{prefix}.output").read_text() == "out\n"
        assert (tmp_path / f"{prefix}.error").read_text() == "err\n"
        assert "exit code of 0" in (tmp_path / f"{prefix}.cobaltlog").read_text()


def test_cobalt_dependencies(cobalt: StandIn, tmp_path: Path) -> None:
    path = cobalt_script(tmp_path, f"{UNTIL_GO}; exit $1")
    well, badly = (cobalt.run("qsub", path.name, code, cwd=tmp_path).stdout.strip() for code in "01")
    after_well = cobalt.submit(path, "--dependencies", well)
    after_both = cobalt.submit(path, "--dependencies", f"{well}:{badly}")
    (tmp_path / "go").touch()
    assert cobalt.wait(after_well) == (COMPLETED, 0)
    assert cobalt.wait(after_both)[0] == DEP_FAIL
    assert cobalt.run("qstat", after_both).stdout.splitlines()[2].split()[4] == "dep_fail", "it stays"
    assert cobalt.run("qdel", after_both).returncode == 0
    assert cobalt.state(after_both) == CANCELLED


@pytest.mark.parametrize("dependency", ["999999", "afterok:1", "1.server"])
def test_cobalt_job_that_depends_on_an_unknown_one_never_runs(cobalt: StandIn, tmp_path: Path, dependency: str) -> None:
    job = cobalt.submit(cobalt_script(tmp_path, "hostname"), "--dependencies", dependency)
    assert cobalt.state(job) == DEP_FAIL


def test_cobalt_job_that_depends_on_one_that_has_ended_well_never_runs(cobalt: StandIn, tmp_path: Path) -> None:
    path = cobalt_script(tmp_path, "hostname")
    first = cobalt.submit(path)
    assert cobalt.wait(first) == (COMPLETED, 0)
    job = cobalt.submit(path, "--dependencies", first)
    assert cobalt.state(job) == DEP_FAIL


def test_cobalt_qalter_changes_what_a_job_waits_for(cobalt: StandIn, tmp_path: Path) -> None:
    slow = cobalt.submit(cobalt_script(tmp_path, "sleep 60").rename(tmp_path / "slow.sh"))
    path = cobalt_script(tmp_path, UNTIL_GO)
    job, lost = cobalt.submit(path, "--dependencies", slow), cobalt.submit(path, "--dependencies", "999999")
    quick = cobalt.submit(path)
    for other in (job, lost):
        assert cobalt.run("qalter", "--dependencies", quick, other).returncode == 0
    (tmp_path / "go").touch()
    assert cobalt.wait(job) == (COMPLETED, 0)
    wait_until(lambda: cobalt.state(lost) == COMPLETED, "a job that was freed", 10)
    assert cobalt.state(slow) == RUNNING
    assert cobalt.run("qalter", "--dependencies", quick, "999999").returncode == 1


def test_cobalt_walltime(cobalt: StandIn, tmp_path: Path) -> None:
    cobalt.configure(scale=0.002, kill_delay=0.5)
    text = {"polite": "trap 'echo told; exit 0' TERM; sleep 60 & wait", "deaf": "trap '' TERM; sleep 60 & wait; wait"}
    paths = {name: cobalt_script(tmp_path, line).rename(tmp_path / name) for name, line in text.items()}
    polite, deaf = (cobalt.submit(path, "-t", "5") for path in paths.values())
    assert cobalt.wait(polite)[0] == TIMEOUT
    assert cobalt.output(polite) == "told\n"
    assert cobalt.wait(deaf) == (TIMEOUT, -9)


@pytest.mark.parametrize("scheduler", ["pbs", "cobalt"])
def test_a_held_job_waits_until_it_is_let_go(request: pytest.FixtureRequest, tmp_path: Path, scheduler: str) -> None:
    cluster: StandIn = request.getfixturevalue(scheduler)
    path = script(tmp_path, "hostname", {"pbs": PBS_HEAD, "cobalt": COBALT_HEAD}[scheduler])
    job, other = cluster.submit(path, "-h"), cluster.submit(path)
    assert cluster.wait(other) == (COMPLETED, 0)
    assert cluster.state(job) == WAITING
    assert cluster.run("qrls", job).returncode == 0
    assert cluster.wait(job) == (COMPLETED, 0)
    assert cluster.run("qrls", job).returncode != 0


def test_cobalt_qstat_and_qdel(cobalt: StandIn, tmp_path: Path) -> None:
    job = cobalt.submit(cobalt_script(tmp_path, "sleep 60"), "-h")
    header, rule, row = cobalt.run("qstat", job).stdout.splitlines()
    assert header.split() == ["JobID", "User", "WallTime", "Nodes", "State", "Location"]
    assert set(rule) == {"="}
    assert (row.split()[0], row.split()[2:5]) == (job, ["01:00:00", "1", "user_hold"])
    assert cobalt.run("qdel", job).returncode == 0
    gone: Result = cobalt.run("qstat", job)
    assert (gone.returncode, gone.stdout) == (1, "")
    assert cobalt.run("qdel", job).returncode == 1
    assert cobalt.run("qdel", "one").returncode == 1


# ---- both -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["pbs", "cobalt"])
def standin(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    yield request.getfixturevalue(request.param)


def test_a_job_leaves_no_process_behind(standin: StandIn, tmp_path: Path) -> None:
    head = {"pbs": PBS_HEAD, "cobalt": COBALT_HEAD}[standin.name]
    job = standin.submit(script(tmp_path, "sleep 60 & echo $!", head))
    assert standin.wait(job) == (COMPLETED, 0)
    pid = standin.output(job).strip()
    wait_until(lambda: not Path("/proc", pid).exists(), "the end of what a script has left", 10)
