"""Find each node's box: the part of the optical image that the thermal camera sees."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from scimill.errors import InputError, StorageError
from scimill.files import check_directory
from scimill.parallel.report import describe_count
from scimill.parallel.world import World
from scimill.sky.exchange import decode
from scimill.sky.exchange.index import Pair, read_index
from scimill.sky.exchange.nodes import Node, Nodes, read_nodes, write_nodes
from scimill.sky.kernels.camera import WHOLE, Box
from scimill.sky.kernels.information import RankImage, find_box, mean_information, rank_values
from scimill.sky.kernels.resample import shrink
from scimill.sky.params import AlignConfig
from scimill.sky.prepare import centre_box

WIDTH = 384  # columns to which optical images are resized
INNER = (63, 84)  # rows and columns to which thermal images are resized


class AlignedNode(NamedTuple):
    """The result for one row of the table of nodes."""

    node: Node
    pairs: int
    """number of pairs used"""
    information: float
    """mutual information of the box, nats; 0 if no box was found"""
    centre: float
    """mutual information of the centre crop, nats"""


def align(config: AlignConfig, index: Path, nodes_path: Path, world: World) -> list[AlignedNode]:
    """Find a box for each row of a table of nodes; collective, the ranks share the rows.

    Raises
    ------
    InputError : the index or the table cannot be read, or no row has enough pairs.

    """
    pairs = world.on_root(read_index, index)
    nodes = world.on_root(read_nodes, nodes_path)
    mine = [_align_node(config, node, pairs) for node in nodes.rows[world.rank :: world.size]]
    shared = world.gather_all(mine)
    found = [shared[number % world.size][number // world.size] for number in range(len(nodes.rows))]
    if not any(aligned.information for aligned in found):
        needed = describe_count(config.least_pairs, "daytime pair")
        what = f"no node has {needed} with enough contrast"
        world.fail(
            InputError(what, where=str(index), remedy="give more pairs, or lower --least-pairs or --least-contrast")
        )
    return found


def _align_node(config: AlignConfig, node: Node, pairs: Sequence[Pair]) -> AlignedNode:
    own = [
        pair
        for pair in pairs
        if pair.vsn == node.vsn
        and node.valid[0] <= pair.time < node.valid[1]
        and pair.sun_elevation >= config.least_elevation
    ]
    images = _best_images(config, own)
    if len(images) < config.least_pairs:
        return AlignedNode(node, len(images), 0.0, 0.0)
    box, information = find_box(images)
    rows, columns = images[0][0].shape
    centre = mean_information(images, centre_box(rows, columns))
    return AlignedNode(dataclasses.replace(node, box=box), len(images), information, centre)


def _best_images(config: AlignConfig, pairs: Sequence[Pair]) -> list[tuple[RankImage, RankImage]]:
    """Return rank images of the pairs with the strongest clouds, chosen over the whole period."""
    step = max(1, len(pairs) // (4 * config.pairs))
    loaded = []
    for pair in pairs[::step]:
        try:
            celsius = decode.read_thermal(decode.read_bytes(pair.thermal)).celsius
        except decode.UnreadableFile:
            continue
        loaded.append((float(np.subtract(*np.quantile(celsius, (0.9, 0.1)))), pair, celsius))
    chosen = sorted(loaded, key=lambda found: -found[0])[: config.pairs]
    images = []
    for contrast, pair, celsius in chosen:
        if contrast < config.least_contrast:
            continue
        inner = np.empty((*INNER, 1), dtype=np.float32)
        source = np.ascontiguousarray(celsius, dtype=np.float32)[..., None]
        shrink(source, 0.0, 0.0, float(celsius.shape[1]), float(celsius.shape[0]), inner)
        try:
            images.append((_rank_red_blue(pair), rank_values(inner[..., 0])))
        except decode.UnreadableFile:
            continue
    shape = images[0][0].shape if images else (0, 0)
    return [image for image in images if image[0].shape == shape]


def _rank_red_blue(pair: Pair) -> RankImage:
    """Rank red / blue, which is large in clouds and small in blue sky at any exposure."""
    shape = (round(WIDTH * pair.rgb_height / pair.rgb_width), WIDTH)
    image = decode.read_rgb(decode.read_bytes(pair.rgb), WHOLE, shape, fast=True).astype(np.float32)
    return rank_values((image[..., 0] + 1) / (image[..., 2] + 1))


def check_output(path: Path, nodes: Path, overwrite: bool) -> None:
    """Refuse an output that exists or cannot be written.

    Raises
    ------
    StorageError : it exists without `overwrite`, or its directory cannot be written.

    """
    check_directory(path)
    if path.exists() and not overwrite:
        remedy = "use --overwrite to replace it" if path == nodes else "choose another name or use --overwrite"
        raise StorageError("the output already exists", where=str(path), remedy=remedy)


def write_boxes(found: Sequence[AlignedNode], path: Path) -> None:
    """Write the table of nodes with the boxes; a row without a new box keeps its old one."""
    write_nodes(Nodes(aligned.node for aligned in found), path)


def describe_boxes(found: Sequence[AlignedNode]) -> str:
    """Describe the boxes, one line per row of the table of nodes."""
    lines = ["node   pairs  mutual information (centre crop)  left    top     right   bottom"]
    for aligned in found:
        node = aligned.node
        numbers = f"{aligned.information:.3f} ({aligned.centre:.3f})" if aligned.information else "too few pairs"
        lines.append(f"{node.vsn:<7}{aligned.pairs:>5}  {numbers:<33}{_edges(node.box)}")
    return "\n".join(lines)


def _edges(box: Box | None) -> str:
    return "  ".join(f"{edge:.4f}" for edge in box) if box else "none"
