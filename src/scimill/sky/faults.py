"""The known faults of real deployments, each made once on purpose."""

from collections.abc import Callable, Iterator
from pathlib import Path

from scimill.sky.exchange import names
from scimill.sky.weather import Shot

Maker = Callable[[Shot], bytes]
FIRST_ROW = 8  # first line of temperatures, after seven header lines and a blank one

FAULTS = (
    # name, which file of the frame has it
    ("no thermal file", names.RGB),
    ("no JPG", names.THERMAL),
    ("truncated JPG", names.RGB),
    ("short row", names.THERMAL),
    ("not a number", names.THERMAL),
    ("blank value", names.THERMAL),
    ("wrong size", names.THERMAL),
    ("duplicate", names.RGB),
    ("plot", names.RGB),
    ("netCDF", names.RGB),
    ("unknown node", names.RGB),
)


class Faults:
    """The fault of each frame.

    Parameters
    ----------
    frames : number of frames over which the faults are spread; 0 for no faults.

    """

    def __init__(self, frames: int) -> None:
        faults = enumerate(fault for fault, _ in FAULTS)
        self._by_frame = {number * frames // len(FAULTS): fault for number, fault in faults} if frames else {}

    def list_files(self, file: Callable[[int, str], Path]) -> Iterator[tuple[Path, str]]:
        """Yield each faulty file and its fault; `file` returns a frame's file of a kind."""
        kinds = dict(FAULTS)
        for item, fault in self._by_frame.items():
            path = file(item, kinds[fault])
            yield EXTRAS[fault](path) if fault in EXTRAS else path, fault

    def apply(
        self, item: int, rgb: Path, jpg: Maker, thermal: Path, csv: Maker, shot: Shot
    ) -> Iterator[tuple[Path, bytes]]:
        """Yield the files of a frame with their content, including its fault if it has one."""
        fault = self._by_frame.get(item, "")
        if fault != "no JPG":
            picture = jpg(shot)
            yield rgb, picture[: len(picture) // 2] if fault == "truncated JPG" else picture
            if fault in EXTRAS:
                yield EXTRAS[fault](rgb), picture
        if fault != "no thermal file":
            text = csv(shot)
            yield thermal, _damage(text, fault) if fault in DAMAGES else text


EXTRAS: dict[str, Callable[[Path], Path]] = {
    # fault: path of the extra file next to the good one
    "duplicate": lambda path: path.parent / "again" / path.name,
    "plot": lambda path: path.with_name(path.stem + "_plot.jpg"),
    "netCDF": lambda path: path.with_suffix(".nc"),
    "unknown node": lambda path: path.parent.with_name("00000000deadbeef") / path.name,
}
DAMAGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    # fault: what it does to the lines of a thermal file
    "short row": lambda lines: _with_row(lines, lambda row: row[:-1]),
    "not a number": lambda lines: _with_row(lines, lambda row: [b"nan", *row[1:]]),
    "blank value": lambda lines: _with_row(lines, lambda row: [row[0], b"", *row[2:]]),
    "wrong size": lambda lines: [*lines[:-10], b""],
}


def _with_row(lines: list[bytes], change: Callable[[list[bytes]], list[bytes]]) -> list[bytes]:
    """Change the values of the third row of temperatures."""
    at = FIRST_ROW + 2
    return [*lines[:at], b";".join(change(lines[at].split(b";"))), *lines[at + 1 :]]


def _damage(text: bytes, fault: str) -> bytes:
    return b"\n".join(DAMAGES[fault](text.split(b"\n")))
