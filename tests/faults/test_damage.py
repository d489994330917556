"""verify finds every damage of a store, and reports no damage in a clean one."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from mpi import change_ledger, scimill, succeed
from scimill.errors import ScimillError
from scimill.parallel.world import Stop, World
from scimill.store.layout import Field, Layout, Table
from scimill.store.output import Output
from scimill.store.provenance import Provenance
from scimill.store.verify import verify
from scimill.store.writer import BlockData, open_writer

SEED = 5
ALONE = World(None)
Dice = np.random.Generator
PAGE = 4096


def findings(path: Path) -> list[str]:
    """Return the problems that verify finds in a file."""
    try:
        return list(verify(path, ALONE).problems)
    except ScimillError as error:
        return [str(error)]


# ---- damages ----------------------------------------------------------------------------------------------------


KINDS = {"classic": (), "keep-weird": ("--keep-weird",), "three-samples": ("--samples", 3)}


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One store of each kind, without damage."""
    paths = {kind: tmp_path_factory.mktemp(kind) / "droplets.h5" for kind in KINDS}
    for kind, path in paths.items():
        succeed("droplets", "generate", path, "--count", 500, "--block-size", 100, "--tolerance", 1e-4, *KINDS[kind])
        assert findings(path) == []
    return paths


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, stores: dict[str, Path]) -> Path:
    return stores[request.param]


@pytest.fixture
def classic(stores: dict[str, Path], tmp_path: Path) -> Path:
    """Copy the store that has a table, to be damaged."""
    return Path(shutil.copy(stores["classic"], tmp_path))


def places(path: Path, group: str) -> list[range]:
    """Byte ranges in the file of the ledger, of the weird table, or of the sample."""
    with h5py.File(path, "r", locking=False) as file:
        datasets = [file[group]] if group == "blocks" else list(file[group].values())
        spans = [(d.id.get_offset(), d.nbytes) for d in datasets if isinstance(d, h5py.Dataset) and not d.is_scale]
    return [range(offset, offset + length) for offset, length in spans]


def flip(data: bytearray, place: int, dice: Dice) -> str:
    bit = int(dice.integers(8))
    data[place] ^= 1 << bit
    return f"bit {bit} of byte {place}"


def flip_anywhere(data: bytearray, _path: Path, dice: Dice) -> str:
    return flip(data, int(dice.integers(len(data))), dice)


def flip_in(group: str) -> Callable[[bytearray, Path, Dice], str]:
    def damage(data: bytearray, path: Path, dice: Dice) -> str:
        spans = places(path, group)
        span = spans[dice.integers(len(spans))]
        return flip(data, int(dice.choice(span)), dice)

    return damage


def cut(data: bytearray, _path: Path, dice: Dice) -> str:
    length = int(dice.integers(len(data)))
    del data[length:]
    return f"cut to {length}"


def lengthen(data: bytearray, _path: Path, dice: Dice) -> str:
    more = dice.bytes(int(dice.integers(1, 10_000))) if dice.random() < 0.5 else bytes(int(dice.integers(1, 10_000)))
    data += more
    return f"{len(more)} bytes more"


def zero_page(data: bytearray, _path: Path, dice: Dice) -> str:
    full = [place for place in range(0, len(data), PAGE) if any(data[place : place + PAGE])]
    place = int(dice.choice(full))
    data[place : place + PAGE] = bytes(len(data[place : place + PAGE]))
    return f"page at {place} zeroed"


