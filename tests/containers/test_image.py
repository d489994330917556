"""The image that scimill.def makes: the same bytes as outside, under both launchers, as a command and in a job."""

import hashlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.utils import canonicalize_name

from containers.conftest import CACHE, LIMIT, ROOT
from mpi import PEERS, Result, dataset_hashes, done_blocks, scimill, start, succeed, wait_until

pytestmark = pytest.mark.timeout(LIMIT + 60)
"""The first test that uses the image may have to build it."""
GENERATE = ("droplets", "generate")
SAMPLE = ("--count", 3000, "--seed", 5, "--preset", "ntlp-2026")
LABELS = {"git", "base", "scimill", "torch", "horovod", "h5py", "mpi4py", "python", "hdf5", "mpi"}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The store that this machine itself generates."""
    path = tmp_path_factory.mktemp("outside") / "droplets.h5"
    succeed(*GENERATE, path, *SAMPLE)
    return dataset_hashes(path)


def inside(image: Path, folder: Path, *options: object, ranks: int = 1, words: tuple[str, ...] = ()) -> Result:
    """Run a command of the image under this machine's mpirun, in a folder of this machine."""
    apptainer = ("apptainer", "exec", "--bind", str(folder), "--pwd", str(folder), *words, str(image))
    return scimill(*options, ranks=ranks, program=apptainer)


# ---- the bytes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_hosts_mpirun_starts_ranks_in_images_that_write_the_same_bytes(
    image: Path, output: Path, outside: dict[str, str], ranks: int
) -> None:
    result = inside(image, output.parent, "scimill", *GENERATE, output, *SAMPLE, ranks=ranks)
    assert result.returncode == 0, result
    assert dataset_hashes(output) == outside


def test_the_images_own_mpirun_writes_the_same_bytes(image: Path, output: Path, outside: dict[str, str]) -> None:
    result = inside(image, output.parent, "mpirun", "-n", 2, "scimill", *GENERATE, output, *SAMPLE)
    assert result.returncode == 0, result
    assert dataset_hashes(output) == outside
    assert inside(image, output.parent, "scimill", "verify", output).returncode == 0


def test_a_run_that_was_started_outside_is_completed_in_the_image(
    image: Path, output: Path, outside: dict[str, str]
) -> None:
    sample = ("--count", "3e5", "--seed", 5, "--block-size", 2000)
    with start(*GENERATE, output, *sample) as job:
        wait_until(lambda: done_blocks(output.with_name(output.name + ".part")), "a block")
        job.kill(0, signal.SIGTERM)
        stopped = job.wait()
    resumed = inside(image, output.parent, "scimill", *GENERATE, output, *sample, "--resume", ranks=2)
    assert (stopped.returncode, resumed.returncode) == (75, 0), (stopped, resumed)
    whole = output.with_name("whole.h5")
    succeed(*GENERATE, whole, *sample)
    assert dataset_hashes(output) == dataset_hashes(whole)


def test_ranks_see_each_other_and_reduce_with_horovod(image: Path, tmp_path: Path) -> None:
    program = (
        "import os, torch, horovod.torch as hvd; hvd.init(); "
        "total = hvd.allreduce(torch.tensor([2.0 ** hvd.rank()]), op=hvd.Sum).item(); "
        "os.write(1, f'sum {total}\\n'.encode())"  # at once, so that no rank's line comes between
    )
    result = inside(image, tmp_path, "python", "-c", program, ranks=3)
    assert result.returncode == 0, result
    assert result.stdout.splitlines() == ["sum 7.0"] * 3


def test_the_network_is_trained_in_the_image(image: Path, output: Path) -> None:
    succeed(*GENERATE, output, "--count", 4000, "--block-size", 100)
    run = output.with_name("run")
    words = ("scimill", "droplets", "train", output, "--output", run, "--epochs", 1, "--batch-size", 100)
    result = inside(image, output.parent, *words, ranks=2)
    assert result.returncode == 0, result
    assert (run / "metrics.csv").exists()


# ---- the image is the command -----------------------------------------------------------------------------------


def test_the_image_is_the_command(image: Path, output: Path) -> None:
    usage = scimill("--help", program=(str(image),))
    assert usage.returncode == 0 and usage.stdout.startswith("Usage: scimill"), usage
    words = ("run", "--bind", str(output.parent), str(image))
    result = scimill(*words, *GENERATE, output, "--count", 100, program=("apptainer",))
    assert result.returncode == 0, result
    assert output.exists()


