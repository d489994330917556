"""Store pairs: each file is decoded once, straight to its place in the parallel file."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scimill import config as configuration
from scimill.campaign import describe_plan
from scimill.errors import ConfigError, InputError
from scimill.parallel.report import describe_count
from scimill.parallel.streams import campaign_stream
from scimill.parallel.world import World
from scimill.sky import CAMPAIGN, fields
from scimill.sky.exchange import decode
from scimill.sky.exchange.index import Pair, read_index
from scimill.sky.exchange.nodes import Nodes, read_nodes
from scimill.sky.kernels import camera
from scimill.sky.kernels.camera import Box
from scimill.sky.kernels.resample import shrink
from scimill.sky.params import PrepareConfig
from scimill.store.checksums import bytes_checksum
from scimill.store.layout import Layout
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.store.writer import BlockData

CENTRE_HEIGHT, CENTRE_ASPECT = 1 / 1.1, 4 / 3  # the original code's crop: height / 1.1, and 4/3 of that wide
RGB_DAMAGED, THERMAL_DAMAGED = 1, 2  # bits of the status, in the order of fields.DAMAGED


class PreparePlan(NamedTuple):
    """What will be stored, decided before the first file is decoded."""

    config: PrepareConfig
    pairs: Sequence[Pair]
    boxes: Sequence[Box]
    layout: Layout


def make_plan(config: PrepareConfig, index: Path, nodes: Path | None) -> PreparePlan:
    """Read the index, and decide on sizes and boxes.

    Raises
    ------
    InputError : the index or the table of nodes cannot be read.
    ConfigError : a node has no box, the thermal images differ in size or are not counts, or `pairs_crc32c` differs.

    """
    pairs = shuffle_pairs(read_index(index), config.seed) if config.shuffled else read_index(index)
    boxes = find_boxes(config, pairs, read_nodes(nodes) if nodes else None)
    thermal = _thermal_shape(config, pairs, index)
    is_native = config.thermal_height is None
    is_counts = is_native and config.thermal != "float32" and all(pair.is_counts for pair in pairs)
    if config.thermal == "counts" and not is_counts:
        bad = next(pair for pair in pairs if not pair.is_counts)
        what = "temperatures are not whole counts of 0.04 K"
        raise ConfigError(what, where=str(bad.thermal), remedy="use --thermal float32")
    longest = [
        max(len(path.name.encode()) for path in paths) for paths in ([p.rgb for p in pairs], [p.thermal for p in pairs])
    ]
    layout = fields.layout(
        len(pairs), config.block_size, (config.rgb_height, config.rgb_width), thermal,
        fields.COUNTS if is_counts else fields.FLOATS, (longest[0], longest[1]),
    )  # fmt: skip
    checksum = _checksum(pairs, boxes)
    if config.pairs_crc32c not in (None, checksum):
        raise ConfigError(f"the pairs or boxes differ: their checksum is {checksum}", where=str(index))
    return PreparePlan(configuration.with_values(config, pairs_crc32c=checksum), pairs, boxes, layout)


def shuffle_pairs(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """Give each colour image the thermal image of another pair."""
    order = campaign_stream(seed, CAMPAIGN.number).permutation(len(pairs))
    successor = np.empty_like(order)
    successor[order] = np.roll(order, -1)  # one cycle through all pairs, so no pair keeps its own
    return [
        dataclasses.replace(pair, thermal=other.thermal, is_counts=other.is_counts)
        for pair, other in zip(pairs, (pairs[number] for number in successor.tolist()), strict=True)
    ]


def find_boxes(config: PrepareConfig, pairs: Sequence[Pair], nodes: Nodes | None) -> list[Box]:
    """Return the part of each pair's optical image that is stored.

    Raises
    ------
    ConfigError : a node has no box (a centre crop would show another field of view).

    """
    if config.crop == "whole":
        return [camera.WHOLE] * len(pairs)
    if config.crop == "centre":
        return [centre_box(pair.rgb_height, pair.rgb_width) for pair in pairs]
    boxes = []
    for pair in pairs:
        node = nodes.at(pair.vsn, pair.time) if nodes else None
        if node is None or node.box is None:
            raise ConfigError(
                f"the field of view of {pair.vsn}'s thermal camera is unknown",
                where="--nodes" if nodes else "--nodes is missing",
                allowed="a table of nodes with box_left, box_top, box_right, box_bottom",
                remedy="find the box with scimill sky align, or use --crop centre or --crop whole",
            )
        boxes.append(node.box)
    return boxes


def centre_box(rows: int, columns: int) -> Box:
    """Return the original code's centre crop, as shares of the image."""
    height = rows * CENTRE_HEIGHT
    share = min(1.0, height * CENTRE_ASPECT / columns)
    return ((1 - share) / 2, (1 - CENTRE_HEIGHT) / 2, (1 + share) / 2, (1 + CENTRE_HEIGHT) / 2)


