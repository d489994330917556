import json

import numpy as np
import pytest

from scimill.droplets import fields
from scimill.store.layout import DONE, PENDING, Field, Layout, Table

RADIUS = Field("radius", "float32", "m", "radius", shape=(3,), valid=(0.0, 1e-3))
FLAGS = Field("weird", "uint16", "1", "classes", flags=("small", "large"))
PLAIN = Field("time", "float64", "s", "time")


def layout(rows=1000, block_rows=300):
    table = Table("found", 40, (PLAIN, FLAGS))
    return Layout(rows, block_rows, (RADIUS, FLAGS), (table,), (Field("attempts", "uint32", "1", "draws", shape=(2,)),))


# ---- rows and blocks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "block_rows", "sizes"),
    [
        (1000, 300, [300, 300, 300, 100]),
        (900, 300, [300, 300, 300]),
        (1, 300, [1]),
        (301, 300, [300, 1]),
        (3, 1, [1] * 3),
    ],
)
def test_blocks_cover_all_rows_once(rows, block_rows, sizes):
    of = layout(rows, block_rows)
    assert of.blocks == len(sizes)
    assert [of.rows_in(block) for block in range(of.blocks)] == sizes
    covered = [row for block in range(of.blocks) for row in range(rows)[of.span(block)]]
    assert covered == list(range(rows))


def test_ten_trillion_rows_are_counted_exactly():
    of = layout(10**13, 65_536)
    assert of.blocks == 152_587_891
    assert of.span(of.blocks - 1).stop == 10**13
    assert of.rows_in(of.blocks - 1) == 10**13 - 152_587_890 * 65_536


# ---- datasets ---------------------------------------------------------------------------------------------------


def test_datasets_are_fields_then_tables():
    found = [(field.name, rows) for field, rows in layout().datasets()]
    assert found == [
        ("radius", 1000),
        ("weird", 1000),
        ("found/time", 160),
        ("found/weird", 160),
    ]


def test_a_row_of_the_ledger_has_no_gaps_and_ends_with_its_checksum():
    of = layout()
    assert of.ledger_type.names == ("attempts", "found_rows", "seconds", "crc32c", "state", "row_crc32c")
    assert of.ledger_type.itemsize == sum(column.row_bytes for column in of.columns)


def test_bytes_are_those_of_the_arrays():
    of = layout()
    arrays = [np.empty((rows, *field.shape), field.dtype) for field, rows in of.datasets()]
    assert of.data_bytes == sum(array.nbytes for array in arrays) + np.empty(of.blocks, of.ledger_type).nbytes
    assert [field.row_bytes for field in of.fields] == [12, 2]
    assert of.table_bytes == of.blocks * 40 * (8 + 2)


def test_bytes_of_a_very_large_store_do_not_overflow():
    assert layout(10**13, 65_536).data_bytes > 14 * 10**13


def test_no_bit_flip_turns_one_state_into_another():
    assert {state ^ (1 << bit) for state in (PENDING, DONE) for bit in range(8)}.isdisjoint({PENDING, DONE})


# ---- description ------------------------------------------------------------------------------------------------


def test_json_round_trip():
    of = layout()
    assert Layout.from_json(of.to_json()) == of
    assert hash(Layout.from_json(of.to_json())) == hash(of)
    assert json.loads(of.to_json())["rows"] == 1000


def test_equal_layouts_have_equal_texts():
    assert layout().to_json() == layout().to_json()
    assert layout().to_json() != layout(rows=1001).to_json()


@pytest.mark.parametrize("values", [{}, {"samples": 5}, {"keep_weird": True}, {"keep_weird": True, "samples": 2}])
def test_layouts_of_droplets_survive_json(values, preset, configure):
    of = fields.generation_layout(configure(preset, **values))
    assert Layout.from_json(of.to_json()) == of


def test_layout_of_droplets_follows_the_configuration(configure):
    one, many = (fields.generation_layout(configure(samples=samples)) for samples in (1, 4))
    assert {field.name: field.shape for field in one.fields} == dict.fromkeys(fields.UNITS, ())
    assert {field.name for field in many.fields if field.shape == (4,)} == {"time", "radius", "temperature"}
    assert [table.name for table in one.tables] == ["weird"]
    kept = fields.generation_layout(configure(keep_weird=True))
    assert not kept.tables
    assert kept.fields[-1].name == "weird"
    assert all(field.units for field in (*one.fields, *one.columns))


def test_valid_ranges_hold_every_droplet_drawn(preset, configure, draw):
    config = configure(preset)
    droplets, times = draw(config, 20_000)
    valid = {field.name: field.valid for field in fields.generation_layout(config).fields}
    for name, values in zip((*fields.INPUTS, "time"), (*droplets, times[:, 0]), strict=True):
        low, high = np.array(valid[name], dtype=np.float32)
        assert low <= values.min() <= values.max() <= high
