"""Rendered scripts: accepted by their schedulers, sound shell, faithful to hostile words; bad input is refused."""

import functools
import itertools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.directives import cobalt_minutes, pbs_seconds, read_cobalt, read_pbs, read_slurm, slurm_seconds
from mpi import BIN, Result, scimill
from scimill.config import Layer, build
from scimill.jobs.commands import read_command
from scimill.jobs.machine import Machine, Queue, folder, names, read_machine
from scimill.jobs.render import render
from scimill.jobs.resources import Resources

MACHINES = {name: read_machine(str(path)) for name, path in names().items() if path.parent == folder() / "machines"}
GENERIC = ("local", "slurm-generic", "pbs-generic", "cobalt-generic")
COMMANDS = {
    "generate": ("scimill", "droplets", "generate", "droplets.h5", "--count", "1e9"),
    "train": ("scimill", "droplets", "train", "droplets.h5", "--output", "run"),
    "score": ("scimill", "droplets", "score", "run", "droplets.h5"),
    "doctor": ("scimill", "doctor"),
}
CASES: dict[str, dict[str, Any]] = {
    "minimal": {},
    "threads": {"threads_per_rank": 2, "ranks_per_node": 1},
    "gpus": {"gpus_per_node": 1},
    "all-gpus": {"gpus_per_node": "all"},
    "memory": {"memory": "1GiB"},
    "filesystems": {"filesystems": "home,eagle"},
    "after": {"after": "123,124"},
    "mail": {"mail": "someone@example.org"},
    "account": {"account": "proj"},
    "image": {"image": "two words.sif"},
    "image-gpus": {"image": "scimill.sif", "gpus_per_node": 1},
    "array": {"array": "0-9"},
    "array-limited": {"array": "2-9%4"},
    "name": {"name": "a.b_c-d"},
    "longest-name": {"name": "abcdefghijklmno"},
    "many": {
        "memory": "1GB", "account": "proj", "after": "5", "mail": "a@example.org", "name": "many", "image": "a.sif",
    },
}  # fmt: skip
OF_ALL_COMMANDS = ("minimal", "all-gpus", "array", "many")
"""Cases that are rendered for all commands, the others for one that is resumable and one that is not."""


def possible(machine: Machine, case: Mapping[str, Any]) -> bool:
    if "gpus_per_node" in case and not machine.gpus_per_node:
        return False
    if "after" in case and machine.scheduler == "local":
        return False
    limited = "%" in str(case.get("array"))
    return "array" not in case or machine.scheduler in ("slurm", "pbs", *(() if limited else ("cobalt",)))


def resources(machine: Machine, **case: Any) -> Resources:
    """Make resources of a case and of what the machine requires, within the limits of its queue."""
    queue_name = machine.queue or next(iter(machine.queues), None)
    queue = machine.queues.get(queue_name or "", Queue())
    walltime = max(min(1800.0, queue.most_walltime or 1800.0), queue.least_walltime or 0.0)
    required = {"account": "proj", "queue": queue_name or "debug", "filesystems": "home"}
    values = {"nodes": queue.least_nodes, "walltime": f"{walltime:g}s"}
    values |= {name: required[name] for name in machine.requires} | ({"queue": queue_name} if queue_name else {})
    if case.get("gpus_per_node") == "all":
        case["gpus_per_node"] = machine.gpus_per_node
    return build(Resources, [Layer("test", {**values, **case})])


def combinations() -> Iterator[tuple[str, str, str]]:
    for machine, case, command in itertools.product(MACHINES, CASES, COMMANDS):
        if possible(MACHINES[machine], CASES[case]) and (case in OF_ALL_COMMANDS or command in ("generate", "doctor")):
            yield machine, case, command


@functools.cache
def rendered(machine: str, case: str, command: str) -> str:
    return script(MACHINES[machine], COMMANDS[command], **CASES[case])


def script(machine: Machine, words: tuple[str, ...], **case: Any) -> str:
    asked = resources(machine, **case)
    return render(asked, machine, read_command(words, asked))


