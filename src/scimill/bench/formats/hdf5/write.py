"""The workloads in the parallel store: one HDF5 file of several fields, all rows of the same length."""

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import numpy as np

from scimill.bench.dataset.plan import fit_count
from scimill.bench.formats import dlrm
from scimill.bench.formats.bert_tfrecord.write import TRAINING, instance_encoder
from scimill.bench.formats.imseg_npy.cases import MIN_EDGE, Case, fill_image, fill_label, make_cases
from scimill.bench.kernels import sequences, volumes
from scimill.bench.kernels.clicks import CATEGORIES, COUNTS, INTEGER_RANGE, INTEGERS
from scimill.bench.params import PlanConfig, block_size_of
from scimill.store.direct import PAGE
from scimill.store.layout import Field, Layout, Table
from scimill.store.memory import Arrays, block_memory
from scimill.store.writer import BlockData

Memory = Callable[[int], Arrays]


@dataclasses.dataclass(frozen=True)
class StorePlan:
    """The plan of a store.

    Parameters
    ----------
    layout : its structure.
    make : returns the content of a block, valid until the second next call.
    records : number of cases, instances or rows.

    """

    layout: Layout
    make: Callable[[int], BlockData]
    records: int

    @property
    def training(self) -> int:
        """Number of training records: all, because the reader chooses which to hold out."""
        return self.records

    @property
    def size(self) -> int:
        """Bytes of the fields, which the request counts; ledger and structure are extra."""
        return self.layout.rows * sum(field.row_bytes for field in self.layout.fields)


def make_store_plan(config: PlanConfig, request: int) -> StorePlan:
    """Plan a store of `request` bytes of data.

    Raises
    ------
    ConfigError : the request is smaller than a record.

    """
    return {"imseg": _imseg, "bert": _bert, "dlrm": _dlrm}[config.workload](config, request)


def _rows(config: PlanConfig, request: int, fields: tuple[Field, ...], what: str) -> Layout:
    """Make the structure of a store whose records are single rows."""
    row_bytes = sum(field.row_bytes for field in fields)
    rows = fit_count(lambda count: count * row_bytes, request, config.fit, what, row_bytes)
    return Layout(rows, _block_rows(config, fields), fields)


