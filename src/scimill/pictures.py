"""Size and style of all pictures, and how they are written. Each picture is one slide."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from scimill.files import check_directory, replacing, storage_errors

SIZE, DPI = (40 / 3, 7.5), 180  # inches, dots per inch: 2400 x 1350 pixels
STYLE: Any = {
    "font.size": 11, "axes.titlesize": 11.5, "axes.labelsize": 11, "figure.titlesize": 15, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08, "figure.constrained_layout.w_pad": 0.08,
}  # fmt: skip


def make_folder(folder: Path) -> None:
    """Make the folder for pictures if it does not exist.

    Raises
    ------
    StorageError : its parent directory is missing, or it cannot be written.

    """
    if not folder.exists():
        check_directory(folder)
        with storage_errors(folder, "making the folder"):
            folder.mkdir()
    check_directory(folder / "picture.png")


def save(figure: Figure, path: Path) -> None:
    """Write a picture as PNG.

    Raises
    ------
    StorageError : it cannot be written.

    """
    with replacing(path, "picture") as part:
        figure.savefig(part, format="png", dpi=DPI)
