"""The workbook of weird droplets: counts of all, and a capped, unbiased sample of each class.

Sheets and columns are those of the original generator, so existing tools can read them. Every record holds a weird
droplet and its result; the original generator overwrote them with their replacements before writing.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scimill import config as configuration
from scimill.droplets import CAMPAIGN
from scimill.droplets.fields import OUTPUTS
from scimill.droplets.kernels.sampling import INPUTS
from scimill.droplets.kernels.weird import BITS, CLASSES, droplet_classes
from scimill.files import check_workbook, replacing
from scimill.parallel.streams import campaign_stream
from scimill.store.reader import Reader

if TYPE_CHECKING:
    from openpyxl import Workbook

Records = Mapping[str, NDArray[Any]]

INPUT_COLUMNS = {
    "initial_radius": "initial_radius",
    "initial_temperature": "initial_temperature",
    "salinity": "salinity",
    "air_temperature": "air_temperature",
    "relative_humidity": "relative_humidity",
    "rhoa": "air_density",
    "t_final": "time",
}
"""The original generator's column names, and the fields that they hold."""

OUTPUT_COLUMNS = INPUT_COLUMNS | {"radius": "radius", "temperature": "temperature"}
FLAG = "--weird"  # names the workbook
LIMITS = ("accepted_radius", "accepted_temperature", "tolerance", "max_steps", "dry_radius", "seed", "sampling")

ERRORS = {
    "inputs-evaluation_warning": "the state became infinite or not a number",
    "inputs-failed_solve": "the step size fell below what rounding allows",
    "inputs-invalid_inputs": "an input is not physical",
    "inputs-timeout_inputs": "max_steps was reached",
}


def write(store: Path, path: Path, most_rows: int) -> None:
    """Write the workbook of a finished store; replaces an existing workbook.

    Parameters
    ----------
    store : a store of droplets.
    path : the .xlsx file to write.
    most_rows : maximum number of rows per class.

    Raises
    ------
    StorageError : it cannot be written.
    """
    check_workbook(path, FLAG)
    with Reader.open(store) as reader, replacing(path, "workbook") as part, _open_book() as book:
        written = {name: _write_class(reader, book, name, most_rows) for name in CLASSES}
        _write_summary(reader, book, written)
        book.save(part)


@contextmanager
def _open_book() -> "Iterator[Workbook]":
    """Open a workbook whose sheets are temporary files; after a failure, close them silently."""
    from openpyxl import Workbook  # takes 0.2 s, which only the rank that writes a workbook should spend

    book = Workbook(write_only=True)
    try:
        yield book
    except BaseException:
        for sheet in book.worksheets:
            with suppress(Exception):
                sheet.close()
        raise


def _write_class(reader: Reader, book: "Workbook", name: str, most_rows: int) -> int:
    """Write the sheet of a class; return its number of rows."""
    sheet = book.create_sheet(name)
    is_input = name.startswith("inputs-")
    columns = INPUT_COLUMNS if is_input else OUTPUT_COLUMNS
    sheet.append([*columns, "error"] if is_input else list(columns))
    rows = 0
    for records in _sample(reader, name, most_rows):
        for values in zip(*(records[field].tolist() for field in columns.values()), strict=True):
            sheet.append([*values, ERRORS[name]] if is_input else list(values))
            rows += 1
    return rows


def _sample(reader: Reader, name: str, most_rows: int) -> Iterator[Records]:
    """Yield at most `most_rows` records of a class, all with the same probability."""
    stored = np.array([np.count_nonzero(_classes(reader, block) & BITS[name]) for block in _weird_blocks(reader, name)])
    stream = campaign_stream(int(reader.provenance["seed"]), CAMPAIGN.number)
    total = int(stored.sum())
    chosen = np.sort(stream.choice(total, min(most_rows, total), replace=False, shuffle=False))
    ends = np.cumsum(stored)
    for block, first, last in zip(_weird_blocks(reader, name), ends - stored, ends, strict=True):
        picked = chosen[(chosen >= first) & (chosen < last)] - first
        if picked.size:
            records = weird_records(reader, block)
            of_class = np.flatnonzero(records["classes"] & BITS[name])[picked]
            yield {field: values[of_class] for field, values in records.items()}


def _weird_blocks(reader: Reader, name: str) -> list[int]:
    """Find the blocks with records of a class, from the ledger."""
    return np.flatnonzero(reader.column("weird_by_class")[:, CLASSES.index(name)]).tolist()


def _classes(reader: Reader, block: int) -> NDArray[np.uint16]:
    """Read the classes of a block's weird droplets."""
    if reader.layout.tables:
        stored: NDArray[np.uint16] = reader.table_rows(block, reader.layout.tables[0], "classes")
        return stored
    classes = droplet_classes(_flags(reader, block))
    found: NDArray[np.uint16] = classes[classes != 0]
    return found


def _flags(reader: Reader, block: int) -> NDArray[np.uint16]:
    """Read the classes of all results of a block, shape (rows, samples)."""
    flags: NDArray[np.uint16] = reader.rows(block, "weird")
    return flags.reshape(len(flags), -1)


def weird_records(reader: Reader, block: int) -> Records:
    """Read the weird droplets of a block, each at its first weird time: all fields, and ``classes``."""
    names = (*INPUTS, *OUTPUTS)
    if reader.layout.tables:
        table = reader.layout.tables[0]
        return {name: reader.table_rows(block, table, name) for name in (*names, "classes")}
    flags = _flags(reader, block)
    droplets = np.flatnonzero(flags.any(axis=1))
    first = (flags[droplets] != 0).argmax(axis=1)
    records = {name: reader.rows(block, name)[droplets] for name in INPUTS}
    records |= {name: reader.rows(block, name).reshape(flags.shape)[droplets, first] for name in OUTPUTS}
    return records | {"classes": droplet_classes(flags[droplets])}


def _write_summary(reader: Reader, book: "Workbook", written: Mapping[str, int]) -> None:
    """Write counts, shares, limits and seed, and the number of records left out."""
    sheet = book.create_sheet("summary", 0)
    drawn = int(reader.column("attempts").sum())
    totals = reader.column("weird_by_class").sum(axis=0, dtype=np.int64)
    sheet.append(["class", "droplets", "share of droplets drawn", "rows in this workbook", "left out"])
    for name, total in zip(CLASSES, totals.tolist(), strict=True):
        sheet.append([name, total, total / drawn, written[name], total - written[name]])
    sheet.append([])
    sheet.append(["droplets drawn", drawn])
    sheet.append(["droplets in the sample", reader.layout.rows])
    values = configuration.parse_yaml(str(reader.provenance["config"]), "the stored configuration").values
    for key in LIMITS:
        if key in values:
            value = values[key]
            sheet.append([key, *value] if isinstance(value, list) else [key, value])