# ---- what the schedulers read -----------------------------------------------------------------------------------


def read_pbs_job(script: str) -> dict[str, object]:
    reading = read_pbs(script)
    assert reading.problems == [], script
    options = reading.options
    select = options["select"].split(":")
    chunk = dict(item.split("=") for item in select[1:])
    # With mpiprocs the node file would name a host more than once, which PALS does not want: its launcher says it.
    ranks = chunk["mpiprocs"] if "mpiprocs" in chunk else script.partition("--ppn ")[2].split()[0]
    return {
        "nodes": int(select[0]), "ranks": int(ranks), "gpus": int(chunk.get("ngpus", 0)),
        "memory": chunk.get("mem"), "seconds": pbs_seconds(options["walltime"]), "queue": options.get("q"),
        "account": options.get("A"), "name": options["N"], "mail": options.get("M"), "array": options.get("J"),
        "after": options.get("depend", "afterok:").partition("afterok:")[2],
    }  # fmt: skip


def read_slurm_job(script: str) -> dict[str, object]:
    reading = read_slurm(script)
    assert reading.problems == [], script
    options = reading.options
    gpus = options.get("gpus-per-node", "0").rpartition(":")[2]
    queue = options.get("partition", options.get("qos"))  # some sites choose by quality of service
    return {
        "nodes": int(options["nodes"]), "ranks": int(options["ntasks-per-node"]), "gpus": int(gpus),
        "memory": options.get("mem"), "seconds": slurm_seconds(options["time"]), "queue": queue,
        "account": options.get("account"), "name": options["job-name"], "mail": options.get("mail-user"),
        "array": options.get("array"), "after": options.get("dependency", "afterok:").partition("afterok:")[2],
    }  # fmt: skip


def read_cobalt_job(script: str) -> dict[str, object]:
    reading = read_cobalt(script)
    assert reading.problems == [], script
    options = reading.options
    return {
        "nodes": int(options["nodecount"]), "seconds": 60 * (cobalt_minutes(options["time"]) or 0),
        "queue": options.get("queue"), "account": options.get("project"), "name": options["jobname"],
        "mail": options.get("notify"), "after": options.get("dependencies", ""),
    }  # fmt: skip


READERS = {"pbs": read_pbs_job, "slurm": read_slurm_job, "cobalt": read_cobalt_job}
MEMORY = {"pbs": {"1GiB": "1024mb", "1GB": "954mb"}, "slurm": {"1GiB": "1024M", "1GB": "954M"}}


@pytest.mark.parametrize("name, case, command", [it for it in combinations() if MACHINES[it[0]].scheduler in READERS])
def test_a_scheduler_takes_the_script(name: str, case: str, command: str) -> None:
    machine, asked = MACHINES[name], resources(MACHINES[name], **CASES[case])
    job = READERS[machine.scheduler](rendered(name, case, command))
    expected = {
        "nodes": asked.nodes, "gpus": asked.gpus_per_node, "seconds": asked.walltime, "queue": asked.queue,
        "account": asked.account, "name": asked.name, "mail": asked.mail, "array": asked.array,
        "after": ":".join(asked.after), "ranks": asked.ranks_per_node or asked.gpus_per_node or machine.cores_per_node,
        "memory": MEMORY.get(machine.scheduler, {}).get(str(CASES[case].get("memory"))),
    }  # fmt: skip
    assert job == {key: expected[key] for key in job}


FILESYSTEMS = {
    "pbs-generic": "#PBS -l filesystems=home:eagle",
    "cobalt-generic": "#COBALT --attrs filesystems=home,eagle",
}


@pytest.mark.parametrize("name", FILESYSTEMS)
def test_filesystems_are_written_as_their_scheduler_takes_them(name: str) -> None:
    assert FILESYSTEMS[name] in rendered(name, "filesystems", "doctor").splitlines()


