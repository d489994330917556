"""The index of pairs: a CSV file with one row per pair, in order of time."""

import csv
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scimill.errors import InputError
from scimill.files import replacing
from scimill.sky.exchange.nodes import parse_number, read_time, write_time


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two images taken at one instant."""

    time: int
    """ns since 1970-01-01 UTC"""
    vsn: str
    position: int
    pointing: str
    """compass code of the direction of view, such as "SWS"; empty if unknown"""
    sun_elevation: float
    latitude: float
    longitude: float
    rgb_height: int
    rgb_width: int
    thermal_height: int
    thermal_width: int
    is_counts: bool
    """whether all temperatures are whole counts of 0.04 K"""
    rgb: Path
    thermal: Path


COLUMNS = tuple(field.name for field in dataclasses.fields(Pair))
INTEGER_SUFFIXES = ("height", "width", "position")
"""Endings of the names of integer columns."""


def write_index(pairs: Sequence[Pair], path: Path) -> None:
    """Write an index, replacing an existing one; paths become relative to its folder."""
    with replacing(path, "index") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for pair in pairs:
            writer.writerow(_to_row(pair, path.parent))


def _to_row(pair: Pair, folder: Path) -> list[object]:
    files = [os.path.relpath(name, folder) for name in (pair.rgb, pair.thermal)]
    values = [getattr(pair, name) for name in COLUMNS[1:-3]]
    words = [f"{value:.6f}" if isinstance(value, float) else value for value in values]
    return [write_time(pair.time), *words, int(pair.is_counts), *files]


def read_index(path: Path) -> list[Pair]:
    """Read an index.

    Raises
    ------
    InputError : it does not exist, is not an index, or has no pairs.

    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise InputError("not an index of pairs", where=str(path), remedy="make one with scimill sky pair")
            pairs = [_from_row(row, path, number) for number, row in enumerate(reader, 2)]
    except OSError as error:
        raise InputError.unreadable("index", error, path) from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError("not an index of pairs", where=str(path), remedy="make one with scimill sky pair") from None
    if not pairs:
        raise InputError("the index has no pairs", where=str(path))
    return pairs


def _from_row(row: dict[str, str], path: Path, number: int) -> Pair:
    try:
        values: dict[str, Any] = {
            name: parse_number(row, name, int) for name in COLUMNS if name.endswith(INTEGER_SUFFIXES)
        }
        values |= {name: parse_number(row, name, float) for name in ("sun_elevation", "latitude", "longitude")}
        return Pair(
            time=read_time(row["time"]), vsn=row["vsn"], pointing=row["pointing"], is_counts=row["is_counts"] == "1",
            rgb=path.parent / row["rgb"], thermal=path.parent / row["thermal"], **values,
        )  # fmt: skip
    except (ValueError, TypeError) as error:
        reason = str(error) if isinstance(error, ValueError) else "columns are missing"
        raise InputError(f"not a row of an index of pairs: {reason}", where=f"{path}, line {number}") from None
