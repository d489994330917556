"""Optional packages: the extra that brings each, and the message where one is missing."""

import re
from importlib import metadata

from scimill.errors import ConfigError

PURPOSES = {
    "mpi": "several ranks",
    "training": "training and exporting networks",
    "turbulence": "NetCDF files, and networks in ONNX",
    "fftw": "faster Fourier transforms",
    "atoms": "ASE's file formats, its calculators and evaluation",
    "bench": "Parquet files",
    "sky": "reading JPEG images",
}
"""What cannot be done without an extra."""


def extras() -> dict[str, list[str]]:
    """Return the packages of each extra of scimill, as its installed metadata declare them."""
    found: dict[str, list[str]] = {}
    for requirement in metadata.requires("scimill") or ():
        name, _, condition = requirement.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", condition)
        if extra and not name.startswith("scimill"):  # "all" names the others
            found.setdefault(extra[1], []).append(re.split(r"[^\w-]", name, maxsplit=1)[0])
    return found


def explain(error: ModuleNotFoundError) -> ConfigError | ModuleNotFoundError:
    """Return the error that tells the user which extra to install; the same error if no extra brings the module."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, packages in extras().items() if module in packages), None)
    if extra is None:
        return error
    return ConfigError(
        f"this needs {module}, which is not installed", remedy=f"pip install 'scimill[{extra}]', or scripts/setup.sh"
    )
