"""Submitting one job: checks, records and output; and the scripts that scimill ships."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.cluster import Cluster
from jobs.conftest import DROPLETS
from jobs.directives import read_cobalt, read_flux, read_pbs, read_slurm
from jobs.states import COMPLETED, ENDED
from jobs.test_chains import MACHINES, TRAIN, assert_refused, job_ids, write_chain
from mpi import BIN, Result, dataset_hashes, scimill, wait_until
from scimill.jobs.resources import indices

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted(str(path.relative_to(ROOT / "jobs")) for path in (ROOT / "jobs").glob("*/*.sh"))
GENERATE = ("scimill", "droplets", "generate", "droplets.h5", *DROPLETS)
TWO_RANKS = ("--walltime", "10min", "--ranks-per-node", 2)


@pytest.fixture(params=MACHINES)
def cluster(request: pytest.FixtureRequest) -> Cluster:
    found: Cluster = request.getfixturevalue(request.param)
    return found


def submit(cluster: Cluster, folder: Path, *words: object) -> Result:
    return scimill("jobs", "submit", "--machine", MACHINES[cluster.name], *words, env=cluster.env, cwd=folder)


# ---- a job ------------------------------------------------------------------------------------------------------


def test_the_id_alone_is_printed_and_the_exact_script_is_kept(cluster: Cluster, tmp_path: Path, alone: Path) -> None:
    flags = (*TWO_RANKS, "--name", "mine", "--", *GENERATE)
    rendered = scimill("jobs", "render", "--machine", MACHINES[cluster.name], *flags).stdout
    result = submit(cluster, tmp_path, *flags)
    assert result.returncode == 0, result
    job = result.stdout.removesuffix("\n")
    assert job in cluster.jobs()
    [kept] = (tmp_path / "scimill-jobs").glob("mine-*.sh")
    assert kept.read_text() == rendered
    assert cluster.wait(job, 120) == (COMPLETED, 0), cluster.output(job)
    assert dataset_hashes(tmp_path / "droplets.h5") == dataset_hashes(alone)
    [record] = (tmp_path / "scimill-jobs").glob("mine-*/")
    assert (record / "job.sh").read_text() == rendered
    assert "count: 20000" in (record / "config.yaml").read_text()
    assert (record / "status").read_text() == "0\n"
    assert "PATH=" in (record / "environment").read_text()


def test_results_have_the_mode_of_the_submitting_shell(cluster: Cluster, tmp_path: Path) -> None:
    """PBS starts jobs with umask 077."""
    words = ("scimill", "jobs", "submit", "--machine", MACHINES[cluster.name], *map(str, TWO_RANKS), "--", "touch", "a")
    result = cluster.run("bash", "-c", 'umask 027; exec "$@"', "submit", *words, cwd=tmp_path)
    assert cluster.wait(result.stdout.strip(), 120) == (COMPLETED, 0), result
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_job_submitted_from_inside_another_does_not_take_over_its_options(slurm: Cluster, tmp_path: Path) -> None:
    """Variables of an allocation, such as SLURM_MEM_PER_NODE, are options to sbatch and srun."""
    env = {**slurm.env, "SLURM_JOB_ID": "1", "SLURM_MEM_PER_NODE": "4096", "SLURM_MEM_PER_CPU": "64"}
    flags = ("--machine", "slurm-generic", *TWO_RANKS, "--", "touch", "a")
    result = scimill("jobs", "submit", *flags, env=env, cwd=tmp_path)
    job = result.stdout.strip()
    assert slurm.wait(job, 120) == (COMPLETED, 0), slurm.output(job)


def test_a_dry_run_prints_the_script_and_submits_nothing(slurm: Cluster, tmp_path: Path) -> None:
    before = job_ids(slurm)
    flags = (*TWO_RANKS, "--", *GENERATE)
    printed = submit(slurm, tmp_path, "--dry-run", *flags).stdout
    assert printed == scimill("jobs", "render", "--machine", "slurm-generic", *flags).stdout
    assert job_ids(slurm) == before
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_chain_prints_the_plan(slurm: Cluster, tmp_path: Path) -> None:
    name = write_chain(
        tmp_path, "resources: {walltime: 1h}\nsteps: {a: {command: touch a}, b: {command: touch b, after: a}}"
    )
    printed = submit(slurm, tmp_path, "--dry-run", name).stdout
    assert [line.split(maxsplit=1) for line in printed.splitlines()] == [["a", "to submit"], ["b", "to submit"]]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_flags_override_the_resources_of_a_chain(slurm: Cluster, tmp_path: Path) -> None:
    name = write_chain(tmp_path, "resources: {walltime: 1h}\nsteps: {a: {command: touch a}}")
    assert submit(slurm, tmp_path, name, "--walltime", "2min", "--ranks-per-node", 1).returncode == 0
    [script] = (tmp_path / "scimill-jobs").glob("*.sh")
    assert read_slurm(script.read_text()).options["time"] == "00:02:00"
    wait_until((tmp_path / "a").exists, "the job", 60)


def test_an_array_of_a_scheduler_without_arrays_is_a_job_for_each_index(cobalt: Cluster, tmp_path: Path) -> None:
    flags = ("--walltime", "10min", "--ranks-per-node", 1, "--array", "3,5-9:4")
    result = submit(cobalt, tmp_path, *flags, "--", "bash", "-c", "touch done-$SCIMILL_ARRAY_INDEX")
    jobs = result.stdout.split()
    assert len(jobs) == 3
    assert [cobalt.wait(job) for job in jobs] == [(COMPLETED, 0)] * 3
    assert sorted(path.name for path in tmp_path.glob("done-*")) == ["done-3", "done-5", "done-9"]


@pytest.mark.parametrize(("name", "array"), [("slurm", "1,3-7:4%2"), ("pbs", "1,3,5%2")])
def test_a_scheduler_runs_the_elements_of_a_listed_array(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, array: str
) -> None:
    cluster: Cluster = request.getfixturevalue(name)
    flags = ("--walltime", "0-00:10", "--ranks-per-node", 1, "--array", array)
    result = submit(cluster, tmp_path, *flags, "--", "bash", "-c", "touch done-$SCIMILL_ARRAY_INDEX")
    assert cluster.wait(result.stdout.strip(), 120) == (COMPLETED, 0), result
    assert sorted(path.name for path in tmp_path.glob("done-*")) == [f"done-{index}" for index in indices(array)]


def test_slurm_runs_a_job_in_one_of_a_list_of_partitions(slurm: Cluster, tmp_path: Path) -> None:
    flags = (*TWO_RANKS, "--queue", "gpu,debug")
    result = submit(slurm, tmp_path, *flags, "--", "touch", "a")
    assert slurm.wait(result.stdout.strip(), 120) == (COMPLETED, 0), result
    assert (tmp_path / "a").exists()


def test_a_chain_runs_on_a_pbs_that_reads_nodes(pbs: Cluster, tmp_path: Path) -> None:
    """Requests of Torque's form, on the stand-in."""
    steps = "steps: {a: {command: touch a}, b: {command: touch b, after: a}}"
    name = write_chain(tmp_path, f"resources: {{walltime: 10min, ranks_per_node: 2}}\n{steps}")
    result = scimill("jobs", "submit", name, "--machine", "torque-generic", env=pbs.env, cwd=tmp_path)
    assert result.returncode == 0, result
    assert pbs.wait(result.stdout.split()[-1], 120) == (COMPLETED, 0)
    assert (tmp_path / "a").exists() and (tmp_path / "b").exists()
    [script] = (tmp_path / "scimill-jobs").glob("chain-a-*.sh")
    assert "#PBS -l nodes=1:ppn=2" in script.read_text()


