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
    "another-seed": ("--count", 1000, "--seed", 2),
}
RANKS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a store for each configuration and number of ranks: NAME-RANKS.h5."""
    folder = tmp_path_factory.mktemp("stores")
    same = ("--block-size", 512, "--tolerance", 1e-4)
    for ranks in RANKS:
        names = CONFIGS if ranks < 4 else ["random"]
        for name in names:
            succeed("droplets", "generate", folder / f"{name}-{ranks}.h5", *same, *CONFIGS[name], ranks=ranks)
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_datasets_are_the_same_on_any_number_of_ranks(name: str, folder: Path) -> None:
    paths = [folder / f"{name}-{ranks}.h5" for ranks in (RANKS if name == "random" else RANKS[:3])]
    for path in paths:
        assert len(done_blocks(path)) == -(-int(str(CONFIGS[name][1])) // 512)
    hashes = [dataset_hashes(path) for path in paths]
    assert len(hashes[0]) >= 9 + 4  # the fields and the ledger
    assert all(other == hashes[0] for other in hashes[1:])


def test_another_seed_gives_other_bytes(folder: Path) -> None:
    first, second = (dataset_hashes(folder / f"{name}-1.h5") for name in ("fewer-blocks-than-ranks", "another-seed"))
    assert all(first[name] != second[name] for name in ("initial_radius", "radius", "temperature", "time"))