@pytest.mark.parametrize(
    "words, code",
    [
        (("droplets", "generate", "a.h5", "--count", "-1"), 2),
        (("verify", "there-is-none.h5"), 3),
        (("droplets", "generate", "/proc/a.h5", "--count", "10"), 4),
    ],
)
def test_exit_codes_and_messages_pass_through(image: Path, tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    result = inside(image, tmp_path, "scimill", *words)
    assert result.returncode == code, result
    assert len(result.errors) == 1 and not result.tracebacks, result
    assert len(result.stderr.strip().splitlines()) <= 4, result


def test_a_failure_of_one_rank_ends_the_ranks_in_all_images(image: Path, tmp_path: Path) -> None:
    result = inside(image, tmp_path, "scimill", "verify", "there-is-none.h5", ranks=2)
    assert result.returncode == 3, result
    assert len(result.errors) == 1, result


@pytest.mark.needs("MPICH")
def test_a_launcher_of_another_mpi_is_recognised(image: Path, tmp_path: Path) -> None:
    """MPICH's mpiexec starts Open MPI ranks that do not see each other: none of them may write."""
    words = ("-n", "2", "apptainer", "exec", image, "scimill", *GENERATE, tmp_path / "a.h5", *SAMPLE)
    result = scimill(*words, program=(str(PEERS / "mpich" / "bin" / "mpiexec"),))
    assert result.returncode == 2, result
    assert set(result.errors) == {
        "scimill: error: the launcher started 2 processes, but MPI sees 1: two different MPIs"
    }
    assert list(tmp_path.iterdir()) == []


def test_its_own_test_passes(image: Path) -> None:
    result = scimill("test", image, program=("apptainer",), timeout=LIMIT)
    assert result.returncode == 0, result
    assert result.stdout.splitlines()[-1] == "image: all tests passed"


def test_apps_and_help(image: Path) -> None:
    doctor = scimill("run", "--app", "doctor", image, program=("apptainer",))
    assert doctor.returncode == 0, doctor
    two = scimill("run", "--app", "mpirun", image, "-n", 2, "echo", "here", program=("apptainer",))
    assert two.stdout.split() == ["here", "here"], two
    assert "The image is the command" in scimill("run-help", image, program=("apptainer",)).stdout


def test_labels_say_what_it_holds(image: Path) -> None:
    result = scimill("inspect", "--json", image, program=("apptainer",))
    labels = json.loads(result.stdout)["data"]["attributes"]["labels"]
    assert set(labels) >= LABELS, result
    assert labels["scimill"] == succeed("--version").stdout.split()[-1]
    assert "Open MPI" in labels["mpi"] and labels["horovod"] == "0.28.1"
    assert labels["system"].startswith("Debian GNU/Linux")
    locks = b"".join(path.read_bytes() for path in sorted((ROOT / "scripts" / "locks").glob("*.txt")))
    assert labels["locks"] == hashlib.sha256(locks).hexdigest()[:16]


def test_it_names_no_path_and_no_setting_of_the_machine_that_built_it(image: Path) -> None:
    result = scimill("inspect", "--json", "--all", image, program=("apptainer",))
    assert result.returncode == 0, result
    assert '"deffile"' in result.stdout
    for word in (str(ROOT), str(CACHE.expanduser()), str(Path.home()), "PIP_", "index-url"):
        assert word not in result.stdout.replace("HOME=/root", ""), word


def test_no_library_in_it_is_searched_for_in_a_folder_of_the_machine_that_built_it(image: Path) -> None:
    """A wheel that was built on the host could name the folder of the host's Python."""
    words = ("env", "LD_DEBUG=libs", "python", "-c", "import h5py, horovod.torch")
    found = scimill("exec", image, *words, program=("apptainer",))
    assert found.returncode == 0 and "find library=libhdf5" in found.stderr, found
    for folder in {str(ROOT), str(CACHE.expanduser()), sys.base_prefix} - {"/usr"}:
        assert f"{folder}/" not in found.stderr


def test_it_has_the_licences_of_all_its_packages(image: Path) -> None:
    text = scimill("run", "--app", "licences", image, program=("apptainer",)).stdout
    parts = re.split(r"^={80}\n(\S+) \S+ (\((?:Debian|Python)\))\n={80}\n", text, flags=re.M)[1:]
    licences = dict(zip(zip(parts[::3], parts[1::3], strict=True), parts[2::3], strict=True))
    listed = "import importlib.metadata as m; print(*(each.name for each in m.distributions()))"
    packages = scimill("run", "--app", "python", image, "-c", listed, program=("apptainer",)).stdout.split()
    assert licences.keys() >= {(name, "(Python)") for name in packages}
    assert licences.keys() >= {("libc6", "(Debian)"), ("openmpi-bin", "(Debian)")}
    assert all(each.strip() for each in licences.values())
    assert "free GPL" in licences["pyFFTW", "(Python)"]
    assert "www.gnu.org/licenses" in licences["libc6", "(Debian)"]


def sbom(image: Path, *, debian: bool) -> list[dict[str, Any]]:
    """Return the Debian packages, or the others, of the image's SBOM."""
    text = scimill("exec", image, "cat", "/opt/scimill/sbom.cdx.json", program=("apptainer",)).stdout
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    return [each for each in document["components"] if each.get("purl", "").startswith("pkg:deb/") == debian]


def named(components: list[dict[str, Any]]) -> list[str]:
    return sorted(f"{each['name']} {each['version']}" for each in components)


def test_its_sbom_lists_what_is_installed(image: Path) -> None:
    python = "import importlib.metadata as m; [print(each.name, each.version) for each in m.distributions()]"
    packages = scimill("exec", image, "python", "-c", python, program=("apptainer",)).stdout
    debian = scimill("exec", image, "dpkg-query", "-W", "-f", "${Package} ${Version}\n", program=("apptainer",)).stdout
    assert named(sbom(image, debian=True)) == sorted(debian.splitlines())
    assert named(sbom(image, debian=False)) == sorted(packages.splitlines())


def test_its_python_packages_are_those_of_the_locks(image: Path) -> None:
    """Each has the hashes of its lock, one of which the installed file has, or that of which it was built."""
    locked = {}
    for lock in ("scimill", "torch-cpu"):
        text = (ROOT / "scripts" / "locks" / f"{lock}.txt").read_text()
        for name, version, hashes in re.findall(r"^([a-z0-9-]+)==(\S+)(.*(?:\n    .*)*)", text, re.M):
            locked[name, version] = set(re.findall(r"sha256:(\w+)", hashes))
    for each in sbom(image, debian=False):
        if each["name"] != "scimill":
            hashes = {value["content"] for link in each["externalReferences"] for value in link["hashes"]}
            assert hashes == locked[canonicalize_name(each["name"]), each["version"]] and hashes, each["name"]


def test_without_gpus_nv_is_harmless(image: Path, tmp_path: Path) -> None:
    result = inside(image, tmp_path, "scimill", "--version", words=("--nv",))
    assert result.returncode == 0, result


def test_packages_of_the_hosts_user_stay_outside(image: Path, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('this numpy is the host\\'s')\n")
    command = ["apptainer", "exec", "--bind", tmp_path, image, "python", "-c", "import numpy; print(numpy.__file__)"]
    env = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=env)
    assert done.returncode == 0 and done.stdout.startswith("/opt/scimill/.venv/"), done


def test_only_what_running_needs_is_in_it(image: Path) -> None:
    script = "command -v c++ cmake pip; find / -xdev -name '*.a' -o -xdev -name Python.h -o -xdev -name ATen.h"
    result = scimill("exec", "--containall", image, "sh", "-c", script, program=("apptainer",))
    assert result.stdout == "", result


def test_no_program_in_it_runs_as_another_user(image: Path) -> None:
    found = subprocess.run(
        ["apptainer", "exec", image, "find", "/", "-xdev", "-type", "f", "-perm", "/6000"],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert found.stdout == "", found


# ---- in a job ---------------------------------------------------------------------------------------------------


def test_a_job_runs_its_ranks_in_the_image(image: Path, tmp_path: Path, outside: dict[str, str]) -> None:
    words = ("scimill", *GENERATE, "droplets.h5", *SAMPLE)
    resources = ("--machine", "local", "--ranks-per-node", 2, "--walltime", "10min", "--image", image)
    script = tmp_path / "job.sh"
    script.write_text(succeed("jobs", "render", *resources, "--", *words).stdout)
    result = scimill(script, program=("bash",), cwd=tmp_path)
    assert result.returncode == 0, result
    assert dataset_hashes(tmp_path / "droplets.h5") == outside
    (digest,) = tmp_path.glob("scimill-jobs/*/image.sha256")
    assert str(image) in digest.read_text()
