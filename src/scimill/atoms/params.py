"""Parameters of the atoms commands."""

from typing import Literal

from pydantic.dataclasses import dataclass

from scimill.config import REQUIRED, STRICT, Hints, Number, Run, Whole, parameter

CAMPAIGN = 4  # first word of the spawn key of this campaign's random streams


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Files:
    """What comes in."""

    files: tuple[str, ...] = parameter(
        REQUIRED, "files of structures: .xyz, .extxyz, .db, .json, .h5, .npz, folders of .npy", min_length=1
    )
    properties: Hints = parameter(
        {}, "names and units of the files' properties: source=column:unit, such as dft_energy=energy:Hartree"
    )
    test_fraction: Number = parameter(0.0, "share of the structures that is held out as test data for good", ge=0, le=1)
    nan_labels: Literal["refuse", "missing"] = parameter("refuse", "what NaN in a label is")
    duplicates: Literal["keep", "skip", "refuse"] = parameter(
        "keep", "what is done with a geometry that is there already, to 1e-4 Å"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AddConfig(Files, Run):
    """`scimill atoms add`."""


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ImportConfig(Files, Run):
    """`scimill atoms import`."""

    piece_size: Whole = parameter(4096, "structures that a rank reads at a time", affects_data=False, ge=1, le=2**20)
