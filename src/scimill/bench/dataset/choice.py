"""Choose the pieces of an input for a scaled dataset and how each one changes; describe the result."""

import functools
from collections.abc import Sequence

import numpy as np

from scimill import config as configuration
from scimill.bench import CAMPAIGN
from scimill.bench.dataset.pieces import Change, Changes
from scimill.bench.dataset.plan import fit_count, too_small_error
from scimill.bench.formats.source import ScannedDataset
from scimill.bench.kernels.counter import low_half, stream_key, word
from scimill.bench.kernels.perturbation import happens
from scimill.bench.kernels.scaling import Picks, pick
from scimill.bench.params import ScaleConfig
from scimill.parallel.report import describe_count
from scimill.parallel.streams import block_stream
from scimill.store.checksums import crc32c

STREAM = 90  # random stream for the choice and changes in the first part; each later part uses the next stream
PIECES = 2**40  # words of a stream for each pass over all pieces; more than any part has pieces


def choose(config: ScaleConfig, source: ScannedDataset) -> list[Picks]:
    """Choose pieces of each part: of the first (training) to meet the size, of the others in proportion."""
    request = config.size
    ratio = request / source.total([part.size for part in source.parts])
    others = [pick_share(config, source, number, ratio) for number in range(1, len(source.parts))]
    sizes = [picks.total for picks in others]
    if source.unit > 1:
        least = source.total([1, *sizes])
        if request < least:
            raise too_small_error(request, least, source.record)
        count = fit_count(lambda n: source.total([n, *sizes]), request, config.fit, source.record, source.unit)
    else:
        count = request - source.total([0, *sizes])
    first = pick_part(config, source, 0, count, config.fit) if count > 0 else None
    if first is None or not len(first.piece):
        smallest = int(source.lengths(0, 0)[0])  # the first record serves as an example
        raise too_small_error(request, source.total([smallest, *sizes]), source.record)
    return [first, *others]


def pick_share(config: ScaleConfig, source: ScannedDataset, part: int, ratio: float) -> Picks:
    """Choose pieces of a part in proportion, at least one record."""
    whole = source.parts[part]
    request = max(1, round(whole.size * (ratio if whole.grows else min(1.0, ratio))))
    picks = pick_part(config, source, part, request, "nearest")
    return picks if len(picks.piece) else pick_part(config, source, part, request, "at-least")


def pick_part(config: ScaleConfig, source: ScannedDataset, part: int, request: int, fit: str) -> Picks:
    """Choose pieces of one part."""
    random = block_stream(config.seed, CAMPAIGN.number, STREAM + part)
    shuffled = config.mode == "permute"
    return pick(source.parts[part].pieces, request, fit, shuffled, random, functools.partial(source.lengths, part))


def make_changes(config: ScaleConfig) -> Changes:
    """Return the function that computes how each pick changes."""
    keys: dict[int, np.uint64] = {}

    def change(part: int, picks: Picks, index: int) -> Change:
        times = int(picks.times[index])
        if times == 0 or config.mode in ("copy", "reflink"):
            return Change()
        key = keys.setdefault(part, stream_key(config.seed, CAMPAIGN.number, STREAM + part))
        with np.errstate(over="ignore"):  # words wrap around
            random = np.uint64(word(key, np.uint64(times * PIECES + int(picks.piece[index]))))
            is_copied = happens(low_half(np.uint64(word(random, np.uint64(0)))), config.duplicates)
        if is_copied:
            return Change()
        return Change(random | np.uint64(2), config.mode == "permute", config.noise, config.compressible)

    return change


def fingerprint(source: ScannedDataset) -> str:
    """Checksum of the names, sizes and times of an input's files; it shows whether the input has changed."""
    crc = 0
    for part in source.parts:
        for path in part.files:
            status = path.stat()
            crc = crc32c(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode(), crc)
    return f"{crc:08x}"


def describe_difference(config: ScaleConfig, identity: str, stored: str) -> str:
    """Describe how a stored configuration and input differ from these; see `config.explainer`."""
    was = configuration.parse_yaml(stored, "the stored configuration").values.get("input")
    if str(was) != identity:
        return "the input is a different dataset, or has changed"
    return configuration.explainer(config)(stored)


def duplicate_share(config: ScaleConfig, picks: Sequence[Picks]) -> float:
    """Share of the bytes in unchanged copies of records that occur elsewhere in the dataset."""
    change = make_changes(config)
    copied = 0
    for part, part_picks in enumerate(picks):
        again = np.flatnonzero(part_picks.times)
        if config.mode == "perturb":  # search many pieces only if some of them are copies
            again = again if config.duplicates else again[:0]
            again = np.array([i for i in again.tolist() if change(part, part_picks, i).is_copy], dtype=np.int64)
        copied += int(part_picks.size[again].sum())
    return copied / sum(part_picks.total for part_picks in picks)


def describe_scaled(config: ScaleConfig, source: ScannedDataset, picks: Sequence[Picks], size: int) -> str:
    """Describe a scaled dataset of `size` bytes: records, bytes, share of duplicates and of each part."""
    before = source.total([part.size for part in source.parts])
    records = sum(int(part_picks.records.sum()) for part_picks in picks)
    text = f"{describe_count(records, 'record')}, {size:,} bytes ({size / before:.4g} times the input)"
    text += f", {duplicate_share(config, picks):.2%} duplicates"
    if len(picks) > 1:
        total = sum(part_picks.total for part_picks in picks)
        each = zip(source.parts, picks, strict=True)
        text += "; " + ", ".join(f"{part.name} {part_picks.total / total:.2%}" for part, part_picks in each)
    return text
