"""The verdict of verify does not depend on the number of ranks."""

import signal
from pathlib import Path

import h5py
import pytest

from mpi import Result, done_blocks, scimill, start, succeed, wait_until

SIZE = ("--count", 20_000, "--block-size", 512, "--tolerance", 1e-4)
BLOCKS = 40


@pytest.fixture
def store(output: Path) -> Path:
    succeed("droplets", "generate", output, *SIZE)
    return output


def verdicts(path: Path) -> list[Result]:
    return [scimill("verify", path, ranks=ranks) for ranks in (1, 2, 3)]


def flip_bit(path: Path, dataset: str, row: int) -> None:
    with h5py.File(path, "r", locking=False) as file:
        place = file[dataset].id.get_offset() + row * file[dataset].dtype.itemsize
    with path.open("r+b") as raw:
        raw.seek(place)
        byte = raw.read(1)[0]
        raw.seek(place)
        raw.write(bytes([byte ^ 4]))


def test_a_sound_store_is_sound_on_any_number_of_ranks(store: Path) -> None:
    for result in verdicts(store):
        assert result.returncode == 0, result
        assert result.stdout == f"{store}: sound; 20,000 rows in {BLOCKS} blocks\n"


def test_the_same_damage_is_found_on_any_number_of_ranks(store: Path) -> None:
    flip_bit(store, "radius", 700)  # block 1
    flip_bit(store, "weird/salinity", 128 * 38)  # block 38
    flip_bit(store, "blocks", 39)
    expected = [
        "block 1: its data do not match their checksum",
        "block 38: its data do not match their checksum",
        "block 39: its ledger row is damaged",
    ]
    for result in verdicts(store):
        assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
        assert result.stdout.splitlines() == expected
        assert "3 problems found" in result.stderr


@pytest.mark.parametrize("damage", ["seal", "structure", "truncated"])
def test_a_damaged_structure_is_reported_once_on_any_number_of_ranks(store: Path, damage: str) -> None:
    raw = bytearray(store.read_bytes())
    if damage == "truncated":
        del raw[-1]
    else:
        raw[30 if damage == "seal" else 8192 + 9] ^= 1
    store.write_bytes(raw)
    for result in verdicts(store):
        assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), result
        assert damage in result.stderr


def test_a_part_is_sound_with_the_number_of_blocks_to_do(output: Path) -> None:
    part = output.with_name(output.name + ".part")
    with start("droplets", "generate", output, *SIZE, "--tolerance", 1e-12) as job:
        wait_until(lambda: len(done_blocks(part)) >= 3, "three blocks")
        job.kill(0)
    done = len(done_blocks(part))
    assert 3 <= done < BLOCKS
    for result in verdicts(part):
        assert result.returncode == 0, result
        assert f"sound; 20,000 rows in {BLOCKS} blocks, {BLOCKS - done} of them still to do" in result.stdout


def test_a_name_without_part_must_have_no_block_to_do(output: Path) -> None:
    part = output.with_name(output.name + ".part")
    with start("droplets", "generate", output, *SIZE, "--tolerance", 1e-12) as job:
        wait_until(lambda: len(done_blocks(part)) >= 3, "three blocks")
        job.kill(0, signal.SIGTERM)
        job.wait()
    first = min(set(range(BLOCKS)) - set(done_blocks(part)))
    part.rename(output)
    for result in verdicts(output):
        assert result.returncode == 4, result
        assert f"block {first}: its state is 0, not 255 (done)" in result.stdout
