"""Directives that a job adds: they reach the scheduler as given, or are refused before anything is queued."""

from pathlib import Path
from typing import Any

import pytest

from jobs.cluster import Cluster
from jobs.directives import read_cobalt, read_flux, read_pbs, read_slurm
from jobs.states import COMPLETED
from jobs.test_chains import write_chain
from mpi import scimill
from scimill.config import Layer, build, parse_yaml, to_yaml
from scimill.errors import ConfigError
from scimill.jobs.machine import read_machine
from scimill.jobs.render import Command, render
from scimill.jobs.resources import Resources


def script(machine: str, *directives: str, **values: Any) -> str:
    layer = Layer("test", {"walltime": "1h", "ranks_per_node": 2, "directives": list(directives), **values})
    return render(build(Resources, [layer]), read_machine(machine), Command(("touch", "a")))


ACCEPTED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "reservation": ("slurm-generic", "--reservation=night", {}),
    "constraint": ("slurm-generic", "--constraint=haswell&nvme", {}),
    "two-options": ("slurm-generic", "--exclusive --requeue", {}),
    "typed-gres": ("slurm-generic", "--gres=gpu:a100:2,shard:8", {"gpus_per_node": 2}),
    "gres-that-is-no-gpu": ("slurm-generic", "--gres=nvme:1", {"gpus_per_node": 1}),
    "mail-events": ("slurm-generic", "--mail-type=BEGIN", {"mail": "a@example.org"}),
    "signal": ("slurm-generic", "--signal=USR1@300", {}),
    "qos-beside-a-partition": ("slurm-generic", "--qos=high", {"queue": "debug"}),
    "partition-beside-a-qos": ("archer2", "--partition=highmem", {"account": "a", "walltime": "10min"}),
    "pbs-place": ("pbs-generic", "-l place=scatter:excl", {}),
    "pbs-two-options": ("pbs-generic", "-a 2359 -p 100", {}),
    "pbs-attribute": ("pbs-generic", "-W group_list=staff", {}),
    "pbs-mail-events": ("pbs-generic", "-m abe", {"mail": "a@example.org"}),
    "pbs-no-rerun": ("pbs-generic", "-r n", {}),
    "pbs-umask": ("pbs-generic", "-W umask=007", {}),
    "cobalt-held": ("cobalt-generic", "--held --mode script", {}),
    "cobalt-user-list": ("cobalt-generic", "--user_list a:b", {}),
    "flux-urgency": ("flux-generic", "--urgency=10 --exclusive", {}),
    "flux-signal": ("flux-generic", "--signal=USR2@60s", {}),
    "cobalt-umask": ("cobalt-generic", "-u 007", {}),
}
READERS = {"#SBATCH": read_slurm, "#PBS": read_pbs, "#COBALT": read_cobalt, "# flux:": read_flux}


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_directive_is_the_last_and_the_only_one_of_its_option(name: str) -> None:
    machine, directive, values = ACCEPTED[name]
    text = script(machine, directive, **values)
    prefix, reader = next((prefix, reader) for prefix, reader in READERS.items() if f"\n{prefix} " in text)
    assert [line for line in text.splitlines() if line.startswith(prefix)][-1] == f"{prefix} {directive}"
    if name != "partition-beside-a-qos":  # the later one counts
        assert reader(text).problems == []


def test_typed_gpus_take_the_place_of_untyped_ones() -> None:
    options = read_slurm(script("slurm-generic", "--gres=gpu:a100:2", gpus_per_node=2)).options
    assert "gpus-per-node" not in options
    assert read_slurm(script("slurm-generic", "--gres=nvme:1", gpus_per_node=2)).options["gpus-per-node"] == "2"


def test_attributes_of_cobalt_are_joined_into_one_option() -> None:
    reading = read_cobalt(
        script("cobalt-generic", "--attrs pubnet=true:x", "--held --attr=y", filesystems="home,eagle")
    )
    assert (reading.problems, reading.options["attrs"]) == ([], "filesystems=home,eagle:pubnet=true:x:y")
    assert reading.options["held"] == "True"


def test_directives_follow_those_of_the_machine_in_their_order() -> None:
    lines = script("cirrus", "--nice=5", "--comment=x", account="a").splitlines()
    at = lines.index("#SBATCH --exclusive")
    assert lines[at : at + 4] == [
        "#SBATCH --exclusive",
        "#SBATCH --partition=standard",
        "#SBATCH --nice=5",
        "#SBATCH --comment=x",
    ]


def test_directives_need_a_scheduler_to_have_an_effect() -> None:
    assert script("local", "--reservation=night") == script("local")


