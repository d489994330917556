"""Rendered scripts: accepted by schedulers, valid shell, correct with hostile words; bad input is refused."""

import dataclasses
import functools
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.directives import cobalt_minutes, pbs_seconds, read_cobalt, read_flux, read_pbs, read_slurm, slurm_seconds
from jobs.pairs import Row, all_pairs, cover_pairs, pairs_of
from mpi import BIN, Result, scimill
from scimill.config import Layer, build
from scimill.errors import ConfigError
from scimill.jobs.commands import read_command
from scimill.jobs.machine import Machine, Queue, folder, names, read_machine
from scimill.jobs.render import render
from scimill.jobs.resources import Resources

MACHINES = {name: read_machine(str(path)) for name, path in names().items() if path.parent == folder() / "machines"}
GENERIC = ("local", "slurm-generic", "pbs-generic", "cobalt-generic", "torque-generic", "flux-generic")
COMMANDS = {
    "generate": ("scimill", "droplets", "generate", "droplets.h5", "--count", "1e9"),
    "train": ("scimill", "droplets", "train", "droplets.h5", "--output", "run"),
    "score": ("scimill", "droplets", "score", "run", "droplets.h5"),
    "doctor": ("scimill", "doctor"),
}
AXES: dict[str, dict[str, dict[str, Any]]] = {
    # axis: {value: resources}; the value without a name is the default
    "threads": {"": {}, "two-threads": {"threads_per_rank": 2, "ranks_per_node": 1}},
    "gpus": {"": {}, "gpu": {"gpus_per_node": 1}, "all-gpus": {"gpus_per_node": "all"}},
    "memory": {"": {}, "1GiB": {"memory": "1GiB"}, "1GB": {"memory": "1GB"}},
    "disk": {"": {}, "disk": {"local_disk": "1GiB"}},
    "filesystems": {"": {}, "filesystems": {"filesystems": "home,eagle"}},
    "after": {"": {}, "after-one": {"after": "5"}, "after-two": {"after": "123,124"}},
    "mail": {"": {}, "mail": {"mail": "someone@example.org"}},
    "account": {"": {}, "account": {"account": "proj"}},
    "image": {"": {}, "image": {"image": "two words.sif"}, "plain-image": {"image": "scimill.sif"}},
    "array": {"": {}, "array": {"array": "0-9"}, "array-limited": {"array": "2-9%4"}, "list": {"array": "1,3-9:3"}},
    "name": {"": {}, "a.b_c-d": {"name": "a.b_c-d"}, "longest-name": {"name": "abcdefghijklmno"}},
}
VALUES = {"machine": [*MACHINES], "command": [*COMMANDS], **{axis: [*values] for axis, values in AXES.items()}}


def is_possible(row: Row) -> bool:
    """Return whether a machine (by default, any) can have these values together."""
    if "machine" not in row:
        return any(is_possible({"machine": machine, **row}) for machine in MACHINES)
    machine = MACHINES[row["machine"]]
    arrays = {
        "slurm": ("array", "array-limited", "list"), "pbs": ("array", "array-limited"),
        "cobalt": ("array", "list"), "flux": ("array", "list"),
    }  # fmt: skip
    return (
        (not row.get("gpus") or machine.gpus_per_node > 0)
        and (not row.get("after") or machine.scheduler != "local")
        and (not row.get("array") or (row["array"] in arrays.get(machine.scheduler, ()) and not is_torque(machine)))
        and (not row.get("filesystems") or (machine.pbs_dialect == "select" and machine.scheduler != "flux"))
        and not (machine.scheduler == "flux" and (row.get("memory") or row.get("mail")))
        and (not row.get("disk") or machine.scheduler in ("slurm", "local") or machine.pbs_dialect == "nci")
    )


def is_torque(machine: Machine) -> bool:
    return machine.pbs_dialect == "torque"


ROWS = {"-".join(filter(None, row.values())): row for row in cover_pairs(VALUES, is_possible)}
"""Rows that contain every possible pair of two values, by name."""


def case(row: Row) -> dict[str, Any]:
    """Return the resources that a row requests."""
    return {name: value for axis, values in AXES.items() for name, value in values[row[axis]].items()}


def test_every_possible_pair_of_values_is_rendered() -> None:
    found = set().union(*map(pairs_of, ROWS.values()))
    missing = [row for row in all_pairs(VALUES) if not pairs_of(row) <= found]
    lists = {name for name, machine in MACHINES.items() if machine.scheduler == "pbs"}
    no_disk = {name for name in lists if MACHINES[name].pbs_dialect != "nci"}
    no_disk |= {"cobalt-generic", "thetagpu", "flux-generic"}
    axes = ("gpus", "after", "array", "filesystems", "disk", "memory", "mail")
    machines = {axis: {row["machine"] for row in missing if axis in row and "machine" in row} for axis in axes}
    assert machines == {
        "gpus": {"archer2", "cirrus", "crux", "derecho", "gadi", "leonardo-dcgp", "local", "lumi-c", "perlmutter"},
        "after": {"local"},
        "array": {"local", "cobalt-generic", "thetagpu", "flux-generic", *lists},
        "filesystems": {"torque-generic", "gadi", "gadi-gpu", "flux-generic"},
        "memory": {"flux-generic"},
        "mail": {"flux-generic"},
        "disk": no_disk,
    }  # fmt: skip
    # No GPUs; after and array of local; Cobalt and Flux lack the limit of an array, PBS lists; Torque and NCI; Flux.
    assert len(missing) == 9 * 2 + 2 + 3 + 3 + len(lists) + 2 + 3 + len(no_disk) + 4


