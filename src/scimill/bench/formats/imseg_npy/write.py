"""Writer of the pairs of image and labels that the imseg trainer reads, in NumPy's .npy format."""

from functools import partial

import numpy as np

from scimill.bench.dataset.plan import DataFile, DatasetPlan, FixedLengthRecords, KnownBytes
from scimill.bench.formats.imseg_npy.cases import EVALUATION, Case, fill_image, fill_label, make_cases
from scimill.bench.formats.npy import npy_header
from scimill.bench.params import PlanConfig, block_size_of
from scimill.parallel.world import World
from scimill.store.direct import Bytes


def make_plan(config: PlanConfig, request: int, world: World) -> DatasetPlan:
    """Plan pairs ``case_00000_x.npy`` (float32) and ``case_00000_y.npy`` (uint8), both of shape (1, D, H, W)."""
    del world
    headers = len(npy_header((1, 1, 1, 1), "f4")) + len(npy_header((1, 1, 1, 1), "u1"))
    cases = make_cases(config, request, headers)
    files = [file for case in cases for file in case_files(config, case)]
    return DatasetPlan(tuple(files), block_size_of(config))


def case_files(config: PlanConfig, case: Case) -> tuple[DataFile, DataFile]:
    """Make the image and label files of a case; the image file counts the case as its record."""
    voxels = case.voxels
    image = FixedLengthRecords(4 * voxels, 8, partial(_image, config, case))
    label = FixedLengthRecords(voxels, 8, partial(_label, config, case))
    name, held_out = f"case_{case.number:05}", case.number in EVALUATION
    return (
        DataFile(f"{name}_x.npy", 1, (KnownBytes(npy_header((1, *case.shape), "f4")), image), held_out),
        DataFile(f"{name}_y.npy", 0, (KnownBytes(npy_header((1, *case.shape), "u1")), label), held_out),
    )


def _image(config: PlanConfig, case: Case, out: Bytes, first: int, count: int) -> None:
    del count
    fill_image(config, case, out.view(np.float32), 2 * first)


def _label(config: PlanConfig, case: Case, out: Bytes, first: int, count: int) -> None:
    del count
    fill_label(config, case, out, 8 * first)
