"""Imported stores do not depend on the number of ranks, nor on interruptions; nor do networks trained on them."""

from pathlib import Path

import numpy as np
import pytest

import droplet_traces
from mpi import dataset_hashes, done_blocks, start, succeed, wait_until

PARTICLES, STEPS, CROWD = 23, 40, 50_000
KINDS = ("records", "trace")
BLOCK = ("--block-size", 64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a trace in two files, and records in one, some of both impossible."""
    folder, made = tmp_path_factory.mktemp("files"), droplet_traces.simulate(PARTICLES, STEPS, 0.1)
    made[5, 3, 1], made[20, 7, 4] = -1, np.nan
    droplet_traces.write(folder / "trace-0", made[:, :9])
    droplet_traces.write(folder / "trace-1", made[:, 9:], first=9)
    low, high = [1e-7, 280, 1e-20, 281, 0.9, 1.0, 0.01, 2e-7, 280], [1e-5, 290, 1e-15, 289, 1.01, 1.2, 1.0, 2e-5, 290]
    records = np.random.default_rng(1).uniform(low, high, (1000, 9)).astype("<f4")
    records[[3, 500], 0] = np.nan
    records.tofile(folder / "records-0")
    return folder


def files(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"{kind}-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_any_number_of_ranks_gives_the_same_bytes_and_counts(folder: Path, kind: str, tmp_path: Path) -> None:
    hashes, texts = [], []
    for ranks in (1, 2, 3):
        store = tmp_path / f"{ranks}.h5"
        result = succeed("droplets", "import-data", *files(folder, kind), store, *BLOCK, ranks=ranks)
        hashes.append(dataset_hashes(store))
        texts.append([line for line in result.stderr.splitlines() if "impossible" in line or " give " in line])
    assert hashes[1:] == hashes[:1] * 2
    assert texts[1:] == texts[:1] * 2
    assert any("1 with a radius of 0 or less" in line or "2 with a value" in line for line in texts[0])


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a trace of many particles that do not change, so that an import can be killed half way."""
    path = tmp_path_factory.mktemp("crowd") / "trace"
    made = np.zeros(3 * CROWD, dtype=[("ids", "<i4", 2), ("values", "<f4", 7)])
    made["ids"] = np.stack([np.tile(np.arange(CROWD), 3), np.full(3 * CROWD, 64)], 1)
    made["values"] = [0, 1e-6, 290, 1e-18, 290, 0.98, 1.1]
    made["values"][:, 0] = np.repeat([0, 1, 2], CROWD)
    made.tofile(path)
    return path


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_import_resumes_to_the_same_bytes(crowd: Path, ranks: int, tmp_path: Path) -> None:
    command, part = ("droplets", "import-data", crowd), tmp_path / "killed.h5.part"
    succeed(*command, tmp_path / "whole.h5", *BLOCK)
    with start(*command, tmp_path / "killed.h5", *BLOCK, ranks=ranks) as job:
        wait_until(lambda: len(done_blocks(part)) >= 20, "20 blocks")
        job.kill(ranks - 1)
        assert job.wait().returncode
    assert len(done_blocks(part)) < -(-2 * CROWD // 64), "it was killed before its end"
    succeed(*command, tmp_path / "killed.h5", *BLOCK, "--resume", ranks=3)
    assert dataset_hashes(tmp_path / "killed.h5") == dataset_hashes(tmp_path / "whole.h5")


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_trained_on_imported_data_has_their_ranges_on_any_number_of_ranks(
    folder: Path, kind: str, tmp_path: Path
) -> None:
    store, brief = tmp_path / "store.h5", ("--epochs", 1, "--hidden", 4, "--batch-size", 200)
    succeed("droplets", "import-data", *files(folder, kind), store, *BLOCK)
    networks = []
    for ranks in (1, 2):
        result = succeed("droplets", "train", store, "--output", tmp_path / f"run-{ranks}", *brief, ranks=ranks)
        assert result.stderr.count("the physics of the data is unknown") == 1
        record = (tmp_path / f"run-{ranks}" / "run.json").read_text("utf-8")
        networks.append(record[record.index('"network"') : record.index('"environment"')])
    assert networks[0] == networks[1]
    assert "Infinity" not in networks[0]
    assert "NaN" not in networks[0]