def resources(machine: Machine, **case: Any) -> Resources:
    """Make resources from a case and the machine's requirements, within the limits of its queue."""
    queue_name = machine.queue or next(iter(machine.queues), None)
    queue = machine.queues.get(queue_name or "", Queue())
    walltime = max(min(1800.0, queue.most_walltime or 1800.0), queue.least_walltime or 0.0)
    required = {"account": "proj", "queue": queue_name or "debug", "filesystems": "home", "memory": "2GiB"}
    values = {"nodes": queue.least_nodes, "walltime": f"{walltime:g}s"}
    values |= {name: required[name] for name in machine.requires} | ({"queue": queue_name} if queue_name else {})
    if case.get("gpus_per_node") == "all":
        case["gpus_per_node"] = machine.gpus_per_node
    return build(Resources, [Layer("test", {**values, **case})])


@functools.cache
def rendered(name: str) -> str:
    """Render the script of a row."""
    return script(MACHINES[ROWS[name]["machine"]], COMMANDS[ROWS[name]["command"]], **case(ROWS[name]))


def script(machine: Machine, words: tuple[str, ...], **case: Any) -> str:
    requested = resources(machine, **case)
    return render(requested, machine, read_command(words, requested))


# ---- what the schedulers read -----------------------------------------------------------------------------------


def read_pbs_job(script: str) -> dict[str, object]:
    return read_pbs_nodes(script) | read_pbs_rest(read_pbs(script).options)


def read_torque_job(script: str) -> dict[str, object]:
    reading = read_pbs(script, dialect="torque")
    assert reading.problems == [], script
    count, *parts = reading.options["nodes"].split(":")
    gpus = dict(part.split("=") for part in parts).get("gpus", 0)
    nodes = {"nodes": int(count), "gpus": int(gpus), "memory": reading.options.get("mem"), "ranks": ranks_of(script)}
    return nodes | read_pbs_rest(reading.options)


def read_nci_job(script: str) -> dict[str, object]:
    """Read a job of one node, whose totals are those of the node."""
    reading = read_pbs(script, dialect="nci")
    assert reading.problems == [], script
    options = reading.options
    found = {"gpus": int(options.get("ngpus", 0)), "memory": options["mem"], "disk": options.get("jobfs")}
    rest = read_pbs_rest(options) | {"account": options["P"]}
    return found | {"ranks": ranks_of(script)} | rest


def ranks_of(script: str) -> int:
    return int(script.partition("--map-by ppr:")[2].split(":")[0])


def read_pbs_nodes(script: str) -> dict[str, object]:
    reading = read_pbs(script)
    assert reading.problems == [], script
    select = reading.options["select"].split(":")
    chunk = dict(item.split("=") for item in select[1:])
    # With mpiprocs the node file would name a host more than once, which PALS does not want: its launcher says it.
    ranks = chunk["mpiprocs"] if "mpiprocs" in chunk else script.partition("--ppn ")[2].split()[0]
    gpus = int(chunk.get("ngpus", 0))
    return {"nodes": int(select[0]), "ranks": int(ranks), "gpus": gpus, "memory": chunk.get("mem")}


def read_pbs_rest(options: Mapping[str, str]) -> dict[str, object]:
    return {
        "seconds": pbs_seconds(options["walltime"]), "queue": options.get("q"),
        "account": options.get("A"), "name": options["N"], "mail": options.get("M"), "array": options.get("J"),
        "after": options.get("depend", "afterok:").partition("afterok:")[2],
    }  # fmt: skip


