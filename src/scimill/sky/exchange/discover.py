"""Find the files of a deployment: in a folder, in a training set, or named by saved metadata."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from scimill.errors import InputError
from scimill.sky.exchange import names
from scimill.sky.exchange.names import Frame
from scimill.sky.exchange.nodes import Nodes, read_time

IGNORED, MISSING, UNKNOWN, DAMAGED, ORPHAN, DUPLICATE = (
    "ignored", "missing", "unknown node", "damaged", "orphan", "duplicate",
)  # fmt: skip
KINDS = (DAMAGED, ORPHAN, DUPLICATE, MISSING, UNKNOWN, IGNORED)
"""Reasons why a file is in no pair, the worst first."""


class ImageFile(NamedTuple):
    """An image of a node."""

    path: Path
    vsn: str
    frame: Frame


class FileFinding(NamedTuple):
    """Why a file is in no pair."""

    file: Path
    kind: str
    """one of `KINDS`"""
    detail: str


Discoveries = Iterator[ImageFile | FileFinding]


def discover(source: Path, nodes: Nodes, folder: Path | None) -> list[ImageFile | FileFinding]:
    """Find all images of known nodes, and report all other files.

    Parameters
    ----------
    source : a folder, a training set (``train`` with ``pairs`` in it, or its parent), or metadata (.ndjson, .json,
        .csv, .gz).
    nodes : the known nodes.
    folder : the folder of the files that the metadata names; the folder of the metadata if not given.

    Raises
    ------
    InputError : it does not exist, or is none of these.

    """
    if source.is_dir():
        base = source / "train" if (source / "train/pairs").is_dir() else source
        return list(_find_training_files(base, nodes) if (base / "pairs").is_dir() else _find_in_tree(source, nodes))
    if not source.is_file():
        raise InputError("no such file or directory", where=str(source))
    below = folder or source.parent
    if not below.is_dir():
        raise InputError("no such directory", where=str(below))
    return list(_find_by_metadata(source, nodes, below))


def _find_in_tree(folder: Path, nodes: Nodes) -> Discoveries:
    """Find files of a downloaded tree, where some folder above each file has the node's id or name."""
    for path in files_below(folder):
        frame = names.read(path.name)
        if isinstance(frame, str):
            yield FileFinding(path, IGNORED, frame)
            continue
        parts = path.relative_to(folder).parts[-2::-1]
        vsn = next((known for part in (*parts, folder.name) if (known := nodes.vsn(part))), None)
        yield ImageFile(path, vsn, frame) if vsn else FileFinding(path, UNKNOWN, _describe_unknown(parts))


def _describe_unknown(parts: tuple[str, ...]) -> str:
    named = next((part for part in parts if names.NODE_ID.match(part) or names.VSN.match(part)), None)
    return f"{named} is not in the table of nodes" if named else "no folder above it is named after a node"