def _thermal_shape(config: PrepareConfig, pairs: Sequence[Pair], index: Path) -> tuple[int, int]:
    if config.thermal_height is not None and config.thermal_width is not None:
        return config.thermal_height, config.thermal_width
    sizes = Counter((pair.thermal_height, pair.thermal_width) for pair in pairs)
    if len(sizes) > 1:
        listed = ", ".join(f"{number} of {rows} x {columns}" for (rows, columns), number in sizes.most_common(3))
        remedy = "give --thermal-height and --thermal-width"
        raise ConfigError(f"thermal images have different sizes: {listed}", where=str(index), remedy=remedy)
    return next(iter(sizes))


def _checksum(pairs: Sequence[Pair], boxes: Sequence[Box]) -> int:
    rows = [
        (p.time, p.vsn, p.position, p.sun_elevation, p.rgb.name, p.thermal.name, box)
        for p, box in zip(pairs, boxes, strict=True)
    ]
    return int(bytes_checksum(np.frombuffer(repr(rows).encode(), dtype=np.uint8), 0))


def prepare(config: PrepareConfig, index: Path, nodes: Path | None, output: Output, world: World) -> PreparePlan | None:
    """Store all pairs of an index; collective. Return the plan, or None if the store was already complete.

    Raises
    ------
    Stopped : before the walltime or on a signal; rerun with ``resume``.
    ScimillError : see `make_plan`, `store.writer.open_writer`; with ``strict`` a damaged file.

    """
    plan = world.on_root(make_plan, config, index, nodes)
    is_new = CAMPAIGN.fill(
        plan.config, plan.layout, block_maker(plan), output, world,
        maker="prepare", unit="pairs", prepare=lambda: world.on_root(_compile),
    )  # fmt: skip
    return plan if is_new else None


def _compile() -> None:
    """Compile on rank 0, so the other ranks find the result in the cache."""
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    shrink(image, 0.0, 0.0, 8.0, 8.0, np.empty((4, 4, 3), dtype=np.uint8))
    decode.read_thermal(b"\n".join([b";".join([b"1"] * 8)] * 8))


def block_maker(plan: PreparePlan) -> Callable[[int], BlockData]:
    """Return a function that makes a block from its number."""
    rgb_field, thermal_field = (fields.field(plan.layout, name) for name in ("rgb", "thermal"))
    rgb_shape = (rgb_field.shape[0], rgb_field.shape[1])

    def make(block: int) -> BlockData:
        span = plan.layout.span(block)
        pairs = plan.pairs[span]
        rgb = np.zeros((len(pairs), *rgb_field.shape), dtype=np.uint8)
        thermal = np.zeros((len(pairs), *thermal_field.shape), dtype=thermal_field.dtype)
        status = np.zeros(len(pairs), dtype=np.uint8)
        fast = plan.config.decode == "fast"
        for row, (pair, box) in enumerate(zip(pairs, plan.boxes[span], strict=True)):
            try:
                rgb[row] = decode.read_rgb(decode.read_bytes(pair.rgb), box, rgb_shape, fast=fast)
            except decode.UnreadableFile as error:
                status[row] |= _flag_damage(plan.config, pair.rgb, error, RGB_DAMAGED)
            try:
                thermal[row] = load_thermal(pair.thermal, thermal[row])
            except decode.UnreadableFile as error:
                status[row] |= _flag_damage(plan.config, pair.thermal, error, THERMAL_DAMAGED)
        read = thermal[(status & THERMAL_DAMAGED) == 0]
        values = {"rgb": rgb, "thermal": thermal, "status": status, **_columns(pairs)}
        return BlockData(values, ledger=_sums(read) | {"damaged": np.count_nonzero(status)})

    return make