# ---- what the shell reads ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of all scripts that differ in more than comments."""
    place = tmp_path_factory.mktemp("scripts")
    bodies: dict[str, str] = {}
    for combination in combinations():
        script = rendered(*combination)
        body = "\n".join(line for line in script.splitlines()[1:] if not line.startswith("#"))
        bodies.setdefault(body, script)
    for number, script in enumerate(bodies.values()):
        (place / f"{number}.sh").write_text(script)
    return [str(path) for path in sorted(place.iterdir())]


def test_bash_parses_all_scripts(scripts: list[str]) -> None:
    quoted = " ".join(shlex.quote(path) for path in scripts)
    checked = subprocess.run(
        ["bash", "-c", f'for file in {quoted}; do bash -n "$file" || echo "$file"; done'],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (checked.stdout, checked.stderr) == ("", "")


def test_shellcheck_finds_nothing(scripts: list[str]) -> None:
    command = [BIN / "shellcheck", "-f", "gcc", *scripts]
    checked = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
    assert checked.returncode == 0, checked.stdout + checked.stderr


# ---- hostile words ----------------------------------------------------------------------------------------------

HOSTILE = (
    "two words", "it's", '"quoted"', "'\"'", "$(touch broken)", "`touch broken`", "$HOME", "${x:?}", "a\nb",
    "\n#PBS -N hostile\n#SBATCH --nodes=9\n#COBALT -n 9\n", "*", "~", "!!", "\\", "a\\nb", ";", "&& false", "|",
    ">broken", "", "--", "#", "{{ 7 * 7 }}", "{% endblock %}", "{#", "tab\there", "Wolkentröpfchen", "%s", "é\u2028",
)  # fmt: skip
STUB = """#!{python}
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
codes = os.environ.get("CODES", "0").split()
with open(os.environ["RECORD"]) as file:
    runs = len(file.readlines())
sys.exit(int(codes[min(runs, len(codes)) - 1]))
"""


class Place:
    """A folder to run scripts in, where launchers write down what they are to start."""

    def __init__(self, folder: Path) -> None:
        self.work, self.record, bin_ = folder / "two 'words' $(x)", folder / "record", folder / "bin"
        self.work.mkdir()
        bin_.mkdir()
        for name in ("mpirun", "srun", "mpiexec"):
            (bin_ / name).write_text(STUB.format(python=sys.executable))
            (bin_ / name).chmod(0o755)
        self.submitted = folder / "submitted"
        for name in ("qsub", "sbatch"):
            # Words with NUL between, as they may hold anything.
            (bin_ / name).write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >'{self.submitted}'\necho 8\n")
            (bin_ / name).chmod(0o755)
        (folder / "nodes").write_text("localhost\n")
        self.env = {
            **os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "RECORD": str(self.record),
            "SLURM_SUBMIT_DIR": str(self.work), "SLURM_JOB_ID": "7", "PBS_O_WORKDIR": str(self.work),
            "PBS_JOBID": "7.server", "PBS_NODEFILE": str(folder / "nodes"), "COBALT_JOBID": "7",
            "COBALT_NODEFILE": str(folder / "nodes"), "COBALT_ENDTIME": "9999999999",
        }  # fmt: skip

    def run(self, script: str, codes: str = "0") -> subprocess.CompletedProcess[str]:
        (self.work / "job.sh").write_text(script)
        (self.work / "job.sh").chmod(0o755)
        return subprocess.run(
            ["bash", "job.sh"], cwd=self.work, env={**self.env, "CODES": codes},
            check=False, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    @property
    def started(self) -> list[list[str]]:
        """Words that each launcher was given."""
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("name", GENERIC)
def test_hostile_words_arrive_unchanged(place: Place, name: str) -> None:
    printed = scimill("jobs", "render", "--machine", name, "--walltime", "1h", "--", "program", *HOSTILE)
    assert (printed.returncode, printed.stderr) == (0, ""), printed
    ran = place.run(printed.stdout)
    assert ran.returncode == 0, ran
    assert [words[-len(HOSTILE) - 1 :] for words in place.started] == [["program", *HOSTILE]]
    assert not (place.work / "broken").exists()


@pytest.mark.parametrize("name", GENERIC[1:])
def test_hostile_words_are_no_directives(name: str) -> None:
    machine = MACHINES[name]
    reader = {"pbs": read_pbs, "slurm": read_slurm, "cobalt": read_cobalt}[machine.scheduler]
    reading = reader(script(machine, ("program", *HOSTILE)))
    assert reading.options == reader(script(machine, ("program",))).options
    assert [problem for problem in reading.problems if not problem.startswith("ignored:")] == []


def test_a_resumable_command_is_told_to_resume_and_its_time(place: Place) -> None:
    command = ("scimill", "droplets", "generate", "two words.h5", "--count", "10")
    ran = place.run(script(MACHINES["local"], command))
    assert ran.returncode == 0, ran
    [words] = place.started
    *words, resume, flag, seconds = words
    assert tuple(words[-len(command) :]) == command
    assert (resume, flag) == ("--resume", "--walltime")
    assert 1790 <= int(seconds.removesuffix("s")) <= 1800


def test_another_command_gets_no_flags_of_ours(place: Place) -> None:
    assert place.run(rendered("local", "minimal", "doctor")).returncode == 0
    assert [words[-2:] for words in place.started] == [["scimill", "doctor"]]


def test_an_image_path_may_hold_blanks_and_quotes(place: Place) -> None:
    image = "an image's $(file).sif"
    (place.work / image).write_text("content")
    machine = MACHINES["local"]
    ran = place.run(script(machine, COMMANDS["doctor"], image=image))
    assert ran.returncode == 0, ran
    [words] = place.started
    assert words[-3:] == [image, "scimill", "doctor"]
    assert words[words.index("--bind") + 1] == str(place.work)
    assert "exec" in words


def test_a_missing_image_is_told_before_anything_runs(place: Place) -> None:
    ran = place.run(rendered("local", "image", "doctor"))
    assert ran.returncode == 3, ran
    assert "there is no image two words.sif" in ran.stderr
    assert place.started == []


def test_the_command_decides_the_exit_code(place: Place) -> None:
    assert place.run(rendered("local", "minimal", "score"), codes="4").returncode == 4


def test_the_script_is_kept_next_to_the_results(place: Place) -> None:
    script = rendered("local", "name", "doctor")
    assert place.run(script).returncode == 0
    [record] = (place.work / "scimill-jobs").iterdir()
    assert record.name.startswith("a.b_c-d-")
    assert (record / "job.sh").read_text() == script
    assert f"RECORD={place.record}" in (record / "environment").read_text().splitlines()


def test_a_chain_goes_on_until_the_command_is_done(place: Place) -> None:
    ran = place.run(rendered("local", "minimal", "generate"), codes="75 75 0")
    assert (ran.returncode, len(place.started)) == (0, 3), ran


def test_a_chain_ends_with_its_last_link(place: Place) -> None:
    machine = MACHINES["local"]
    ran = place.run(script(machine, COMMANDS["generate"], links=2), codes="75")
    assert (ran.returncode, len(place.started)) == (75, 2), ran


HANDED_ON = {
    "slurm-generic": [],
    "pbs-generic": ["-v", "SCIMILL_LINK"],
    "cobalt-generic": ["--env", "SCIMILL_LINK=2"],
}
NEXT = {"slurm-generic": read_slurm, "pbs-generic": read_pbs, "cobalt-generic": read_cobalt}


@pytest.mark.parametrize("name", NEXT)
def test_a_scheduler_gets_the_next_link(place: Place, name: str) -> None:
    ran = place.run(rendered(name, "after", "generate"), codes="75")
    assert ran.returncode == 0, ran
    *arguments, script = place.submitted.read_text().split("\0")[:-1]
    reading = NEXT[name](Path(script).read_text())
    assert reading.problems == []
    handed_on = {
        "slurm-generic": [],
        "pbs-generic": ["-v", "SCIMILL_LINK"],
        "cobalt-generic": ["--env", "SCIMILL_LINK=2"],
    }
    assert [word for word in arguments if word != "--parsable"] == handed_on[name]
    # The jobs before it have ended, and may be forgotten: Cobalt would hold it for ever, PBS and Slurm would drop it.
    assert {"depend", "dependency", "dependencies"} & reading.options.keys() == set()


@pytest.mark.parametrize("name", NEXT)
def test_the_last_link_submits_nothing(place: Place, name: str) -> None:
    last = script(MACHINES[name], COMMANDS["generate"], links=1)
    assert place.run(last, codes="75").returncode == 75
    assert not place.submitted.exists()


# ---- bad input --------------------------------------------------------------------------------------------------

SITE = """\
description: a site with limits
scheduler: slurm
launcher: srun
cores_per_node: 8
memory_per_node: 64GiB
requires: [account, queue]
queues:
  debug: {most_walltime: 1h, most_nodes: 2}
  prod: {least_walltime: 30min, least_nodes: 10}
"""
HOUR = ("--walltime", "1h")
GIVEN = ("--account", "a", "--queue", "debug", *HOUR)
WRONG: dict[str, tuple[str, tuple[object, ...], str]] = {
    "no-machine": ("", HOUR, "missing"),
    "unknown-machine": ("polar", HOUR, "there is no machine 'polar'"),
    "unknown-machine-tells-the-others": ("polar", HOUR, ", ".join(names())),
    "machine-file-missing": ("./gone.yaml", HOUR, "gone.yaml"),
    "no-walltime": ("local", (), "walltime is required"),
    "walltime-without-unit": ("local", ("--walltime", 60), "no duration with a unit"),
    "walltime-in-words": ("local", ("--walltime", "2 hours"), "flag --walltime"),
    "walltime-below-a-minute": ("local", ("--walltime", "59s"), "below a minute"),
    "walltime-0": ("local", ("--walltime", "0h"), "walltime"),
    "walltime-below-cobalts-least": ("cobalt-generic", ("--walltime", "4min"), "at least 00:05:00"),
    "memory-without-unit": ("local", (*HOUR, "--memory", 64), "no size with a unit"),
    "too-many-gpus": ("pbs-generic", (*HOUR, "--gpus-per-node", 5), "at most 4"),
    "gpus-where-there-are-none": ("local", (*HOUR, "--gpus-per-node", 1), "at most 0"),
    "too-many-ranks": ("local", (*HOUR, "--ranks-per-node", 3), "2 cores"),
    "nodes-0": ("local", (*HOUR, "--nodes", 0), "flag --nodes"),
    "name-too-long": ("local", (*HOUR, "--name", "a" * 16), "no name that every scheduler takes"),
    "name-of-two-words": ("local", (*HOUR, "--name", "a b"), "no name that every scheduler takes"),
    "account-with-a-quote": ("pbs-generic", (*HOUR, "--account", 'a"'), "characters that no scheduler takes"),
    "account-with-a-newline": ("pbs-generic", (*HOUR, "--account", "a\nb"), "characters that no scheduler takes"),
    "queue-with-a-variable": ("pbs-generic", (*HOUR, "--queue", "$Q"), "characters that no scheduler takes"),
    "array-upside-down": ("pbs-generic", (*HOUR, "--array", "9-0"), "no array"),
    "array-on-cobalt": ("cobalt-generic", (*HOUR, "--array", "0-3%2"), "Cobalt has no arrays"),
    "array-without-a-scheduler": ("local", (*HOUR, "--array", "0-3"), "--array"),
    "after-without-a-scheduler": ("local", (*HOUR, "--after", "5"), "--after"),
    "array-of-one-on-pbs": ("pbs-generic", (*HOUR, "--array", "3-3"), "--array"),
    "after-a-word-on-cobalt": ("cobalt-generic", (*HOUR, "--after", "first"), "--after"),
    "after-a-word-on-pbs": ("pbs-generic", (*HOUR, "--after", "first"), "--after"),
    "after-a-word-on-slurm": ("slurm-generic", (*HOUR, "--after", "first"), "--after"),
    "account-and-queue-missing": ("site", HOUR, "every job must give --account, --queue"),
    "account-missing": ("site", (*HOUR, "--queue", "debug"), "--account missing"),
    "unknown-queue": ("site", (*GIVEN, "--queue", "long"), "debug, prod"),
    "walltime-above-the-queues": ("site", (*GIVEN, "--walltime", "1:00:01"), "at most 01:00:00"),
    "walltime-below-the-queues": ("site", (*GIVEN, "--queue", "prod", "--walltime", "20min"), "at least 00:30:00"),
    "nodes-above-the-queues": ("site", (*GIVEN, "--nodes", 3), "1 … 2"),
    "nodes-below-the-queues": ("site", (*GIVEN, "--queue", "prod"), "10 …"),
    "memory-above-the-nodes": ("site", (*GIVEN, "--memory", "65GiB"), "at most 64GiB"),
    "scheduler-unknown": ("lsf", HOUR, "scheduler"),
    "key-unknown": ("key", HOUR, "unknown key 'cores'"),
}  # fmt: skip


def assert_refused(result: Result, told: str) -> None:
    assert (result.returncode, result.tracebacks, len(result.errors), result.stdout) == (2, 0, 1, ""), result
    assert len(result.stderr.splitlines()) <= 4, result
    assert told in result.stderr, result


@pytest.fixture
def sites(tmp_path: Path) -> dict[str, str]:
    """Environment in which the user has machines: site, lsf and key."""
    own = tmp_path / "scimill" / "machines"
    own.mkdir(parents=True)
    (own / "site.yaml").write_text(SITE)
    (own / "lsf.yaml").write_text(SITE.replace("scheduler: slurm", "scheduler: lsf"))
    (own / "key.yaml").write_text(SITE.replace("cores_per_node", "cores"))
    return {"XDG_CONFIG_HOME": str(tmp_path)}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_refused(sites: dict[str, str], tmp_path: Path, name: str) -> None:
    machine, flags, told = WRONG[name]
    where = ("--machine", machine) if machine else ()
    # The user's own machines are listed too, so those that scimill brings are looked for where there are no others.
    env = {"XDG_CONFIG_HOME": str(tmp_path / "none")} if machine == "polar" else sites
    assert_refused(scimill("jobs", "render", *where, *flags, "--", "scimill", "doctor", env=env), told)


def test_a_job_of_no_command_is_refused() -> None:
    assert_refused(scimill("jobs", "render", "--machine", "local", *HOUR), "there is no command")


def test_a_users_own_machine_is_taken_by_name_and_by_path(sites: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "scimill" / "machines" / "site.yaml"
    printed = [
        scimill("jobs", "render", "--machine", machine, *GIVEN, "--", "a", env=sites).stdout
        for machine in ("site", path)
    ]
    assert printed[0] == printed[1]
    assert read_slurm(printed[0]).options["partition"] == "debug"


# ---- without the numerical packages; benchmarks/jobs.py tells how quick ---------------------------------------------

HEAVY = ("numpy", "h5py", "mpi4py", "torch", "scipy", "numba", "horovod", "matplotlib")
LIGHT = {
    "help": ("jobs", "--help"),
    "render-help": ("jobs", "render", "--help"),
    "render": ("jobs", "render", "--machine", "local", *HOUR, "--", *COMMANDS["generate"]),
    "machines": ("jobs", "machines"),
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment in which the numerical packages cannot be imported."""
    place = tmp_path_factory.mktemp("bare")
    for name in HEAVY:
        (place / f"{name}.py").write_text(f"raise ImportError('{name} is not here')\n")
    return {"PYTHONPATH": str(place)}


@pytest.mark.parametrize("package", HEAVY)
def test_the_packages_are_really_out_of_reach(bare: dict[str, str], package: str) -> None:
    tried = scimill("-c", f"import {package}", env=bare, program=(sys.executable,))
    assert tried.returncode == 1
    assert f"{package} is not here" in tried.stderr


@pytest.mark.parametrize("name", LIGHT)
def test_jobs_need_no_numerical_packages(bare: dict[str, str], name: str) -> None:
    result = scimill(*LIGHT[name], env=bare)
    assert result.returncode == 0, result
    assert result.stdout
