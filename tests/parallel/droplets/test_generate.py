"""The bytes of a store do not depend on the number of ranks."""

from pathlib import Path

import pytest

from mpi import dataset_hashes, done_blocks, succeed

CONFIGS = {
    "random": ("--count", 8192),
    "sobol": ("--count", 8192, "--sampling", "sobol", "--seed", 7),
    "three-samples": ("--count", 6144, "--samples", 3),
    "keep-weird": ("--count", 8192, "--keep-weird"),
    "weird-records-cut": ("--count", 8192, "--preset", "ntlp-2026", "--weird-capacity", 0.01),
    "uneven-last-block": ("--count", 8193),
    "fewer-blocks-than-ranks": ("--count", 1000),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_datasets_are_the_same_on_any_number_of_ranks(name: str, tmp_path: Path) -> None:
    ranks = (1, 2, 3, 4) if name == "random" else (1, 2, 3)
    hashes = [_generate(tmp_path / f"{number}.h5", number, CONFIGS[name]) for number in ranks]
    assert len(hashes[0]) >= 9 + 4  # the fields and the ledger
    assert all(other == hashes[0] for other in hashes[1:])


def _generate(path: Path, ranks: int, config: tuple[object, ...]) -> dict[str, str]:
    succeed("droplets", "generate", path, "--block-size", 512, "--tolerance", 1e-4, *config, ranks=ranks)
    assert len(done_blocks(path)) == -(-int(str(config[1])) // 512)
    return dataset_hashes(path)


def test_another_seed_gives_other_bytes(tmp_path: Path) -> None:
    first = _generate(tmp_path / "1.h5", 1, ("--count", 1000, "--seed", 1))
    second = _generate(tmp_path / "2.h5", 1, ("--count", 1000, "--seed", 2))
    assert all(first[name] != second[name] for name in ("initial_radius", "radius", "temperature", "time"))