def exchange(data: bytearray, path: Path, dice: Dice) -> str:
    """Exchange two words of one dataset, so that every value is still a written one."""
    spans = [span for span in places(path, "/") + places(path, "blocks") if len(span) >= 8]
    a = b = 0
    while data[a : a + 4] == data[b : b + 4]:
        span = spans[dice.integers(len(spans))]
        a, b = (span.start + 4 * int(word) for word in dice.integers(len(span) // 4, size=2))
    data[a : a + 4], data[b : b + 4] = data[b : b + 4], data[a : a + 4]
    return f"words at {a} and {b} exchanged"


DAMAGES = {
    flip_anywhere: 100,
    flip_in("blocks"): 40,
    flip_in("/"): 40,
    cut: 20,
    lengthen: 10,
    zero_page: 10,
    exchange: 10,
}
"""Each damage with its number of tries on each of three stores: 690 in total."""


def test_every_damage_is_found(store: Path, tmp_path: Path) -> None:
    dice, clean = np.random.default_rng(SEED), store.read_bytes()
    missed = []
    for damage, tries in DAMAGES.items():
        for _ in range(tries):
            data = bytearray(clean)
            description = damage(data, store, dice)
            assert data != clean
            path = tmp_path / "damaged.h5"
            path.write_bytes(data)
            if not findings(path):
                missed.append(description)
    assert missed == []


def test_the_unused_rest_of_a_table_is_covered(classic: Path) -> None:
    clean, dice = classic.read_bytes(), np.random.default_rng(SEED)
    unused = [place for span in places(classic, "weird") for place in span if not clean[place]]
    for place in dice.choice(unused, 50):
        data = bytearray(clean)
        description = flip(data, int(place), dice)
        classic.write_bytes(data)
        assert findings(classic), description


@pytest.mark.parametrize("group", ["blocks", "/", "weird"])
def test_the_command_finds_damage(classic: Path, group: str) -> None:
    data = bytearray(classic.read_bytes())
    description = flip_in(group)(data, classic, np.random.default_rng(SEED))
    classic.write_bytes(data)
    result = scimill("verify", classic)
    assert (result.returncode, len(result.errors), result.tracebacks) == (4, 1, 0), (description, result)
    assert result.stdout.startswith("block "), (description, result)


def test_a_done_mark_on_a_block_to_do_is_found(tmp_path: Path) -> None:
    """A block of a ``.part`` that was never written, but marked done."""
    layout = Layout(40, 10, (Field("x", "float32", "m", "a length"),))
    part = tmp_path / "store.h5.part"
    write_store(tmp_path / "store.h5", layout, np.random.default_rng(SEED), blocks=[0, 1, 3])
    assert findings(part) == []
    with h5py.File(part, "r+", locking=False) as file:
        change_ledger(file, 2, state=255)
    assert findings(part) == ["block 2: its ledger row is damaged"]


# ---- clean files ------------------------------------------------------------------------------------------------


def test_clean_stores_of_random_layouts_are_sound(tmp_path: Path) -> None:
    dice = np.random.default_rng(SEED)
    for number in range(200):
        layout = random_layout(dice)
        path = tmp_path / f"{number}.h5"
        is_whole = dice.random() < 0.8
        blocks = [block for block in range(layout.blocks) if is_whole or dice.random() < 0.5]
        write_store(path, layout, dice, blocks)
        place = path if len(blocks) == layout.blocks else path.with_name(f"{number}.h5.part")
        assert findings(place) == [], layout
        report = verify(place, ALONE)
        assert (report.blocks, report.pending) == (layout.blocks, layout.blocks - len(blocks))
        assert report.rows == layout.rows


DTYPES = ("float32", "float64", "uint8", "int16", "uint32", "int64")


def random_layout(dice: Dice) -> Layout:
    fields = tuple(random_fields(dice, "field", int(dice.integers(1, 6))))
    tables = tuple(
        Table(f"table{n}", int(dice.integers(1, 30)), tuple(random_fields(dice, "column", int(dice.integers(1, 4)))))
        for n in range(dice.integers(0, 3))
    )
    ledger = tuple(random_fields(dice, "count", int(dice.integers(0, 3))))
    return Layout(int(dice.integers(1, 5000)), int(dice.integers(300, 3000)), fields, tables, ledger)


def random_fields(dice: Dice, name: str, count: int) -> Iterator[Field]:
    for number in range(count):
        shape = tuple(int(n) for n in dice.integers(1, 4, size=dice.integers(0, 3)))
        valid = (0.0, 100.0) if dice.random() < 0.5 else None
        yield Field(f"{name}{number}", str(dice.choice(DTYPES)), "1", "random numbers", shape, valid)


def write_store(path: Path, layout: Layout, dice: Dice, blocks: list[int]) -> None:
    writer = open_writer(ALONE, Output(path), layout, Provenance("test", 1, "{}", SEED), lambda _: "", Stop(ALONE))
    assert writer is not None
    for block in dice.permutation(blocks).tolist():
        writer.write(block, random_block(layout, block, dice), started=0.0)
    assert writer.finish() == (len(blocks) == layout.blocks)


def random_block(layout: Layout, block: int, dice: Dice) -> BlockData:
    def draw(field: Field, *rows: int) -> np.ndarray:
        return (100 * dice.random((*rows, *field.shape))).astype(field.dtype)

    def rows(table: Table) -> dict[str, np.ndarray]:
        length = int(dice.integers(0, table.capacity + 1))
        return {field.name: draw(field, length) for field in table.fields}

    return BlockData(
        {field.name: draw(field, layout.rows_in(block)) for field in layout.fields},
        {table.name: rows(table) for table in layout.tables},
        {field.name: draw(field) for field in layout.ledger},
    )