def test_flux_gets_a_job_for_each_index_of_an_array(tmp_path: Path) -> None:
    """A program in place of ``flux batch`` records its arguments."""
    (tmp_path / "flux").write_text(f"#!/bin/sh\necho $FLUX_F58_FORCE_ASCII $@ >>{tmp_path}/calls\necho f7\n")
    (tmp_path / "flux").chmod(0o755)
    flags = ("--machine", "flux-generic", *TWO_RANKS, "--array", "1,3", "--after", "ƒ5")
    env = {"PATH": f"{tmp_path}:{BIN}:/usr/bin:/bin"}
    result = scimill("jobs", "submit", *flags, "--", "touch", "a", env=env, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "f7\nf7\n"), result
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [words[:-1] for words in calls] == [["1", "batch"]] * 2
    scripts = [(tmp_path / words[-1]).read_text() for words in calls]
    assert ["\nindex=1\n" in scripts[0], "\nindex=3\n" in scripts[1]] == [True, True]
    assert all("# flux: --dependency=afterok:f5\n" in text for text in scripts)


# ---- refusals ---------------------------------------------------------------------------------------------------

SITE = """\
description: a site with limits
scheduler: slurm
launcher: srun
launcher_options: [--mpi=pmix]
cores_per_node: 8
gpus_per_node: 2
requires: [account]
queues: {debug: {most_walltime: 1h, most_nodes: 2}}
queue: debug
"""
HOUR = ("--walltime", "1h")
PAID = ("--account", "mine", *HOUR)
DOCTOR = ("--", "scimill", "doctor")
REFUSED: dict[str, tuple[str, tuple[object, ...], str]] = {
    "unknown-machine": ("no-such", (*HOUR, *DOCTOR), "unknown machine 'no-such'"),
    "unknown-queue": ("site", (*PAID, "--queue", "long", *DOCTOR), "unknown queue 'long'"),
    "unknown-unit": ("site", ("--account", "a", "--walltime", "60", *DOCTOR), "give a unit, e.g. 90s"),
    "too-many-gpus": ("site", (*PAID, "--gpus-per-node", 3, *DOCTOR), "too many GPUs per node: 3"),
    "missing-account": ("site", (*HOUR, *DOCTOR), "--account missing"),
    "walltime-above-the-queues": ("site", ("--account", "a", "--walltime", "2h", *DOCTOR), "too long"),
    "image-missing": ("site", (*PAID, "--image", "gone.sif", *DOCTOR), "image is missing"),
    "not-executable": ("site", (*PAID, "--", "./plain.txt"), "not an executable program"),
    "program-missing": ("site", (*PAID, "--", "bin/gone"), "not an executable program"),
    "output-directory": ("site", (*PAID, "--", "scimill", "droplets", "generate", "no/a.h5", *DROPLETS), "mkdir -p no"),
    "run-directory": ("site", (*PAID, "--", *TRAIN.split(), "--output", "no/run"), "mkdir -p no"),
    "no-command": ("site", PAID, "the command is missing"),
    "unknown-command": ("site", (*PAID, "--", "scimill", "droplet"), "did you mean droplets?"),
    "unknown-flag": ("site", (*PAID, "--", "scimill", "verify", "a.h5", "--fast"), "no such option: --fast"),
    "config": ("site", (*PAID, "--", "scimill", "droplets", "generate", "a.h5", "--count", 0), "--count 0 is out of"),
    "config-file": ("site", (*PAID, "--", "scimill", "droplets", "generate", "a.h5", "--config", "no.yaml"), "no.yaml"),
    "sweep": ("site", (*PAID, "--", *TRAIN.split(), "--output", "r", "--sweep", "sweep.yaml"), "--sweep needs --trial"),
    "trials": ("site", (*PAID, "--array", "0-2", "--", *TRAIN.split(), "--output", "r", "--sweep", "sweep.yaml"),
               "has no trial 2"),
    "margin": ("site", ("--account", "a", "--walltime", "1min", "--", *GENERATE), "before the margin of 60 s"),
    "help": ("site", (*PAID, "--", "scimill", "verify", "--help"), "only prints its help"),
    "overwrite": ("site", (*PAID, "--", *GENERATE, "--overwrite"), "restart each time"),
    "no-scheduler": ("local", (*HOUR, *DOCTOR), "has no scheduler"),
    "chain-with-a-circle": ("site", (*PAID, "circle.yaml"), "in a cycle"),
    "chain-missing": ("site", (*PAID, "gone.yaml"), "chain file not found"),
    "refused-by-the-scheduler": ("slurm-generic", (*HOUR, "--queue", "none", *DOCTOR), "Slurm refuses the job"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_queues_nothing(slurm: Cluster, tmp_path: Path, name: str) -> None:
    machine, words, message = REFUSED[name]
    own = tmp_path / "config" / "scimill" / "machines"
    own.mkdir(parents=True)
    (own / "site.yaml").write_text(SITE)
    work = tmp_path / "work"
    work.mkdir()
    (work / "plain.txt").write_text("no program")
    (work / "sweep.yaml").write_text("learning_rate: [1e-3, 1e-2]\n")
    write_chain(work, "steps: {a: {command: b, after: b}, b: {command: a, after: a}}", "circle")
    before = job_ids(slurm)
    env = {**slurm.env, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    assert_refused(scimill("jobs", "submit", "--machine", machine, *words, env=env, cwd=work), message)
    assert job_ids(slurm) == before


def test_a_machine_with_a_missing_scheduler(tmp_path: Path) -> None:
    bare = {"PATH": f"{BIN}:{tmp_path}"}
    result = scimill("jobs", "submit", "--machine", "pbs-generic", *HOUR, *DOCTOR, env=bare, cwd=tmp_path)
    assert_refused(result, "qsub of PBS is not on PATH")


def test_a_folder_that_cannot_be_written_is_reported(slurm: Cluster, tmp_path: Path) -> None:
    (tmp_path / "scimill-jobs").write_text("in the way")
    result = submit(slurm, tmp_path, *HOUR, "--ranks-per-node", 1, *DOCTOR)
    assert (result.returncode, result.tracebacks, len(result.errors)) == (4, 0, 1), result


# ---- scripts that scimill ships ---------------------------------------------------------------------------------


def test_the_scripts_of_the_repository_are_a_fresh_render(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "scripts" / "render_jobs.py", tmp_path], check=True, timeout=300)
    fresh = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*.sh"))
    assert fresh == EXAMPLES
    different = [name for name in fresh if (tmp_path / name).read_text() != (ROOT / "jobs" / name).read_text()]
    assert different == [], "run scripts/render_jobs.py"


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_script_of_the_repository_is_accepted(name: str) -> None:
    path = ROOT / "jobs" / name
    readers = {"slurm": read_slurm, "pbs": read_pbs, "cobalt": read_cobalt, "flux": read_flux}
    reader = readers[name.partition("/")[0]]
    assert reader(path.read_text()).problems == []
    assert os.access(path, os.X_OK)


def test_shellcheck_finds_nothing_in_the_scripts_of_the_repository() -> None:
    command = [BIN / "shellcheck", "-f", "gcc", *(ROOT / "jobs" / name for name in EXAMPLES)]
    checked = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
    assert checked.returncode == 0, checked.stdout


def test_the_scripts_for_slurm_run_as_they_are(slurm: Cluster, tmp_path: Path) -> None:
    """From nothing to a trained network and its sweep, using only sbatch."""
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    generate = slurm.submit(Path("jobs/slurm/droplets-generate.sh"), cwd=tmp_path)
    train = slurm.submit(Path("jobs/slurm/droplets-train.sh"), f"--dependency=afterok:{generate}", cwd=tmp_path)
    sweep = slurm.submit(
        Path("jobs/slurm/droplets-sweep.sh"), f"--dependency=afterok:{train}", "--array=0-1", cwd=tmp_path
    )
    ended = [(job, slurm.wait(job, 240)) for job in (generate, train, sweep)]
    assert [end for _, end in ended] == [(COMPLETED, 0)] * 3, [slurm.output(job) for job, _ in ended]
    assert (tmp_path / "network" / "result.json").exists()
    assert (tmp_path / "trials" / "trial-0001" / "result.json").exists()
    assert all(entry.state in ENDED for entry in slurm.jobs().values())
