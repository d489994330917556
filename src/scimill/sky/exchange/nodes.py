"""The table of nodes: the place and camera alignment of each node, with dates."""

import csv
import dataclasses
import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from scimill.errors import InputError
from scimill.files import replacing
from scimill.sky.kernels.camera import Box

COLUMNS = (
    "vsn", "node_id", "latitude", "longitude", "altitude", "valid_from", "valid_to", "south_preset",
    "box_left", "box_top", "box_right", "box_bottom",
)  # fmt: skip
"""Columns of the table; dates in ISO 8601, UTC; the box as shares of the optical image, empty if unknown."""

ALWAYS = (-(2**63), 2**63 - 1)
N = TypeVar("N", int, float)


@dataclasses.dataclass(frozen=True)
class Node:
    """A node at a place."""

    vsn: str
    node_id: str
    latitude: float
    longitude: float
    altitude: float = 0.0
    valid: tuple[int, int] = ALWAYS
    """start (included) and end (excluded), ns since 1970-01-01 UTC"""
    south_preset: int = 1
    box: Box | None = None


class Nodes:
    """A table of nodes, to look up by name or id, and time.

    Parameters
    ----------
    rows : the places of the nodes.

    """

    def __init__(self, rows: Iterable[Node]) -> None:
        self.rows = tuple(rows)
        self._names = {name: row.vsn for row in self.rows for name in (row.vsn.upper(), row.node_id.lower()) if name}

    def vsn(self, name: str) -> str | None:
        """Return the name of a node given by name or id; None if unknown."""
        return self._names.get(name.upper()) or self._names.get(name.lower())

    def at(self, vsn: str, time: int) -> Node | None:
        """Return the row of a node at a time, in ns; None if unknown."""
        return next((n for n in self.rows if n.vsn == vsn and n.valid[0] <= time < n.valid[1]), None)


def read_nodes(path: Path) -> Nodes:
    """Read a table of nodes.

    Raises
    ------
    InputError : it does not exist, is not such a table, or two rows of a node overlap in time.

    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [_row(path, number, row) for number, row in enumerate(csv.DictReader(file), 2)]
    except OSError as error:
        raise InputError.unreadable("table of nodes", error, path) from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError("not a table of nodes", where=str(path), allowed="CSV text") from None
    if not rows:
        raise InputError("the table of nodes is empty", where=str(path), allowed=",".join(COLUMNS))
    _check_disjoint(path, rows)
    return Nodes(rows)


def _row(path: Path, number: int, row: dict[str, str | None]) -> Node:
    where = f"{path}, line {number}"
    try:
        edges = [parse_number(row, name, float) for name in COLUMNS[-4:]] if all(map(row.get, COLUMNS[-4:])) else []
        box = (edges[0], edges[1], edges[2], edges[3]) if edges else None
        node = Node(
            vsn=str(row["vsn"] or "").upper(),
            node_id=str(row.get("node_id") or "").lower(),
            latitude=parse_number(row, "latitude", float),
            longitude=parse_number(row, "longitude", float),
            altitude=parse_number(row, "altitude", float) if row.get("altitude") else 0.0,
            valid=(read_time(row.get("valid_from") or "", ALWAYS[0]), read_time(row.get("valid_to") or "", ALWAYS[1])),
            south_preset=parse_number(row, "south_preset", int) if row.get("south_preset") else 1,
            box=box,
        )
    except (KeyError, ValueError) as error:
        reason = f"column {error.args[0]} is missing" if isinstance(error, KeyError) else error
        raise InputError(f"not a row of a table of nodes: {reason}", where=where, allowed=",".join(COLUMNS)) from None
    if not (node.vsn and abs(node.latitude) <= 90 and abs(node.longitude) <= 360):
        raise InputError("a node needs a vsn, a latitude and a longitude in degrees", where=where)
    if box and not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise InputError(
            "the box is not inside the image",
            where=where,
            allowed="shares of width and height: 0 <= left < right <= 1, 0 <= top < bottom <= 1",
        )
    return node


def parse_number(row: Mapping[str, str | None], name: str, kind: Callable[[str], N]) -> N:
    """Read a number from a column of a row.

    Raises
    ------
    KeyError : there is no such column.
    ValueError : it does not hold such a number.

    """
    text = row[name] or ""
    try:
        return kind(text)
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name}: expected {expected}, got {text!r}") from None


def _check_disjoint(path: Path, rows: Sequence[Node]) -> None:
    for number, row in enumerate(rows):
        for other in rows[:number]:
            if row.vsn == other.vsn and row.valid[0] < other.valid[1] and other.valid[0] < row.valid[1]:
                what = f"two rows of {row.vsn} overlap in time"
                raise InputError(what, where=str(path), remedy="give each row its valid_from and valid_to")


def write_nodes(nodes: Nodes, path: Path) -> None:
    """Write a table of nodes, replacing an existing one."""
    with replacing(path, "table of nodes") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for n in nodes.rows:
            dates = [write_time(t) if t not in ALWAYS else "" for t in n.valid]
            box = [f"{edge:.6f}" for edge in n.box] if n.box else [""] * 4
            writer.writerow([n.vsn, n.node_id, n.latitude, n.longitude, n.altitude, *dates, n.south_preset, *box])


def read_time(text: str, missing: int = 0) -> int:
    """Read an RFC 3339 date; return ns since 1970-01-01 UTC, or `missing` for an empty text.

    Raises
    ------
    ValueError : it is not a date in UTC.

    """
    if not text:
        return missing
    body = text.strip().replace(" ", "T").removesuffix("Z").removesuffix("+00:00")
    whole, _, fraction = body.partition(".")
    if fraction and not fraction.isdecimal():
        raise ValueError(f"{text!r} is not a UTC date")
    try:
        moment = datetime.datetime.fromisoformat(whole)
    except ValueError:
        raise ValueError(f"{text!r} is not a UTC date") from None
    if moment.tzinfo is not None:
        raise ValueError(f"{text!r} is not in UTC")
    seconds = (moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(seconds=1)
    return seconds * 10**9 + int((fraction + "0" * 9)[:9] or 0)


def write_time(time: int) -> str:
    """Format a time, in ns since 1970-01-01 UTC, as an RFC 3339 date."""
    seconds, rest = divmod(time, 10**9)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