def files_below(folder: Path) -> list[Path]:
    """List all files below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


# ---- train/{rgb,thermal,pairs} ----------------------------------------------------------------------------------


def _find_training_files(base: Path, nodes: Nodes) -> Discoveries:
    used: set[Path] = set()
    for text in files_below(base / "pairs"):
        vsn = nodes.vsn(text.parent.name)
        paths = _read_pair_text(text, base)
        used |= {path.resolve() for path in paths}
        if not paths:
            yield FileFinding(text, DAMAGED, "expected two lines: a JPG and a CSV")
        elif vsn is None:
            yield FileFinding(text, UNKNOWN, f"{text.parent.name} is not in the table of nodes")
        else:
            yield from _check_named_pair(text, paths, vsn)
    for folder in ("rgb", "thermal"):
        for path in files_below(base / folder):
            if path.resolve() not in used:
                frame = names.read(path.name)
                is_image = isinstance(frame, Frame)
                detail = "no file in pairs/ names it" if is_image else str(frame)
                yield FileFinding(path, ORPHAN if is_image else IGNORED, detail)


def _read_pair_text(text: Path, base: Path) -> list[Path]:
    """Read the two paths in a file of pairs/: absolute, or relative to rgb/ or rgb/processed/, and to thermal/."""
    try:
        lines = text.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return []
    named = [line.strip() for line in lines if line.strip()]
    if len(named) != 2:
        return []
    found = []
    for line, folders in zip(named, (("rgb", "rgb/processed"), ("thermal",)), strict=True):
        tried = [base / folder / line for folder in folders]
        found.append(next((path for path in tried if path.is_file()), tried[0]))
    return found


def _check_named_pair(text: Path, paths: list[Path], vsn: str) -> Discoveries:
    frames = [names.read(path.name) for path in paths]
    times = {frame.time for frame in frames if isinstance(frame, Frame)}
    for path, frame in zip(paths, frames, strict=True):
        if not path.is_file():
            yield FileFinding(path, MISSING, f"{text.name} names it, but it does not exist")
        elif isinstance(frame, str):
            yield FileFinding(path, IGNORED, frame)
        elif len(times) > 1:
            yield FileFinding(path, DAMAGED, f"{text.name} pairs files of different times")
        else:
            yield ImageFile(path, vsn, frame)


# ---- metadata ---------------------------------------------------------------------------------------------------


class UploadRecord(NamedTuple):
    """One uploaded file in the metadata."""

    time: int
    url: str
    node: str
    position: str


def _find_by_metadata(source: Path, nodes: Nodes, below: Path) -> Discoveries:
    by_name = {path.name: path for path in reversed(files_below(below))}
    for record in read_metadata(source):
        tail = PurePosixPath(urlsplit(record.url).path)
        path = next((p for n in range(len(tail.parts)) if (p := below.joinpath(*tail.parts[n + 1 :])).is_file()), None)
        path = path or by_name.get(tail.name)
        frame = names.read(tail.name)
        vsn = nodes.vsn(record.node)
        if isinstance(frame, str):
            yield FileFinding(path or below / tail.name, IGNORED, frame)
        elif vsn is None:
            yield FileFinding(path or below / tail.name, UNKNOWN, f"{record.node} is not in the table of nodes")
        elif path is None:
            yield FileFinding(below / tail.name, MISSING, "the metadata names it, but it does not exist")
        else:
            position = frame.position or (int(record.position) if record.position.isdecimal() else names.NO_PRESET)
            yield ImageFile(path, vsn, frame._replace(time=record.time, position=position))


def read_metadata(source: Path) -> list[UploadRecord]:
    """Read the uploads in saved metadata: NDJSON as the archive returns it, or the client's table as CSV.

    Raises
    ------
    InputError : it is neither.

    """
    is_zipped = source.suffix == ".gz"
    opener = gzip.open if is_zipped else open
    kind = Path(source.stem).suffix if is_zipped else source.suffix
    try:
        with opener(source, "rt", encoding="utf-8", newline="") as file:
            rows = (
                csv.DictReader(file) if kind == ".csv" else (_flat(json.loads(line)) for line in file if line.strip())
            )
            return [_record(row) for row in rows if row["name"] == "upload"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zlib.error, csv.Error) as error:
        allowed = "NDJSON or CSV of uploads, with timestamp, name, value and meta.node"
        what = f"not metadata of uploads: {_describe_error(error)}"
        raise InputError(what, where=str(source), allowed=allowed) from None


def _describe_error(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, EOFError | zlib.error):
        return "the compressed file is truncated or damaged"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing"
    return str(error) if isinstance(error, ValueError) else "not a table of uploads"


def _flat(record: dict[str, object]) -> dict[str, str]:
    meta = record["meta"]
    if not isinstance(meta, dict):
        raise TypeError("meta is not a mapping")
    return {name: str(record[name]) for name in ("timestamp", "name", "value")} | {
        f"meta.{key}": str(value) for key, value in meta.items()
    }


def _record(row: dict[str, str]) -> UploadRecord:
    node = row.get("meta.vsn") or row["meta.node"]
    return UploadRecord(read_time(row["timestamp"]), row["value"], node, row.get("meta.position") or "")
