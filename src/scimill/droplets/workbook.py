"""The workbook of weird droplets: counts and a capped, unbiased sample of each class."""

from pathlib import Path


def check_target(path: Path, keep_weird: bool) -> None:
    """Refuse a workbook that could not be written at the end."""


def write(store: Path, path: Path, most_rows: int) -> None:
    """Write the workbook of a finished store."""
