"""Headers of NumPy's .npy format."""

import io
from typing import IO, Any

import numpy as np


def npy_header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Make the header of an array in C order, as `numpy.save` writes it; its length is a multiple of 64."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape})
    return file.getvalue()


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, whether the array is in Fortran order, and dtype; move to the first value.

    Raises
    ------
    ValueError : it is not a .npy file.

    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    return shape, is_fortran, dtype