def read_slurm_job(script: str) -> dict[str, object]:
    reading = read_slurm(script)
    assert reading.problems == [], script
    options = reading.options
    gpus = options.get("gpus-per-node", "0").rpartition(":")[2]
    queue = options.get("qos", options.get("partition"))  # some sites choose by quality of service
    return {
        "nodes": int(options["nodes"]), "ranks": int(options["ntasks-per-node"]), "gpus": int(gpus),
        "memory": options.get("mem"), "seconds": slurm_seconds(options["time"]), "queue": queue,
        "account": options.get("account"), "name": options["job-name"], "mail": options.get("mail-user"),
        "disk": options.get("tmp"),
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


def read_flux_job(script: str) -> dict[str, object]:
    reading = read_flux(script)
    assert reading.problems == [], script
    options = reading.options
    nodes, ranks = int(options["nodes"]), int(script.partition("--ntasks=")[2].split()[0])
    return {
        "nodes": nodes, "ranks": ranks // nodes, "gpus": int(options.get("gpus-per-slot", 0)),
        "seconds": int(options["time-limit"].removesuffix("s")), "queue": options.get("queue"),
        "account": options.get("bank"), "name": options["job-name"],
        "after": options.get("dependency", "").replace("afterok:", "").replace(",", ":"),
    }  # fmt: skip


READERS = {"pbs": read_pbs_job, "slurm": read_slurm_job, "cobalt": read_cobalt_job, "flux": read_flux_job}
DIALECTS = {"torque": read_torque_job, "nci": read_nci_job}
MEMORY = {"pbs": {"1GiB": "1024mb", "1GB": "954mb"}, "slurm": {"1GiB": "1024M", "1GB": "954M"}}


def read_job(machine: Machine, script: str) -> dict[str, object]:
    return DIALECTS.get(machine.pbs_dialect, READERS[machine.scheduler])(script)


def default_memory(machine: Machine) -> str | None:
    return "2048mb" if "memory" in machine.requires else None


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if MACHINES[row["machine"]].scheduler in READERS])
def test_a_scheduler_accepts_the_script(name: str) -> None:
    machine = MACHINES[ROWS[name]["machine"]]
    asked = resources(machine, **case(ROWS[name]))
    job = read_job(machine, rendered(name))
    disk = {"slurm": "1024M", "pbs": "1024mb"} if ROWS[name]["disk"] else {}
    expected = {
        "nodes": asked.nodes, "gpus": asked.gpus_per_node, "seconds": asked.walltime, "queue": asked.queue,
        "account": asked.account, "name": asked.name, "mail": asked.mail, "array": asked.array,
        "after": ":".join(asked.after), "ranks": asked.ranks_per_node or asked.gpus_per_node or machine.cores_per_node,
        "memory": MEMORY.get(machine.scheduler, {}).get(ROWS[name]["memory"], default_memory(machine)),
        "disk": disk.get(machine.scheduler),
    }  # fmt: skip
    assert job == {key: expected[key] for key in job}


FILESYSTEMS = {
    "pbs-generic": "#PBS -l filesystems=home:eagle",
    "cobalt-generic": "#COBALT --attrs filesystems=home,eagle",
}


@pytest.mark.parametrize("name", FILESYSTEMS)
def test_filesystems_are_written_as_their_scheduler_reads_them(name: str) -> None:
    assert FILESYSTEMS[name] in script(MACHINES[name], COMMANDS["doctor"], filesystems="home,eagle").splitlines()


WALLTIMES = {
    "7d": 604800, "1-00:00:00": 86400, "1-12": 129600, "1-12:30": 131400, "2h30m": 9000, "90min": 5400, "1:30:00": 5400,
    "1d12h": 129600, "1:12:00:00": 129600, "168:00:00": 604800,
}  # fmt: skip


@pytest.mark.parametrize("spelling", WALLTIMES)
@pytest.mark.parametrize("name", GENERIC[1:])
def test_a_scheduler_reads_the_walltime_in_any_spelling(name: str, spelling: str) -> None:
    text = script(MACHINES[name], COMMANDS["doctor"], walltime=spelling)
    assert read_job(MACHINES[name], text)["seconds"] == WALLTIMES[spelling]


ARRAYS = {
    # as given: as Slurm and as PBS read it
    "1,3,7": ("1,3,7", None),
    "1,3,5,7": ("1,3,5,7", "1-7:2"),
    "5,1,3": ("5,1,3", "1-5:2"),
    "0-10:2": ("0-10:2", "0-10:2"),
    "0-9:2%3": ("0-9:2%3", "0-8:2%3"),
    "0-3,4-7%2": ("0-3,4-7%2", "0-7%2"),
    "0,5-9:2,20": ("0,5-9:2,20", None),
    "7": ("7", None),
}


@pytest.mark.parametrize("array", ARRAYS)
def test_arrays_are_written_as_their_scheduler_reads_them(array: str) -> None:
    for_slurm, for_pbs = ARRAYS[array]
    assert read_slurm_job(script(MACHINES["slurm-generic"], COMMANDS["doctor"], array=array))["array"] == for_slurm
    if for_pbs:
        assert read_pbs_job(script(MACHINES["pbs-generic"], COMMANDS["doctor"], array=array))["array"] == for_pbs
    else:
        with pytest.raises(ConfigError, match=r"PBS (cannot list|refuses an array of one)"):
            script(MACHINES["pbs-generic"], COMMANDS["doctor"], array=array)


def test_slurm_reads_a_list_of_partitions() -> None:
    assert read_slurm_job(script(MACHINES["slurm-generic"], COMMANDS["doctor"], queue="a,b"))["queue"] == "a,b"


