"""Optional packages: the extra that brings each, and the message where one is missing."""

from importlib import metadata

from packaging.requirements import Requirement

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


def requirements(extra: str) -> list[Requirement]:
    """Return what an extra requires, by the installed metadata; "" for what scimill always requires."""
    declared = map(Requirement, metadata.requires("scimill") or ())
    return [each for each in declared if _is_of(each, extra)]


def _is_of(requirement: Requirement, extra: str) -> bool:
    without, with_ = (requirement.marker is None or requirement.marker.evaluate({"extra": e}) for e in ("", extra))
    return without if not extra else with_ and not without


def extras() -> dict[str, list[str]]:
    """Return the packages of each extra of scimill."""
    return {extra: [each.name for each in requirements(extra)] for extra in PURPOSES}


def explain(error: ModuleNotFoundError) -> ConfigError | ModuleNotFoundError:
    """Return the error that tells the user which extra to install; the same error if no extra brings the module."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, packages in extras().items() if module in packages), None)
    if extra is None:
        return error
    return ConfigError(
        f"this needs {module}, which is not installed", remedy=f"pip install 'scimill[{extra}]', or scripts/setup.sh"
    )
