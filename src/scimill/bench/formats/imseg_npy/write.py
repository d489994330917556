"""NumPy's .npy format: headers, and the pairs of image and label that the imseg trainer reads."""

import io
from functools import partial

import numpy as np

from scimill.bench.dataset.plan import DataFile, Fixed, Plan, Records
from scimill.bench.formats.imseg_npy import cases as imseg
from scimill.bench.params import Plannable, block_size_of
from scimill.parallel.world import World
from scimill.store.direct import Bytes

ALIGNMENT = 64  # np.save ends headers at multiples of this


def header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Header of an array in C order, as `numpy.save` writes it; its length is a multiple of 64."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    return file.getvalue()


def plan(config: Plannable, request: int, world: World) -> Plan:
    """Plan pairs ``case_00000_x.npy`` (float32) and ``case_00000_y.npy`` (uint8), both of shape (1, D, H, W)."""
    del world
    headers = len(header((1, 1, 1, 1), "f4")) + len(header((1, 1, 1, 1), "u1"))
    cases = imseg.cases(config, request, headers)
    files = [file for case in cases for file in pair(config, case)]
    return Plan(tuple(files), block_size_of(config))


def pair(config: Plannable, case: imseg.Case) -> tuple[DataFile, DataFile]:
    """Return image and label of a case; the case counts as a record of its image."""
    voxels = case.voxels
    image = Records(4 * voxels, 8, partial(_image, config, case))
    label = Records(voxels, 8, partial(_label, config, case))
    name, held_out = f"case_{case.number:05}", case.number in imseg.EVALUATION
    return (
        DataFile(f"{name}_x.npy", 1, (Fixed(header((1, *case.shape), "f4")), image), held_out),
        DataFile(f"{name}_y.npy", 0, (Fixed(header((1, *case.shape), "u1")), label), held_out),
    )


def _image(config: Plannable, case: imseg.Case, out: Bytes, first: int, count: int) -> None:
    del count
    imseg.image(config, case, out.view(np.float32), 2 * first)


def _label(config: Plannable, case: imseg.Case, out: Bytes, first: int, count: int) -> None:
    del count
    imseg.label(config, case, out, 8 * first)
