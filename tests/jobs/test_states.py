"""What the schedulers' commands tell of jobs: real answers, failures, silence, and words that nobody knows."""

import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.cluster import Cluster
from jobs.test_chains import MACHINES, cluster, job_ids, quick_start, write_chain
from mpi import Result, scimill
from scimill.jobs import schedulers
from scimill.jobs.schedulers import SCHEDULERS, Answer, query_states

__all__ = ["cluster", "quick_start"]  # fixtures

Program = Callable[..., None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Write a program and let it be the only one of its name on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def write(name: str, output: str = "", error: str = "", code: int = 0, seconds: float = 0.0) -> None:
        path = folder / name
        path.write_text(
            f"#!/bin/sh\n/bin/sleep {seconds}\n/bin/cat <<'END'\n{output}\nEND\n"
            f"/bin/cat >&2 <<'END'\n{error}\nEND\nexit {code}\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return write


def ask(scheduler: str, *jobs: str) -> Answer:
    return query_states(SCHEDULERS[scheduler], dict.fromkeys(jobs, "job.sh"))


# ---- Slurm ------------------------------------------------------------------------------------------------------


LISTED = """\
12|RUNNING|None|/home/me/job.sh
13_0|PENDING|DependencyNeverSatisfied|/home/me/job.sh
13_1|PENDING|(ReqNodeNotAvail, Reserved for maintenance)|/home/me/job.sh 1 2
15|STOPPED|None|/home/me/job.sh
"""


def test_slurm_lists_what_has_not_ended(program: Program) -> None:
    program("squeue", LISTED)
    program("sacct", error="Slurm accounting storage is disabled", code=1)
    assert ask("slurm", "12", "13_0", "13_1", "14", "15") == Answer(
        {"12": "running", "13_0": "stuck", "13_1": "queued", "14": "ended", "15": "running"}, {},
        {"13_0": "DependencyNeverSatisfied", "13_1": "(ReqNodeNotAvail, Reserved for maintenance)"},
    )  # fmt: skip


def test_slurm_s_accounting_contradicts_a_list_that_forgets(program: Program) -> None:
    program("squeue")
    program("sacct", "12|RUNNING\n13|CANCELLED by 1000\n14|COMPLETED")
    answer = ask("slurm", "12", "13", "14", "15")
    assert answer.states == {"13": "ended", "14": "ended", "15": "ended"}
    assert answer.unclear == {"12": "state 'RUNNING (sacct alone)' is unknown"}


def test_a_list_of_another_form_tells_nothing(program: Program) -> None:
    program("squeue", "12|RUNNING|None|/home/me/job.sh\nslurm is busy, try again")
    assert ask("slurm", "13") == Answer({}, {"13": "squeue lists 'slurm is busy, try again'"})


# ---- Flux -------------------------------------------------------------------------------------------------------


def test_flux_names_jobs_that_it_does_not_have(program: Program) -> None:
    """It has purged them after their end; ids are numbers in its answer, whatever the locale."""
    program("flux", "1 RUN\n58 DEPEND\n60 CANCELED\n61 DREAMING", "JobID f7 unknown")
    answer = ask("flux", "f2", "f21", "ƒ23", "f24", "f7", "60")
    assert answer.states == {"f2": "running", "f21": "waiting", "ƒ23": "ended", "f7": "ended", "60": "ended"}
    assert answer.unclear == {"f24": "state 'DREAMING' is unknown"}


def test_a_flux_inside_a_job_does_not_know_the_jobs_outside(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program("flux", error="JobID f7 unknown", code=1)
    assert ask("flux", "f7") == Answer({"f7": "ended"}, {})
    monkeypatch.setenv("FLUX_ENCLOSING_ID", "f3")
    assert ask("flux", "f7") == Answer({}, {"f7": "flux ended with exit code 1: JobID f7 unknown"})


def test_a_flux_that_is_down_tells_nothing(program: Program) -> None:
    program("flux", error="flux-jobs: ERROR: Unable to connect to Flux: broker socket not found", code=1)
    seen = "flux ended with exit code 1: flux-jobs: ERROR: Unable to connect to Flux: broker socket not found"
    assert ask("flux", "f7") == Answer({}, {"f7": seen})


# ---- PBS and Torque ---------------------------------------------------------------------------------------------

SHOWN_BY_PBS = """\
Job Id: 12.pbs-server
    Job_Name = train
    job_state = {}
    comment = Not Running: Insufficient amount of resource: ncpus (R: 64 A: 3
\t2 T: 64)
    Submit_arguments = -h scimill-jobs/a-long-name-that-makes-the-server-continue-th/jo
\tb.sh
"""
WHY = "Not Running: Insufficient amount of resource: ncpus (R: 64 A: 32 T: 64)"


def test_pbs_names_jobs_that_it_does_not_have(program: Program) -> None:
    error = "qstat: Unknown Job Id 13.pbs-server\nqstat: 14[].pbs Job has finished, use -x or -H"
    program("qstat", SHOWN_BY_PBS.format("H"), error, 35)
    answer = ask("pbs", "12.pbs-server", "13.pbs-server", "14[].pbs")
    assert list(answer.states.values()) == ["waiting", "ended", "ended"]
    assert answer.unclear == {}
    assert answer.reasons == {"12.pbs-server": WHY}


def test_torque_words_it_differently(program: Program) -> None:
    program("qstat", error="qstat: Unknown Job Id Error 12.torque", code=153)
    assert ask("pbs", "12.torque").states == {"12.torque": "ended"}


def test_a_job_that_pbs_says_nothing_of_is_unclear(program: Program) -> None:
    program("qstat", SHOWN_BY_PBS.format("R"))
    answer = ask("pbs", "12.pbs", "13.pbs")
    assert answer == Answer({"12.pbs": "running"}, {"13.pbs": "qstat shows no state"})


# ---- Cobalt -----------------------------------------------------------------------------------------------------


def test_cobalt_s_table_and_its_silence(program: Program) -> None:
    table = "JobID  State        Command\n=====\n12     maxrun_hold  /a/job.sh\n13     dep_fail     job.sh"
    program("qstat", table)
    assert ask("cobalt", "12", "13", "14").states == {"12": "queued", "13": "stuck", "14": "ended"}
    program("qstat", code=1)  # none of the jobs is in the queue
    assert ask("cobalt", "12").states == {"12": "ended"}


# ---- all --------------------------------------------------------------------------------------------------------

RUNNING = {"slurm": "RUNNING", "pbs": "R", "cobalt": "running", "flux": "RUN"}
COMMAND = {"slurm": "squeue", "pbs": "qstat", "cobalt": "qstat", "flux": "flux"}
SHOWN = {"slurm": "12|{}|None|job.sh", "pbs": SHOWN_BY_PBS, "cobalt": "12 {} job.sh", "flux": "12 {} job.sh"}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_job_with_the_same_id_and_another_script_is_a_later_one(program: Program, scheduler: str) -> None:
    program(COMMAND[scheduler], SHOWN[scheduler].format(RUNNING[scheduler]).replace("b.sh", "bs.sh"))
    assert ask(scheduler, "12").states == {"12": "ended"}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_word_that_nobody_knows_is_unclear(program: Program, scheduler: str) -> None:
    program(COMMAND[scheduler], SHOWN[scheduler].format("DREAMING"))
    assert ask(scheduler, "12") == Answer({}, {"12": "state 'DREAMING' is unknown"})


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_documented_word_is_read(program: Program, scheduler: str) -> None:
    for word, state in SCHEDULERS[scheduler].words.items():
        shown = f"12|PENDING|{word}|job.sh" if word.startswith("Dependency") else SHOWN[scheduler].format(word)
        program(COMMAND[scheduler], shown)
        assert ask(scheduler, "12").states == {"12": state}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_server_that_is_down_tells_nothing(program: Program, scheduler: str) -> None:
    name = COMMAND[scheduler]
    program(name, error="Connection refused\ncannot connect to the server", code=1)
    seen = f"{name} ended with exit code 1: cannot connect to the server"
    assert ask(scheduler, "12", "13") == Answer({}, {"12": seen, "13": seen})


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_slow_server_and_a_missing_command_tell_nothing(
    program: Program, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = COMMAND[scheduler]
    assert ask(scheduler, "12") == Answer({}, {"12": f"{name}: No such file or directory"})
    monkeypatch.setattr(schedulers, "TIMEOUT", 0.2)
    program(name, SHOWN[scheduler].format("R"), seconds=60)
    assert ask(scheduler, "12") == Answer({}, {"12": f"{name} did not answer within 0.2 s"})


# ---- submitting -------------------------------------------------------------------------------------------------

TWO_STEPS = """
    resources: {walltime: 10min, ranks_per_node: 1}
    steps: {a: {command: sleep 600}, b: {command: touch b, after: a}}
"""


def test_nothing_is_submitted_while_the_scheduler_does_not_tell_the_states(
    cluster: Cluster, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_chain(tmp_path, TWO_STEPS)
    path = cluster.env["PATH"]

    def jobs(*words: str, path: str) -> Result:
        return scimill("jobs", *words, env={**cluster.env, "PATH": path}, cwd=tmp_path)

    submit = ("submit", name, "--machine", MACHINES[cluster.name])
    assert jobs(*submit, path=path).returncode == 0
    before = job_ids(cluster)
    program(COMMAND[cluster.name], error="Connection refused", code=1)
    broken = f"{tmp_path / 'bin'}:{path}"
    refused, shown = jobs(*submit, path=broken), jobs("status", name, path=broken)
    assert (refused.returncode, shown.returncode) == (2, 2)
    for result in (refused, shown):
        assert "did not report the state of job" in result.stderr
        assert "Connection refused" in result.stderr
    assert [line.split()[1] for line in shown.stdout.splitlines()[:2]] == ["unknown", "unknown"]
    assert job_ids(cluster) == before
    again = jobs(*submit, path=path)
    assert again.returncode == 0, again
    assert job_ids(cluster) == before
