"""What ranks ask of the file system when they start: rank 0 reads for all, and writes the cache of compiled kernels."""

import re
from pathlib import Path

import pytest

from mpi import SCIMILL, dataset_hashes, scimill

RANKS = 3
TRACER = 'exec strace -f -y -qq -e trace=%file -o "$0.$OMPI_COMM_WORLD_RANK" "$@"'
WRITES = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|^\d+ +(?:rename|mkdir|unlink)")


def generate(output: Path, cache: Path, *options: object) -> list[list[str]]:
    """Generate under strace, with an own cache of kernels; return the calls with a file name of each rank."""
    program = ("sh", "-c", TRACER, str(output), *SCIMILL)
    words = ("droplets", "generate", output, *options)
    result = scimill(*words, ranks=RANKS, program=program, env={"NUMBA_CACHE_DIR": str(cache)})
    assert result.returncode == 0, result
    return [Path(f"{output}.{rank}").read_text("utf-8", "replace").splitlines() for rank in range(RANKS)]


def naming(path: Path, calls: list[str]) -> list[str]:
    """Return the calls that name a file or what lies in it."""
    return [call for call in calls if f'"{path}' in call]


@pytest.mark.timeout(600)  # every rank compiles the kernel
def test_rank_0_alone_writes_compiled_kernels_and_all_read_them(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    for output in (first, second):
        by_rank = [naming(cache, calls) for calls in generate(output, cache, "--count", 300, "--block-size", 100)]
        assert all(by_rank)
        assert not [call for calls in by_rank[1:] for call in calls if WRITES.search(call)]
        stored = [call for call in by_rank[0] if ".nbc" in call and WRITES.search(call)]
        assert bool(stored) == (output == first)
    opened = [[call for call in calls if ".nbc" in call and call.endswith(">")] for calls in by_rank]
    assert [len(calls) for calls in opened] == [1] * RANKS
    assert dataset_hashes(first) == dataset_hashes(second)


def test_rank_0_alone_reads_the_configuration(tmp_path: Path) -> None:
    settings, cache = tmp_path / "settings.yaml", tmp_path.parent / "kernels"
    settings.write_text("count: 30\n")
    output = tmp_path / "store.h5"
    by_rank = [naming(settings, calls) for calls in generate(output, cache, "--config", settings)]
    assert [len(calls) for calls in by_rank] == [1, 0, 0]


@pytest.mark.parametrize(
    ("content", "message"), [("count: -4\n", "count -4 is out of range"), ("count: [\n", "not valid YAML")]
)
def test_a_wrong_configuration_is_reported_once(tmp_path: Path, content: str, message: str) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(content)
    result = scimill("droplets", "generate", tmp_path / "store.h5", "--config", settings, ranks=RANKS)
    assert result.returncode == 2, result
    assert len(result.errors) == 1 and message in result.errors[0], result
    assert "ends the job" not in result.stderr
