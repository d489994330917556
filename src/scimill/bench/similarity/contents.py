"""Similarity of two datasets in files, records, values and bytes; docs/bench.md defines our metric."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scimill.bench.kernels.similarity import SIZE_SCALE, SimilarityPart, compare_by_kind, divergence, largest_difference
from scimill.bench.similarity.samples import DatasetSample, Random, Readable
from scimill.store.checksums import crc32c

Sizes = Mapping[str, NDArray[np.int64]]

PAGE = 4096  # bytes; storage systems that share equal blocks compare blocks of this size
PAGES = 1 << 15  # pages to compare: 128 MiB
SPAN = 1 << 16  # bytes to compress at once
SPANS = 64  # spans to compress


@dataclass(frozen=True)
class Redundancy:
    """How much a dataset shrinks on storage that compresses or shares equal blocks.

    Attributes
    ----------
    compressed : size after zlib at level 1, as a share of the size before.
    duplicates : share of the 4 KiB blocks that equal an earlier one.

    """

    compressed: float
    duplicates: float


def measure_redundancy(files: Sequence[Readable], random: Random) -> Redundancy:
    """Compress and compare blocks at random places.

    Blocks are compared at the same offsets of all files, so that copies of files are found.
    """
    sizes = np.array([file.size for file in files], dtype=np.int64)
    return Redundancy(_compressed(files, sizes, random), _duplicates(files, sizes, random))


def _compressed(files: Sequence[Readable], sizes: np.ndarray, random: Random) -> float:
    before = after = 0
    for number in random.choice(len(files), SPANS, p=sizes / sizes.sum()):
        offset = int(random.integers(0, max(1, sizes[number] - SPAN)))
        content = files[number].read(offset, min(SPAN, int(sizes[number]) - offset)).tobytes()
        before, after = before + len(content), after + len(zlib.compress(content, 1))
    return min(1.0, after / max(1, before))


def _duplicates(files: Sequence[Readable], sizes: np.ndarray, random: Random) -> float:
    pages = sizes // PAGE
    share = min(1.0, PAGES / max(1, int(pages.sum())))
    taken = np.flatnonzero(random.random(int(pages.max())) < share) if share < 1 else np.arange(int(pages.max()))
    seen: set[tuple[int, int]] = set()
    count = 0
    for file, here in zip(files, pages.tolist(), strict=True):
        for page in taken[: np.searchsorted(taken, here)].tolist():
            content = file.read(page * PAGE, PAGE).data
            seen.add((int(crc32c(content)), zlib.crc32(content)))
            count += 1
    return 1.0 - len(seen) / count if count else 0.0


def compare_data(a: tuple[DatasetSample, Redundancy], b: tuple[DatasetSample, Redundancy]) -> dict[str, SimilarityPart]:
    """Compare two datasets part by part."""
    samples, redundancies = (a[0], b[0]), (a[1], b[1])
    shares = [{kind: float(sizes.sum()) for kind, sizes in sample.sizes.items()} for sample in samples]
    sizes = _drop_single_files(samples[0].sizes, samples[1].sizes)
    return {
        "names": SimilarityPart(1.0 - divergence(*shares)),
        "files": compare_by_kind(*sizes, scale=SIZE_SCALE),
        "records": compare_by_kind({"record": samples[0].records}, {"record": samples[1].records}, SIZE_SCALE),
        "values": compare_fields(samples[0].fields, samples[1].fields),
        "compression": SimilarityPart(1.0 - abs(redundancies[0].compressed - redundancies[1].compressed)),
        "duplicates": SimilarityPart(1.0 - abs(redundancies[0].duplicates - redundancies[1].duplicates)),
    }


def _drop_single_files(a: Sizes, b: Sizes) -> tuple[Sizes, Sizes]:
    """Leave out kinds with one file in each dataset: its size is the dataset's size, not a distribution."""
    kinds = [kind for kind in {**a, **b} if len(a.get(kind, ())) != 1 or len(b.get(kind, ())) != 1]
    return {kind: a[kind] for kind in kinds if kind in a}, {kind: b[kind] for kind in kinds if kind in b}


def compare_fields(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> SimilarityPart:
    """Compare fields by 1 - their Kolmogorov-Smirnov distance; a field that only one side has counts 0."""
    details = {
        name: 1.0 - largest_difference(a[name], b[name]) if name in a and name in b else 0.0
        for name in [*a, *(name for name in b if name not in a)]
    }
    return SimilarityPart(sum(details.values()) / len(details), details)