TORQUE = {
    "one-node": ({"ranks_per_node": 4, "threads_per_rank": 2, "memory": "8GiB"}, ["nodes=1:ppn=8", "mem=8192mb"]),
    "two-nodes": ({"nodes": 2, "ranks_per_node": 4}, ["nodes=2:ppn=4"]),
    "gpus": ({"nodes": 3, "gpus_per_node": 2, "threads_per_rank": 4}, ["nodes=3:ppn=8:gpus=2"]),
}


@pytest.mark.parametrize("name", TORQUE)
def test_torque_reads_nodes_and_processors_per_node(name: str) -> None:
    case, requested = TORQUE[name]
    text = script(MACHINES["torque-generic"], COMMANDS["doctor"], **case)
    assert requests(text) == [*requested, "walltime=00:30:00"]
    assert "#PBS -W umask=0" in text
    assert "\numask 0" in text


NCI = {
    "part-of-a-node": ("gadi", {"ranks_per_node": 2, "threads_per_rank": 4, "memory": "8GiB"},
                       ["ncpus=8", "mem=8192mb"]),
    "two-nodes": ("gadi", {"nodes": 2, "memory": "190GiB"}, ["ncpus=96", "mem=389120mb"]),
    "two-nodes-used-in-part": ("gadi", {"nodes": 2, "ranks_per_node": 1, "memory": "1GiB"}, ["ncpus=96", "mem=2048mb"]),
    "disk": (
        "gadi", {"nodes": 2, "memory": "1GiB", "local_disk": "100GB", "filesystems": "gdata/a1,scratch/b2"},
        ["ncpus=96", "mem=2048mb", "jobfs=190736mb"]),
    "one-gpu": ("gadi-gpu", {"gpus_per_node": 1, "threads_per_rank": 8}, ["ncpus=12", "ngpus=1", "mem=2048mb"]),
    "two-gpus": ("gadi-gpu", {"gpus_per_node": 2, "threads_per_rank": 12}, ["ncpus=24", "ngpus=2", "mem=2048mb"]),
    "eight-gpus": ("gadi-gpu", {"nodes": 2, "gpus_per_node": 4}, ["ncpus=96", "ngpus=8", "mem=4096mb"]),
}  # fmt: skip


@pytest.mark.parametrize("name", NCI)
def test_nci_reads_totals_over_all_nodes(name: str) -> None:
    machine, case, requested = NCI[name]
    text = script(MACHINES[machine], COMMANDS["doctor"], **case)
    storage = ["storage=gdata/a1+scratch/b2"] if "filesystems" in case else []
    assert requests(text) == [*requested, "walltime=00:30:00", *storage]
    assert read_pbs(text, dialect="nci").problems == []
    assert "\n#PBS -P proj\n" in text


def requests(text: str) -> list[str]:
    return [line.removeprefix("#PBS -l ") for line in text.splitlines() if line.startswith("#PBS -l ")]


# ---- what the shell reads ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Files of the scripts of all rows."""
    place = tmp_path_factory.mktemp("scripts")
    for name in ROWS:
        (place / f"{name}.sh").write_text(rendered(name))
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


FLUX = """#!/bin/sh
case $1 in
  getattr) echo ƒ7 ;;
  job) echo f7 ;;
  run) shift; exec flux-run "$@" ;;
  *) printf '%s\\0' "$@" >'{submitted}'; echo f8 ;;
esac
"""