def _block_rows(config: PlanConfig, fields: tuple[Field, ...]) -> int:
    """Rows of a block, chosen so that its part of each field is whole pages; small fields do not count."""
    row_bytes = sum(field.row_bytes for field in fields)
    rows = block_size_of(config) // row_bytes
    large = [field.row_bytes for field in fields if 100 * field.row_bytes > row_bytes]
    step = math.lcm(*(PAGE // math.gcd(PAGE, size) for size in large))
    return max(1, rows if rows < step else rows - rows % step)


def _dlrm(config: PlanConfig, request: int) -> StorePlan:
    most = float(max(INTEGER_RANGE, *COUNTS))
    fields = (
        Field("label", "int32", "1", "1 where the advertisement was clicked", valid=(0.0, 1.0)),
        Field(
            "dense", "int32", "1", "integer features", (INTEGERS,), valid=(0.0, INTEGER_RANGE - 1.0), axes=("integer",)
        ),
        Field("sparse", "int32", "1", "categories", (CATEGORIES,), valid=(0.0, most - 1.0), axes=("category",)),
    )
    layout = _rows(config, request, fields, "row")
    return StorePlan(layout, partial(_dlrm_block, config, layout, block_memory(layout)), layout.rows)


def _dlrm_block(config: PlanConfig, layout: Layout, memory: Memory, block: int) -> BlockData:
    span = layout.span(block)
    content = memory(span.stop - span.start)
    for field, columns in zip(layout.fields, (dlrm.LABEL, dlrm.DENSE, dlrm.SPARSE), strict=True):
        rows = content[field.name]
        dlrm.encoder(config, field.dtype, columns, span.start)(rows.reshape(-1).view(np.uint8), 0, len(rows))
    return BlockData(content)


def _bert(config: PlanConfig, request: int) -> StorePlan:
    tokens, masked = (sequences.TOKENS,), (sequences.MASKED,)
    most = sequences.VOCABULARY - 1.0
    fields = (
        Field("input_ids", "int32", "1", "tokens, 0 behind the last one", tokens, valid=(0.0, most), axes=("token",)),
        Field("input_mask", "int8", "1", "1 for every token", tokens, valid=(0.0, 1.0), axes=("token",)),
        Field(
            "segment_ids",
            "int8",
            "1",
            "1 for every token of the second sentence",
            tokens,
            valid=(0.0, 1.0),
            axes=("token",),
        ),
        Field(
            "masked_lm_positions",
            "int32",
            "1",
            "places of the masked tokens",
            masked,
            valid=(0.0, 511.0),
            axes=("prediction",),
        ),
        Field("masked_lm_ids", "int32", "1", "masked tokens", masked, valid=(0.0, most), axes=("prediction",)),
        Field("next_sentence_labels", "int8", "1", "1 where the second sentence is a random one", valid=(0.0, 1.0)),
    )
    layout = _rows(config, request, fields, "instance")
    return StorePlan(layout, partial(_bert_block, config, layout, block_memory(layout)), layout.rows)


def _bert_block(config: PlanConfig, layout: Layout, memory: Memory, block: int) -> BlockData:
    span = layout.span(block)
    encoder = instance_encoder(config, TRAINING)
    content = memory(span.stop - span.start)
    sequences.fill(sequences.Features(**content), encoder.key, span.start, encoder.is_random)
    return BlockData(content)


def _imseg(config: PlanConfig, request: int) -> StorePlan:
    cases = make_cases(config, request, header_bytes=0)
    fields = (
        Field("image", "float32", "1", "intensities, case after case, each in C order (depth, height, width)",
              valid=(float(volumes.LOW), float(volumes.HIGH))),
        Field("label", "uint8", "1", "0 background, 1 kidney, 2 tumour; in the order of image", valid=(0.0, 2.0)),
    )  # fmt: skip
    block_rows = _block_rows(config, fields)  # a multiple of 8, so a block holds whole words of labels
    case = (
        Field("case", "uint32", "1", "number of the case"),
        Field("first", "int64", "1", "row of its first voxel"),
        Field("shape", "uint32", "1", "depth, height, width", (3,), axes=("dimension",)),
    )
    table = Table("cases", block_rows // MIN_EDGE**3 + 1, case)
    layout = Layout(sum(case.voxels for case in cases), block_rows, fields, (table,))
    firsts = np.cumsum([0, *(case.voxels for case in cases)])
    return StorePlan(layout, partial(_imseg_block, config, layout, block_memory(layout), cases, firsts), len(cases))


def _imseg_block(
    config: PlanConfig, layout: Layout, memory: Memory, cases: list[Case], firsts: np.ndarray, block: int
) -> BlockData:
    """Make a block's voxels, which may belong to several cases, and the table of the cases that begin in it."""
    span = layout.span(block)
    count = span.stop - span.start
    image, label = memory(count).values()
    number = int(np.searchsorted(firsts, span.start, side="right")) - 1
    row = span.start
    while row < span.stop:
        stop = min(span.stop, int(firsts[number + 1]))
        place = slice(row - span.start, stop - span.start)
        image[place], label[place] = _voxels(config, cases[number], row - int(firsts[number]), stop - row)
        row, number = stop, number + 1
    begins = np.flatnonzero((firsts[:-1] >= span.start) & (firsts[:-1] < span.stop))
    shapes = np.array([cases[i].shape for i in begins], dtype=np.uint32).reshape(-1, 3)
    index = {"case": begins.astype(np.uint32), "first": firsts[begins], "shape": shapes}
    return BlockData({"image": image, "label": label}, {"cases": index})


def _voxels(config: PlanConfig, case: Case, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Make image and label of `count` voxels, starting at any one, by making the whole words that hold them."""
    lead = first % 8
    length = -(-(lead + count) // 8) * 8
    image, label = np.empty(length, dtype=np.float32), np.empty(length, dtype=np.uint8)
    fill_image(config, case, image, first - lead)
    fill_label(config, case, label, first - lead)
    return image[lead : lead + count], label[lead : lead + count]