def _flag_damage(config: PrepareConfig, path: Path, error: decode.UnreadableFile, flag: int) -> int:
    if config.strict:
        raise InputError(f"file damaged since it was paired: {error}", where=str(path))
    return flag


def load_thermal(path: Path, like: NDArray[np.generic]) -> NDArray[np.generic]:
    """Read a thermal file into the shape and type of another image: counts, or °C averaged over areas.

    Raises
    ------
    UnreadableFile : it cannot be read, or no longer has counts of this shape.

    """
    image = decode.read_thermal(decode.read_bytes(path))
    if like.dtype == np.uint16:
        if image.counts is None or image.counts.shape != like.shape:
            raise decode.UnreadableFile("the counts or their size have changed")
        return image.counts
    celsius = np.ascontiguousarray(image.celsius, dtype=np.float32)[..., None]
    if celsius.shape[:2] == like.shape:
        return celsius[..., 0]
    result = np.empty((*like.shape, 1), dtype=np.float32)
    shrink(celsius, 0.0, 0.0, float(celsius.shape[1]), float(celsius.shape[0]), result)
    return result[..., 0]


def _columns(pairs: Sequence[Pair]) -> dict[str, NDArray[np.generic]]:
    """Return the fields of a block other than its images and status."""
    return {
        "time": np.array([pair.time for pair in pairs], dtype=np.int64),
        "node": np.array([pair.vsn for pair in pairs], dtype="S8"),
        "position": np.array([pair.position for pair in pairs], dtype=np.int16),
        "pointing": np.array([pair.pointing for pair in pairs], dtype="S4"),
        **{
            name: np.array([getattr(pair, name) for pair in pairs], dtype=np.float32)
            for name in ("sun_elevation", "latitude", "longitude")
        },
        "rgb_file": np.array([pair.rgb.name.encode() for pair in pairs]),
        "thermal_file": np.array([pair.thermal.name.encode() for pair in pairs]),
    }


def _sums(thermal: NDArray[np.generic]) -> dict[str, float]:
    """Return the number of pixels, their sum and sum of squares; for counts in exact integers."""
    exact = thermal.astype(np.int64 if thermal.dtype == np.uint16 else np.float64)
    return {
        "thermal_pixels": exact.size,
        "thermal_sum": float(exact.sum()),
        "thermal_squares": float((exact * exact).sum()),
    }


def describe_preparation(config: PrepareConfig, index: Path, nodes: Path | None, output: Output) -> str:
    """Describe what preparing would do, for ``--dry-run``; see `campaign.describe_plan`."""
    plan = make_plan(config, index, nodes)
    rgb, thermal = (fields.field(plan.layout, name) for name in ("rgb", "thermal"))
    rows = {
        "pairs": f"{len(plan.pairs):,} of {describe_count(len({pair.vsn for pair in plan.pairs}), 'node')}",
        "rgb": f"{rgb.shape[0]} x {rgb.shape[1]}, {rgb.dtype}, crop: {config.crop}",
        "thermal": f"{thermal.shape[0]} x {thermal.shape[1]}, {thermal.dtype}",
    }
    return describe_plan(output, plan.layout, rows)


def describe_pairs(path: Path) -> str:
    """Describe the contents of a finished store."""
    with Reader.open(path) as reader:
        damaged = int(reader.column("damaged").sum())
        moments = fields.thermal_moments(reader)
        pairs = describe_count(reader.layout.rows, "pair")
        words = f"{pairs}, temperature {moments.mean:.2f} ± {moments.deviation:.2f} °C"
        return words + (f"; {damaged:,} damaged since pairing" if damaged else "")
