"""Decode the files of a pair: optical images and temperatures."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from scimill.parallel.report import describe_count
from scimill.sky.kernels import celsius
from scimill.sky.kernels.camera import Box
from scimill.sky.kernels.resample import shrink

SIDE_BY_SIDE_ASPECT = 2.5  # width / height above which a JPG holds both images, the optical one on the left
HEADER_LINES = 16  # most lines before the temperatures
SMALLEST = 8  # pixels, shortest side of an image
LARGEST = 1 << 14  # pixels, longest side of a thermal image


class UnreadableFile(Exception):
    """A file cannot be read; the message says why."""


class Thermal(NamedTuple):
    """A thermal image."""

    celsius: NDArray[np.float64]
    """°C, (rows, columns)"""
    counts: NDArray[np.uint16] | None
    """counts of 0.04 K; None if the temperatures are not whole counts"""


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises
    ------
    UnreadableFile : it cannot be read, or is empty.

    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFile(error.strerror or "cannot be read") from None
    if not content:
        raise UnreadableFile("the file is empty")
    return content


def check_rgb(content: bytes) -> tuple[int, int]:
    """Decode a JPG completely, and return rows and columns of its optical image.

    Raises
    ------
    UnreadableFile : it is truncated, too small, or not a JPG.

    """
    image = _decode(content, (0, 0), smallest=True)
    rows, columns = jpg_shape(content)
    if min(image.shape[:2]) < 1 or rows < SMALLEST:
        raise UnreadableFile("the image is too small")
    return rows, optical_columns(rows, columns)


def jpg_shape(content: bytes) -> tuple[int, int]:
    """Read rows and columns of a JPG from its header."""
    try:
        rows, columns, *_ = simplejpeg.decode_jpeg_header(content)
    except ValueError as error:
        raise UnreadableFile(f"not a JPG: {_describe_error(error)}") from None
    return int(rows), int(columns)


def optical_columns(rows: int, columns: int) -> int:
    """Return the columns of the optical image in a JPG, which may have the thermal image beside it."""
    return columns // 2 if columns > SIDE_BY_SIDE_ASPECT * rows else columns


def _decode(content: bytes, least: tuple[int, int], *, smallest: bool = False) -> NDArray[np.uint8]:
    factor = 8 if smallest else 1
    try:
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            content, min_height=least[0], min_width=least[1], min_factor=factor
        )
    except ValueError as error:
        raise UnreadableFile(f"damaged JPG: {_describe_error(error)}") from None
    return image


def _describe_error(error: ValueError) -> str:
    return " ".join(str(error).split())


def read_rgb(content: bytes, box: Box, shape: tuple[int, int], *, fast: bool) -> NDArray[np.uint8]:
    """Decode a part of the optical image, averaged over areas.

    Parameters
    ----------
    content : a JPG.
    box : the part, as shares of the optical image.
    shape : rows and columns of the result.
    fast : whether to decode the JPG at 1/2, 1/4 or 1/8 of its size where the size of the result allows it. Pixels then
        differ by less than 1 of 255 on average.

    Returns
    -------
    uint8, (rows, columns, 3).

    Raises
    ------
    UnreadableFile : it cannot be decoded.

    """
    left, top, right, bottom = box
    least = (0, 0)
    if fast:
        rows, columns = jpg_shape(content)
        beside = columns // optical_columns(rows, columns)
        least = (int(np.ceil(shape[0] / (bottom - top))), int(np.ceil(beside * shape[1] / (right - left))))
        if least[0] > rows or least[1] > columns:
            least = (0, 0)
    image = _decode(content, least)
    rows, columns = image.shape[0], optical_columns(image.shape[0], image.shape[1])
    result = np.empty((*shape, 3), dtype=np.uint8)
    shrink(image, left * columns, top * rows, right * columns, bottom * rows, result)
    return result


def read_thermal(content: bytes) -> Thermal:
    """Parse the temperatures of a file.

    Raises
    ------
    UnreadableFile : a row is short, a value is missing or not finite, or the size differs from the header.

    """
    header, body = _split(content)
    shape = _shape(header, body)
    values = np.empty(shape, dtype=np.float64)
    problem, row = celsius.parse(np.frombuffer(body, dtype=np.uint8), values)
    if problem == celsius.TOO_SHORT and not _has_row(body, row):
        raise UnreadableFile(f"{describe_count(row, 'row')}, but its header says {shape[0]}")
    if problem:
        raise UnreadableFile(f"{celsius.PROBLEMS[problem]}, in row {row + 1}")
    return Thermal(values, celsius.counts(values))


def _has_row(body: bytes, row: int) -> bool:
    """Return whether a row exists at all."""
    return len(body.rstrip().split(b"\n")) > row


def _split(content: bytes) -> tuple[dict[str, str], bytes]:
    """Split a file into its header, by key, and the rows of numbers."""
    header: dict[str, str] = {}
    rest = content
    for _ in range(HEADER_LINES):
        line, _, after = rest.partition(b"\n")
        text = line.strip().decode("ascii", "replace")
        if not text:
            return header, after
        key, _, value = text.partition(";")
        if not key[:1].isalpha() or key.lower().startswith(("nan", "inf")):
            return header, rest
        header[key.strip().lower()] = value.strip()
        rest = after
    raise UnreadableFile("no temperatures after the header")


def _shape(header: dict[str, str], body: bytes) -> tuple[int, int]:
    try:
        rows, columns = int(header["height"]), int(header["width"])
    except (KeyError, ValueError):
        rows = len(body.rstrip().split(b"\n"))
        columns = len(body.partition(b"\n")[0].rstrip(b"; \r").split(b";"))
    if not (SMALLEST <= rows <= LARGEST and SMALLEST <= columns <= LARGEST):
        raise UnreadableFile(
            f"not a thermal image: {describe_count(rows, 'row')} of {describe_count(columns, 'value')}"
        )
    return rows, columns