REFUSED: dict[str, tuple[str, str, str, str]] = {
    # machine, directive, message, remedy
    "time": ("slurm-generic", "--time=1:00:00", "--time is not accepted", "--walltime"),
    "time-short": ("slurm-generic", "-t60", "--time is not accepted", "--walltime"),
    "time-abbreviated": ("slurm-generic", "--tim 60", "--time is not accepted", "--walltime"),
    "nodes-after-another": ("slurm-generic", "--exclusive -N 2", "--nodes is not accepted", "--nodes"),
    "partition": ("slurm-generic", "-p debug", "--partition is not accepted", "--queue"),
    "qos-where-it-is-the-queue": ("archer2", "--qos=short", "--qos is not accepted", "--queue"),
    "gpus": (
        "slurm-generic",
        "--gpus-per-node=a100:2",
        "--gpus-per-node is not accepted",
        "--gres=gpu:TYPE:NUMBER",
    ),
    "gres-without-gpus": (
        "slurm-generic",
        "--gres=gpu:a100",
        "GPUs per node differ: 1 in --gres, 0 in",
        "--gpus-per-node 1",
    ),
    "environment": ("slurm-generic", "--export=NONE", "--export is not accepted", "env NAME=VALUE"),
    "wait": ("slurm-generic", "--wait", "--wait is not accepted", "scimill jobs status"),
    "other-cluster": ("slurm-generic", "-M other", "--clusters is not accepted", "SLURM_CLUSTERS"),
    "word": ("slurm-generic", "night", "'night' is neither an option nor", ""),
    "comment": ("slurm-generic", "--exclusive # why", "'#' is neither an option nor", ""),
    "open-quote": ("slurm-generic", '--comment="a b', "no closing quotation", ""),
    "prefix": ("slurm-generic", "#SBATCH --exclusive", "without its prefix", "remove #SBATCH"),
    "newline": ("slurm-generic", "--exclusive\nrm -r x", "one line of options", ""),
    "blank": ("slurm-generic", " ", "one line of options", ""),
    "pbs-walltime": ("pbs-generic", "-l walltime=1:00:00", "-l walltime is not accepted", "--walltime"),
    "pbs-walltime-second": ("pbs-generic", "-lplace=free,walltime=60", "-l walltime is not accepted", "--walltime"),
    "pbs-select": ("pbs-generic", "-l select=2:ncpus=4", "-l select is not accepted", "--nodes"),
    "pbs-queue": ("pbs-generic", "-q debug", "-q is not accepted", "--queue"),
    "pbs-depend": ("pbs-generic", "-W depend=afterok:1", "-W depend is not accepted", "--after"),
    "pbs-block": ("pbs-generic", "-W block=true", "-W block is not accepted", "scimill jobs status"),
    "pbs-silent": ("pbs-generic", "-z", "-z is not accepted", "the id of the job"),
    "pbs-long": ("pbs-generic", "--nodes=2", "PBS has only those of one letter", ""),
    "pbs-no-value": ("pbs-generic", "-a", "-a has no value", ""),
    "pbs-comment": ("pbs-generic", "-p 100 # why", "'#' is not an option", ""),
    "pbs-backslash": ("pbs-generic", "-p 100 \\\\", "backslash", ""),
    "pbs-item": ("pbs-generic", "-l 5", "is not NAME=VALUE", ""),
    "flux-time": ("flux-generic", "-t 60", "--time-limit is not accepted", "--walltime"),
    "flux-slots": ("flux-generic", "--nslots=2", "--nslots is not accepted", "--ranks-per-node"),
    "flux-bank": ("flux-generic", "-Bmine", "--bank is not accepted", "--account"),
    "cobalt-time": ("cobalt-generic", "--time 60", "--time is not accepted", "--walltime"),
    "cobalt-nodes": ("cobalt-generic", "-n 2", "--nodecount is not accepted", "--nodes"),
    "cobalt-project": ("cobalt-generic", "--proj a", "--project is not accepted", "--account"),
    "cobalt-quotes": ("cobalt-generic", '--attrs "a=b"', "Cobalt reads no quotes", ""),
    "cobalt-attributes": ("cobalt-generic", "--attrs a=b=c", "reads NAME=VALUE:NAME=VALUE", ""),
    "cobalt-filesystems": (
        "cobalt-generic",
        "--attrs filesystems=home",
        "filesystems= is not accepted",
        "--filesystems",
    ),
    "cobalt-comment": ("cobalt-generic", "--held # why", "'#' is neither an option nor", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_directive_is_refused_with_what_to_do(name: str) -> None:
    machine, directive, message, remedy = REFUSED[name]
    with pytest.raises(ConfigError) as caught:
        script(machine, directive, account="a", walltime="10min")
    assert message in caught.value.what
    assert remedy in (caught.value.remedy or "")


@pytest.mark.parametrize("given", ["--exclusive", ["--exclusive"]])
def test_a_file_gives_one_directive_or_a_list(given: object) -> None:
    made = build(Resources, [Layer("test", {"walltime": "1h", "directives": given})])
    assert made.directives == ("--exclusive",)
    assert build(Resources, [parse_yaml(to_yaml(made), "printed")]) == made


@pytest.mark.parametrize("given", [3, [3], {"a": 1}, [["--x"]]])
def test_what_is_no_directive(given: object) -> None:
    with pytest.raises(ConfigError, match="directives must be"):
        build(Resources, [Layer("test", {"walltime": "1h", "directives": given})])


def test_the_flag_is_given_once_per_directive() -> None:
    flags = ("--walltime", "1h", "--directive", "--exclusive", "--directive=--nice=5")
    result = scimill("jobs", "render", "--machine", "slurm-generic", *flags, "--", "touch", "a")
    assert "#SBATCH --exclusive\n#SBATCH --nice=5\n" in result.stdout, result


def test_the_real_slurm_reads_them(slurm: Cluster, tmp_path: Path) -> None:
    """Quotes hold a blank, and a list of generic resources replaces the number of GPUs."""
    write_chain(
        tmp_path,
        """
        resources: {walltime: 10min, ranks_per_node: 2, gpus_per_node: 2}
        steps:
          a: {command: touch a, resources: {directives: ["--comment='two words'", "--gres=gpu:2 --nice=5"]}}
        """,
    )
    result = scimill("jobs", "submit", "chain.yaml", "--machine", "slurm-generic", env=slurm.env, cwd=tmp_path)
    job = result.stdout.split()[-1]
    shown = slurm.run("scontrol", "show", "job", job, cwd=tmp_path).stdout
    assert "Comment=two words" in shown
    assert "gres:gpu:2" in shown
    assert "Nice=5" in shown
    assert slurm.wait(job, 120) == (COMPLETED, 0), slurm.output(job)