class Place:
    """A folder to run scripts in, with launchers that record their arguments."""

    def __init__(self, folder: Path) -> None:
        self.work, self.record, bin_ = folder / "two 'words' $(x)", folder / "record", folder / "bin"
        self.work.mkdir()
        bin_.mkdir()
        for name in ("mpirun", "srun", "mpiexec", "flux-run"):
            (bin_ / name).write_text(STUB.format(python=sys.executable))
            (bin_ / name).chmod(0o755)
        self.submitted = folder / "submitted"
        for name in ("qsub", "sbatch"):
            # Separate the words by NUL: they may contain anything.
            (bin_ / name).write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >'{self.submitted}'\necho 8\n")
            (bin_ / name).chmod(0o755)
        (bin_ / "flux").write_text(FLUX.format(submitted=self.submitted))
        (bin_ / "flux").chmod(0o755)
        (folder / "nodes").write_text("localhost\n")
        self.env = {
            **os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}", "RECORD": str(self.record),
            "SLURM_SUBMIT_DIR": str(self.work), "SLURM_JOB_ID": "7", "PBS_O_WORKDIR": str(self.work),
            "PBS_JOBID": "7.server", "PBS_NODEFILE": str(folder / "nodes"), "COBALT_JOBID": "7",
            "COBALT_NODEFILE": str(folder / "nodes"), "COBALT_ENDTIME": "9999999999",
            "BASH_FUNC_module%%": "() { :; }",
        }  # fmt: skip

    def run(self, script: str, codes: str = "0") -> subprocess.CompletedProcess[str]:
        (self.work / "job.sh").write_text(script)
        (self.work / "job.sh").chmod(0o755)
        return subprocess.run(
            ["bash", "job.sh"], cwd=self.work, env={**self.env, "CODES": codes},
            check=False, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    @property
    def started(self) -> list[list[str]]:
        """Return the words that each launcher got."""
        return [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("name", GENERIC)
def test_hostile_words_arrive_unchanged(place: Place, name: str) -> None:
    printed = scimill("jobs", "render", "--machine", name, "--walltime", "1h", "--", "program", *HOSTILE)
    bound = "scimill: at most 1 node-hours, without further links\n"
    assert (printed.returncode, printed.stderr) == (0, bound), printed
    ran = place.run(printed.stdout)
    assert ran.returncode == 0, ran
    assert [words[-len(HOSTILE) - 1 :] for words in place.started] == [["program", *HOSTILE]]
    assert not (place.work / "broken").exists()


@pytest.mark.parametrize("name", GENERIC[1:])
def test_hostile_words_are_no_directives(name: str) -> None:
    machine = MACHINES[name]
    reader = {
        "pbs": functools.partial(read_pbs, dialect=machine.pbs_dialect), "slurm": read_slurm, "cobalt": read_cobalt,
        "flux": read_flux,
    }[machine.scheduler]  # fmt: skip
    reading = reader(script(machine, ("program", *HOSTILE)))
    assert reading.options == reader(script(machine, ("program",))).options
    assert [problem for problem in reading.problems if not problem.startswith("ignored:")] == []


def test_a_resumable_command_gets_resume_and_its_walltime(place: Place) -> None:
    command = ("scimill", "droplets", "generate", "two words.h5", "--count", "10")
    ran = place.run(script(MACHINES["local"], command))
    assert ran.returncode == 0, ran
    [words] = place.started
    *words, resume, flag, seconds = words
    assert tuple(words[-len(command) :]) == command
    assert (resume, flag) == ("--resume", "--walltime")
    assert 1790 <= int(seconds.removesuffix("s")) <= 1800


def test_another_command_gets_no_flags_of_ours(place: Place) -> None:
    assert place.run(script(MACHINES["local"], COMMANDS["doctor"])).returncode == 0
    assert [words[-2:] for words in place.started] == [["scimill", "doctor"]]


def test_an_image_path_may_hold_blanks_and_quotes(place: Place) -> None:
    image = "an image's $(file).sif"
    (place.work / image).write_text("content")
    machine = MACHINES["local"]
    ran = place.run(script(machine, COMMANDS["doctor"], image=image))
    assert ran.returncode == 0, ran
    [words] = place.started
    assert words[-3:] == [str(place.work / image), "scimill", "doctor"]
    assert words[words.index("--bind") + 1] == str(place.work)
    assert "exec" in words


def test_a_missing_image_is_reported_before_anything_runs(place: Place) -> None:
    ran = place.run(script(MACHINES["local"], COMMANDS["doctor"], image="two words.sif"))
    assert ran.returncode == 3, ran
    assert "image not found: two words.sif" in ran.stderr
    assert place.started == []


def test_the_command_decides_the_exit_code(place: Place) -> None:
    assert place.run(script(MACHINES["local"], COMMANDS["score"]), codes="4").returncode == 4


def test_the_script_is_kept_next_to_the_results(place: Place) -> None:
    text = script(MACHINES["local"], COMMANDS["doctor"], name="a.b_c-d")
    assert place.run(text).returncode == 0
    [record] = (place.work / "scimill-jobs").iterdir()
    assert record.name.startswith("a.b_c-d-")
    assert (record / "job.sh").read_text() == text
    assert f"RECORD={place.record}" in (record / "environment").read_text().splitlines()


def test_links_follow_until_the_command_is_done(place: Place) -> None:
    ran = place.run(script(MACHINES["local"], COMMANDS["generate"]), codes="75 75 0")
    assert (ran.returncode, len(place.started)) == (0, 3), ran


def test_there_are_no_more_links_than_allowed(place: Place) -> None:
    machine = MACHINES["local"]
    ran = place.run(script(machine, COMMANDS["generate"], links=2), codes="75")
    assert (ran.returncode, len(place.started)) == (75, 2), ran


NEXT = {
    "slurm-generic": read_slurm, "pbs-generic": read_pbs, "cobalt-generic": read_cobalt, "flux-generic": read_flux,
}  # fmt: skip


@pytest.mark.parametrize("name", NEXT)
def test_a_scheduler_gets_the_next_link(place: Place, name: str) -> None:
    ran = place.run(script(MACHINES[name], COMMANDS["generate"], after="123,124"), codes="75")
    assert ran.returncode == 0, ran
    *arguments, path = place.submitted.read_text().split("\0")[:-1]
    reading = NEXT[name](Path(path).read_text())
    assert reading.problems == []
    assert set(arguments) <= {"--parsable", "--parent", "batch"}
    assert "\nlink=2\n" in Path(path).read_text()
    # The earlier jobs have ended and may be forgotten: Cobalt would hold it forever, PBS and Slurm would drop it.
    assert {"depend", "dependency", "dependencies"} & reading.options.keys() == set()


@pytest.mark.parametrize("name", NEXT)
def test_the_last_link_submits_nothing(place: Place, name: str) -> None:
    last = script(MACHINES[name], COMMANDS["generate"], links=1)
    assert place.run(last, codes="75").returncode == 75
    assert not place.submitted.exists()


# ---- GPUs -------------------------------------------------------------------------------------------------------

GPUS: dict[str, tuple[str, str, str]] = {
    # machine, GPUs that the scheduler gave, GPU of each rank
    "whole-node": ("polaris", "", "3 2 1 0"),
    "whole-node-with-names": ("polaris", "GPU-a,GPU-b,GPU-c,GPU-d", "GPU-d GPU-c GPU-b GPU-a"),
    "whole-node-in-its-own-order": ("frontier", "0,1,2,3,4,5,6,7", "4 5 2 3 6 7 0 1"),
    "one-of-a-node": ("slurm-generic", "2", "2"),
    "parts-of-one-gpu": ("polaris", "MIG-a,MIG-b", "MIG-a MIG-b"),
    "tiles": ("aurora", "4.0,4.1", "4.0 4.1"),
}


@pytest.mark.parametrize("case", GPUS)
def test_each_rank_sees_one_of_the_gpus_that_the_scheduler_gave(place: Place, case: str) -> None:
    name, given, expected = GPUS[case]
    machine, gpus = MACHINES[name], expected.split()
    ran = place.run(script(machine, ("env",), gpus_per_node=len(gpus)))
    assert ran.returncode == 0, ran
    words = place.started[0][place.started[0].index("bash") :]
    for rank, gpu in enumerate(gpus):
        env = {**os.environ, "SLURM_LOCALID": str(rank)} | ({machine.gpu_variable: given} if given else {})
        seen = subprocess.run(words, env=env, check=True, capture_output=True, text=True, timeout=300).stdout
        assert f"{machine.gpu_variable}={gpu}\n" in seen


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
  shared: {directives: [--oversubscribe]}
"""
HOUR = ("--walltime", "1h")
GIVEN = ("--account", "a", "--queue", "debug", *HOUR)
WRONG: dict[str, tuple[str, tuple[object, ...], str]] = {
    "no-machine": ("", HOUR, "missing"),
    "unknown-machine": ("polar", HOUR, "unknown machine 'polar'"),
    "unknown-machine-lists-the-others": ("polar", HOUR, ", ".join(names())),
    "machine-file-missing": ("./gone.yaml", HOUR, "gone.yaml"),
    "no-walltime": ("local", (), "walltime is required"),
    "walltime-without-unit": ("local", ("--walltime", 60), "give a unit, e.g. 90s"),
    "walltime-in-words": ("local", ("--walltime", "2 hours"), "flag --walltime"),
    "walltime-below-a-minute": ("local", ("--walltime", "59s"), "below a minute"),
    "walltime-0": ("local", ("--walltime", "0h"), "walltime"),
    "walltime-below-cobalts-least": ("cobalt-generic", ("--walltime", "4min"), "at least 00:05:00"),
    "memory-without-unit": ("local", (*HOUR, "--memory", 64), "give a size with a unit"),
    "too-many-gpus": ("pbs-generic", (*HOUR, "--gpus-per-node", 5), "at most 4"),
    "gpus-where-there-are-none": ("local", (*HOUR, "--gpus-per-node", 1), "at most 0"),
    "too-many-ranks": ("local", (*HOUR, "--ranks-per-node", 3), "2 cores"),
    "nodes-0": ("local", (*HOUR, "--nodes", 0), "flag --nodes"),
    "name-too-long": ("local", (*HOUR, "--name", "a" * 16), "not every scheduler accepts the name"),
    "name-of-two-words": ("local", (*HOUR, "--name", "a b"), "not every scheduler accepts the name"),
    "account-with-a-quote": ("pbs-generic", (*HOUR, "--account", 'a"'), "characters that no scheduler accepts"),
    "account-with-a-newline": ("pbs-generic", (*HOUR, "--account", "a\nb"), "characters that no scheduler accepts"),
    "queue-with-a-variable": ("pbs-generic", (*HOUR, "--queue", "$Q"), "characters that no scheduler accepts"),
    "array-reversed": ("pbs-generic", (*HOUR, "--array", "9-0"), "invalid array"),
    "array-empty-part": ("slurm-generic", (*HOUR, "--array", "0,,3"), "invalid array"),
    "array-step-0": ("slurm-generic", (*HOUR, "--array", "0-9:0"), "invalid array"),
    "array-limit-0": ("slurm-generic", (*HOUR, "--array", "0-9%0"), "invalid array"),
    "array-limit-inside": ("slurm-generic", (*HOUR, "--array", "0-3%2,7"), "invalid array"),
    "array-index-twice": ("slurm-generic", (*HOUR, "--array", "0-5,3"), "index 3 is given twice"),
    "array-too-large": ("slurm-generic", (*HOUR, "--array", "0-999999999"), "at most 100000 jobs"),
    "array-list-on-pbs": ("pbs-generic", (*HOUR, "--array", "1,3,7"), "PBS cannot list the indices 1,3,7"),
    "array-on-cobalt": ("cobalt-generic", (*HOUR, "--array", "0-3%2"), "Cobalt has no arrays"),
    "array-without-a-scheduler": ("local", (*HOUR, "--array", "0-3"), "--array"),
    "after-without-a-scheduler": ("local", (*HOUR, "--after", "5"), "--after"),
    "array-of-one-on-pbs": ("pbs-generic", (*HOUR, "--array", "3-3"), "--array"),
    "after-a-word-on-cobalt": ("cobalt-generic", (*HOUR, "--after", "first"), "--after"),
    "after-a-word-on-pbs": ("pbs-generic", (*HOUR, "--after", "first"), "--after"),
    "after-a-word-on-slurm": ("slurm-generic", (*HOUR, "--after", "first"), "--after"),
    "account-and-queue-missing": ("site", HOUR, "every job must name --account, --queue"),
    "account-missing": ("site", (*HOUR, "--queue", "debug"), "--account missing"),
    "unknown-queue": ("site", (*GIVEN, "--queue", "long"), "debug, prod, shared"),
    "queues-on-pbs": ("pbs-generic", (*HOUR, "--queue", "a,b"), "several queues: a,b"),
    "queues-on-cobalt": ("cobalt-generic", (*HOUR, "--queue", "a,b"), "several queues: a,b"),
    "queues-that-are-qos": ("archer2", (*HOUR, "--account", "a", "--queue", "standard,short"), "several queues"),
    "queues-with-an-unknown-one": ("site", (*GIVEN, "--queue", "debug,long"), "unknown queue 'long'"),
    "queues-with-an-empty-one": ("slurm-generic", (*HOUR, "--queue", "a,,b"), "flag --queue"),
    "queues-whose-second-has-a-limit": ("site", (*GIVEN, "--queue", "debug,prod"), "queue prod"),
    "queues-with-different-directives": (
        "site", (*GIVEN, "--queue", "debug,shared"), "queues debug,shared need different directives"),
    "walltime-of-minutes-or-hours": ("local", ("--walltime", "1:30"), "schedulers differ on what 1:30 means"),
    "walltime-above-the-queues": ("site", (*GIVEN, "--walltime", "1:00:01"), "at most 01:00:00"),
    "walltime-below-the-queues": ("site", (*GIVEN, "--queue", "prod", "--walltime", "20min"), "at least 00:30:00"),
    "nodes-above-the-queues": ("site", (*GIVEN, "--nodes", 3), "1 … 2"),
    "nodes-below-the-queues": ("site", (*GIVEN, "--queue", "prod"), "10 …"),
    "memory-above-the-nodes": ("site", (*GIVEN, "--memory", "65GiB"), "at most 64GiB"),
    "array-on-torque": ("torque-generic", (*HOUR, "--array", "0-3"), "does not support the arrays of Torque"),
    "filesystems-on-torque": ("torque-generic", (*HOUR, "--filesystems", "home"), "no resource for file systems"),
    "memory-of-nodes-on-torque": ("torque-generic", (*HOUR, "--nodes", 2, "--memory", "1GiB"), "pmem=SIZE"),
    "memory-missing": ("gadi", (*HOUR, "--account", "a"), "--memory missing"),
    "threads-beyond-the-share-of-a-gpu": (
        "gadi-gpu", (*HOUR, "--account", "a", "--memory", "1GiB", "--gpus-per-node", 1, "--threads-per-rank", 13),
        "--gpus-per-node 1 comes with 12 cores, but ranks and threads need 13"),
    "part-of-several-nodes": (
        "gadi-gpu", (*HOUR, "--account", "a", "--memory", "1GiB", "--gpus-per-node", 1, "--nodes", 2),
        "several nodes are always whole nodes"),
    "filesystems-of-another-site": (
        "gadi", (*HOUR, "--account", "a", "--memory", "1GiB", "--filesystems", "home"), "unknown file system 'home'"),
    "memory-on-flux": ("flux-generic", (*HOUR, "--memory", "1GiB"), "Flux has no option for --memory"),
    "mail-on-flux": ("flux-generic", (*HOUR, "--mail", "a@b"), "Flux has no option for --mail"),
    "gpus-on-flux": (
        "flux-generic", (*HOUR, "--gpus-per-node", 3, "--ranks-per-node", 2), "3 GPUs cannot be divided among 2 ranks"),
    "limit-on-flux": ("flux-generic", (*HOUR, "--array", "0-3%2"), "Flux has no arrays and cannot limit"),
    "after-a-word-on-flux": ("flux-generic", (*HOUR, "--after", "job"), "invalid job ids for flux"),
    "disk-on-cobalt": ("cobalt-generic", (*HOUR, "--local-disk", "1GiB"), "local disk cannot be requested here"),
    "disk-on-pbs": ("pbs-generic", (*HOUR, "--local-disk", "1GiB"), "local disk cannot be requested here"),
    "scheduler-unknown": ("lsf", HOUR, "scheduler"),
    "key-unknown": ("key", HOUR, "unknown key 'cores'"),
}  # fmt: skip


def assert_refused(result: Result, message: str) -> None:
    assert (result.returncode, result.tracebacks, len(result.errors), result.stdout) == (2, 0, 1, ""), result
    assert len(result.stderr.splitlines()) <= 4, result
    assert message in result.stderr, result


@pytest.fixture
def sites(tmp_path: Path) -> dict[str, str]:
    """Environment with the user's own machines: site, lsf and key."""
    own = tmp_path / "scimill" / "machines"
    own.mkdir(parents=True)
    (own / "site.yaml").write_text(SITE)
    (own / "lsf.yaml").write_text(SITE.replace("scheduler: slurm", "scheduler: lsf"))
    (own / "key.yaml").write_text(SITE.replace("cores_per_node", "cores"))
    return {"XDG_CONFIG_HOME": str(tmp_path)}


@pytest.mark.parametrize("name", WRONG)
def test_bad_input_is_refused(sites: dict[str, str], tmp_path: Path, name: str) -> None:
    machine, flags, message = WRONG[name]
    where = ("--machine", machine) if machine else ()
    # The user's own machines are listed too, so check the shipped ones without any others.
    env = {"XDG_CONFIG_HOME": str(tmp_path / "none")} if machine == "polar" else sites
    assert_refused(scimill("jobs", "render", *where, *flags, "--", "scimill", "doctor", env=env), message)


def test_a_job_of_no_command_is_refused() -> None:
    assert_refused(scimill("jobs", "render", "--machine", "local", *HOUR), "the command is missing")


def test_a_users_own_machine_is_taken_by_name_and_by_path(sites: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "scimill" / "machines" / "site.yaml"
    printed = [
        scimill("jobs", "render", "--machine", machine, *GIVEN, "--", "a", env=sites).stdout
        for machine in ("site", path)
    ]
    assert printed[0] == printed[1]
    assert read_slurm(printed[0]).options["partition"] == "debug"


SOURCE = "page: https://example.org/queues\nread: 2026-11-30\n"


def check(folder: Path, text: str) -> Result:
    """Check the shipped machines and one of the user's own."""
    own = folder / "scimill" / "machines"
    own.mkdir(parents=True)
    (own / "site.yaml").write_text(text)
    return scimill("jobs", "machines", "--check", env={"XDG_CONFIG_HOME": str(folder)})


@pytest.mark.parametrize(
    ("copied", "words"),
    [("", []), ("copied: 2026-08-19\n", ["copy", "of", "2026-08-19"]), ("copied: undated\n", ["undated", "copy"])],
)
def test_the_page_and_dates_of_each_machine_are_listed(tmp_path: Path, copied: str, words: list[str]) -> None:
    listed = check(tmp_path, SITE + SOURCE + copied)
    assert (listed.returncode, listed.stderr) == (0, ""), listed
    lines = {line.split()[0]: line.split()[1:] for line in listed.stdout.splitlines()}
    assert lines["site"] == ["2026-11-30", *words, "https://example.org/queues"]
    assert {name for name, rest in lines.items() if rest == ["generic"]} == set(GENERIC)
    assert {*lines} == {*MACHINES, "site"}


UNSOURCED = {
    "neither": ("", "page and read missing"),
    "no-date": ("page: https://example.org/queues\n", "read missing"),
    "no-page": ("read: 2026-11-30\n", "page missing"),
    "day-that-does-not-exist": (SOURCE.replace("-30", "-31"), "day is out of range for month"),
    "number-for-a-day": (SOURCE.replace("-", ""), "read must be a day such as 2026-11-30, got 20261130"),
    "page-without-an-address": (SOURCE.replace("https://", ""), "page must be an address"),
}


@pytest.mark.parametrize("name", UNSOURCED)
def test_a_machine_without_its_page_or_date_fails_the_check(tmp_path: Path, name: str) -> None:
    text, message = UNSOURCED[name]
    checked = check(tmp_path, SITE + text)
    assert_refused(dataclasses.replace(checked, stdout=""), message)  # it lists those before the first bad one


# ---- without the numerical packages; benchmarks/jobs.py measures the time -------------------------------------------

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
    return {"PYTHONPATH": os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])}


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
