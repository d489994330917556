"""Names of the nodes' files: their kind, time and direction of view.

A sampler writes ``<ns>-6144x2048.jpg`` and ``<ns>-right_336x252_14bit.thermal.celsius.csv`` with the same timestamp for
one frame; scans append ``_position<N>`` or the compass code of the preset.
"""

import calendar
import re
from typing import NamedTuple

from scimill.sky.kernels.camera import CODES

RGB, THERMAL = "rgb", "thermal"
NO_PRESET = 0
"""Position of a frame without a preset."""

TIMED = re.compile(r"^(?P<ns>\d{16,19})[-_](?P<rest>.+)$")
DATED = re.compile(r"^sage_mobotix_cam_(?P<date>\d{8})-(?P<time>\d{6})_(?P<rest>.+)$")
POSITION = re.compile(r"_(?:position)?(?P<where>\d{1,2}|[NESW]{1,2}[SHBG])$")
NODE_ID = re.compile(r"^[0-9a-fA-F]{16}$")
VSN = re.compile(r"^[WV]\d{2}[0-9A-F]$")

IGNORED = (
    # pattern of the name, why the file is not part of a pair
    (re.compile(r"_plot\.jpe?g$", re.IGNORECASE), "a drawing, not a camera image"),
    (re.compile(r"\.nc$", re.IGNORECASE), "netCDF of a scan"),
    (re.compile(r"\.thermal\.uint", re.IGNORECASE), "raw counts as text; the Celsius file is used"),
    (re.compile(r"\.thermal\.raw$", re.IGNORECASE), "raw counts; the Celsius file is used"),
    (re.compile(r"-sample\.jpe?g$", re.IGNORECASE), "a picture of an image sampler, which has no thermal file"),
    (re.compile(r"\.rgb$", re.IGNORECASE), "raw pixels; the JPG is used"),
)


class Frame(NamedTuple):
    """Kind, time and position of a file, from its name."""

    kind: str
    """`RGB` or `THERMAL`"""
    time: int
    """ns since 1970-01-01 UTC"""
    position: int
    """preset from 1 to 32, or `NO_PRESET`"""


def read(name: str) -> Frame | str:
    """Parse a file's name; return the reason as text if it is not an image of a pair."""
    for pattern, reason in IGNORED:
        if pattern.search(name):
            return reason
    stem, _, suffix = name.rpartition(".")
    kind = {"jpg": RGB, "jpeg": RGB, "csv": THERMAL}.get(suffix.lower())
    if kind is None or (kind == THERMAL and "celsius" not in stem):
        return "not a kind of file that pairs use"
    moment = _time(name)
    if moment is None:
        return "no time in its name"
    return Frame(kind, moment, _position(stem))


def _time(name: str) -> int | None:
    if match := TIMED.match(name):
        return int(match["ns"])
    if match := DATED.match(name):
        date, clock = match["date"], match["time"]
        fields = (int(date[:4]), int(date[4:6]), int(date[6:]), int(clock[:2]), int(clock[2:4]), int(clock[4:]))
        return calendar.timegm(fields) * 10**9
    return None


def _position(stem: str) -> int:
    match = POSITION.search(stem)
    if not match:
        return NO_PRESET
    where = match["where"]
    return int(where) if where.isdecimal() else CODES.get(where, NO_PRESET)


def rgb(time: int, shape: tuple[int, int], position: int) -> str:
    """Make the name of a frame's JPG; shape: rows and columns of the file, with both images side by side."""
    return f"{time}-{shape[1]}x{shape[0]}_position{position}.jpg"


def thermal(time: int, shape: tuple[int, int], position: int) -> str:
    """Make the name of a frame's file of temperatures; shape: rows and columns."""
    return f"{time}-right_{shape[1]}x{shape[0]}_14bit.thermal.celsius_position{position}.csv"
