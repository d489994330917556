"""Write loose files as the nodes write them."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.files import storage_errors
from scimill.sky.kernels import celsius

HEADER = (
    "sensor;right\nbit depth;14\nwidth;{1}\nheight;{0}\nresolution;high\n"
    "advanced radiometry support;1\nunit;celsius\n\n"
)


def thermal_text(image: NDArray[Any]) -> bytes:
    """Format a thermal image as the nodes do: counts without loss, °C with six significant digits."""
    values, inverse = np.unique(image, return_inverse=True)
    degrees = celsius.to_celsius(values) if image.dtype == np.uint16 else values
    words = np.array([f"{value:.6g}" for value in degrees.tolist()])[inverse].reshape(image.shape)
    rows = "\n".join(";".join(row) for row in words.tolist())
    return (HEADER.format(*image.shape) + rows + "\n").encode()


def write_file(path: Path, content: bytes) -> None:
    """Write a file completely or not at all, even if the run is killed; make the folders above it."""
    with storage_errors(path, "writing a loose file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_bytes(content)
        part.replace(path)
