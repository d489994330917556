"""Read pairs from a store: some for a picture, or all of them to export as loose files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from scimill.errors import StorageError
from scimill.files import check_free, storage_errors
from scimill.parallel.world import World
from scimill.sky import fields
from scimill.sky.exchange import names
from scimill.sky.exchange.loose import thermal_text, write_file
from scimill.store.reader import Reader

QUALITY = 95  # of exported JPG files
TEXT_BYTES = 6.5  # per temperature, for the check of free space

PairRows = dict[str, NDArray[Any]]


def open_pairs(path: Path) -> Reader:
    """Open a finished store of pairs.

    Raises
    ------
    InputError : it is not a store of pairs, or is unfinished.

    """
    reader = Reader.open(path)
    fields.require_sky(reader)
    reader.require_complete()
    return reader


def read_rows(reader: Reader, wanted: NDArray[np.int64]) -> PairRows:
    """Read all fields of the given rows, in the given order."""
    block_rows = reader.layout.block_rows
    parts = []
    for row in wanted.tolist():
        block, at = divmod(row, block_rows)
        parts.append({field.name: reader.rows(block, field.name)[at] for field in reader.layout.fields})
    return {field.name: np.stack([part[field.name] for part in parts]) for field in reader.layout.fields}


def export_pairs(store: Path, folder: Path, world: World, *, overwrite: bool) -> int:
    """Write all undamaged pairs as loose files, in the layout train/{rgb,thermal,pairs}; collective.

    Returns
    -------
    Number of pairs.

    Raises
    ------
    InputError : the store does not exist or is not a store of pairs.
    StorageError : the folder is not empty without `overwrite`, or cannot be written.

    """
    world.on_root(_prepare_folder, store, folder, overwrite)
    with open_pairs(store) as reader:
        written = 0
        for block in range(world.rank, reader.layout.blocks, world.size):
            rows = {field.name: reader.rows(block, field.name) for field in reader.layout.fields}
            for number in np.flatnonzero(rows["status"] == 0).tolist():
                _export({name: values[number] for name, values in rows.items()}, folder)
                written += 1
        return sum(world.gather_all(written))


def _prepare_folder(store: Path, folder: Path, overwrite: bool) -> None:
    with open_pairs(store) as reader, storage_errors(folder, "preparing the folder"):
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not overwrite)):
            remedy = "choose another name, or use --overwrite to write into it"
            raise StorageError("the output already exists", where=str(folder), remedy=remedy)
        if not folder.parent.is_dir():
            remedy = f"mkdir -p {folder.parent}"
            raise StorageError("the output's directory does not exist", where=str(folder.parent), remedy=remedy)
        rgb, thermal = (fields.field(reader.layout, name) for name in ("rgb", "thermal"))
        per_pair = rgb.row_bytes / 4 + np.prod(thermal.shape) * TEXT_BYTES
        check_free(folder, int(reader.layout.rows * per_pair))
        folder.mkdir(exist_ok=True)


def _export(pair: dict[str, Any], folder: Path) -> None:
    time, position = int(pair["time"]), int(pair["position"])
    node = pair["node"].decode()
    rgb = Path("processed", node, names.rgb(time, pair["rgb"].shape[:2], position))
    thermal = Path(node, names.thermal(time, pair["thermal"].shape, position))
    image = simplejpeg.encode_jpeg(np.ascontiguousarray(pair["rgb"]), quality=QUALITY)
    write_file(folder / "train/rgb" / rgb, image)
    write_file(folder / "train/thermal" / thermal, thermal_text(pair["thermal"]))
    write_file(folder / "train/pairs" / node / f"{time}.txt", f"{rgb}\n{thermal}\n".encode())


def pick_rows(reader: Reader, count: int) -> NDArray[np.int64]:
    """Pick at most `count` rows of undamaged pairs, evenly over the store."""
    whole = np.flatnonzero(np.concatenate(list(_status(reader))) == 0)
    chosen: NDArray[np.int64] = whole[np.unique(np.linspace(0, len(whole) - 1, count).round().astype(np.int64))]
    return chosen


def _status(reader: Reader) -> Iterator[NDArray[Any]]:
    for block in range(reader.layout.blocks):
        yield reader.rows(block, "status")
