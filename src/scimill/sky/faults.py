"""The faults that real deployments have, made on purpose, each once."""

from collections.abc import Callable, Iterator
from pathlib import Path

from scimill.sky.exchange import names
from scimill.sky.weather import Shot

Maker = Callable[[Shot], bytes]
FIRST_ROW = 8  # line of the temperatures after seven of header and a blank one

FAULTS = (
    # name, file that has it
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
    """Which frame has which fault.

    Parameters
    ----------
    frames : how many frames there are to have faults; none where it is 0.

    """

    def __init__(self, frames: int) -> None:
        self._by_frame = {number * frames // len(FAULTS): fault for number, (fault, _) in enumerate(FAULTS)} if frames else {}

    def list_files(self, file: Callable[[int, str], Path]) -> Iterator[tuple[Path, str]]:
        """Each file that has a fault, and which; `file` finds a frame's file of a kind."""
        kinds = dict(FAULTS)
        for item, fault in self._by_frame.items():
            path = file(item, kinds[fault])
            yield EXTRAS[fault](path) if fault in EXTRAS else path, fault

    def apply(
        self, item: int, rgb: Path, jpg: Maker, thermal: Path, csv: Maker, shot: Shot
    ) -> Iterator[tuple[Path, bytes]]:
        """Files of a frame with their content; those of a good frame where it has no fault."""
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
    # fault: name of a file that is there beside the good one
    "duplicate": lambda path: path.parent / "again" / path.name,
    "plot": lambda path: path.with_name(path.stem + "_plot.jpg"),
    "netCDF": lambda path: path.with_suffix(".nc"),
    "unknown node": lambda path: path.parent.with_name("00000000deadbeef") / path.name,
}
DAMAGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    # fault: what it makes of the lines of a thermal file
    "short row": lambda lines: _with_row(lines, lambda row: row[:-1]),
    "not a number": lambda lines: _with_row(lines, lambda row: [b"nan", *row[1:]]),
    "blank value": lambda lines: _with_row(lines, lambda row: [row[0], b"", *row[2:]]),
    "wrong size": lambda lines: [*lines[:-10], b""],
}


def _with_row(lines: list[bytes], change: Callable[[list[bytes]], list[bytes]]) -> list[bytes]:
    """Change the values of the third row."""
    at = FIRST_ROW + 2
    return [*lines[:at], b";".join(change(lines[at].split(b";"))), *lines[at + 1 :]]


def _damage(text: bytes, fault: str) -> bytes:
    return b"\n".join(DAMAGES[fault](text.split(b"\n")))
