"""Layouts that other projects expect: The Well, PDEBench, hw2d, and the pairs of NetCDF files of SiMLInt.

Each function describes a file (`store.foreign.Content`) with `Trajectories`; this module writes nothing.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from scimill.store.foreign import Content, Dataset, Piece

Array = NDArray[np.floating]

GUARDS = 2
"""Cells that BOUT++ adds on either side along x; the reader of SiMLInt cuts them off."""
HW2D_CHUNK = 100
"""Snapshots per chunk in files of hw2d."""
HW2D_NAMES = {"density": "density", "vorticity": "omega", "potential": "phi"}
SIMLINT_NAMES = {"density": "n", "vorticity": "vort", "potential": "phi"}


@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Runs with the same physics and grid, and snapshots at the same evenly spaced times.

    Parameters
    ----------
    name : name of the dataset.
    points, box : points along each side, side of the periodic box in ρs.
    parameters : parameters of the equations, by name.
    times : float64, shape (snapshots,).
    members : number of runs.
    fields : names of the fields, including "potential".
    read : returns the fields, each of shape (x, y), given the member and the index of the snapshot.

    """

    name: str
    points: int
    box: float
    parameters: Mapping[str, float]
    times: NDArray[np.float64]
    members: int
    fields: tuple[str, ...]
    read: Callable[[int, int], Mapping[str, Array]]

    @property
    def coordinates(self) -> NDArray[np.float64]:
        """Coordinates of the points along either axis, in ρs."""
        return np.arange(self.points, dtype=np.float64) * (self.box / self.points)

    def all(self) -> Iterator[tuple[int, int, Mapping[str, Array]]]:
        """Yield member, snapshot and fields, member by member."""
        for member in range(self.members):
            for index in range(len(self.times)):
                yield member, index, self.read(member, index)


def velocity(potential: Array, box: float) -> Array:
    """Return the E×B velocity (−∂φ/∂y, ∂φ/∂x), shape (x, y, 2), by Fourier derivatives without the Nyquist mode."""
    n, m = potential.shape
    modes = scipy.fft.rfft2(potential)
    kx = 2 * np.pi / box * np.fft.fftfreq(n, 1 / n)
    ky = 2 * np.pi / box * np.fft.rfftfreq(m, 1 / m)
    kx[n // 2] *= n % 2
    ky[-1] *= m % 2
    parts = (-1j * ky[None, :] * modes, 1j * kx[:, None] * modes)
    return np.stack([scipy.fft.irfft2(part, s=(n, m)) for part in parts], axis=-1)


# ---- The Well ---------------------------------------------------------------------------------------------------


def well(runs: Trajectories) -> Content:
    """Describe The Well's layout (polymathic-ai.org/the_well/data_format): fields, velocity, scalars, boundaries."""
    shape = (runs.members, len(runs.times), runs.points, runs.points)
    varying = {"sample_varying": True, "time_varying": True, "dim_varying": np.array([True, True])}
    fixed = {"sample_varying": False, "time_varying": False}
    datasets = {
        "dimensions/time": Dataset((len(runs.times),), "float32", {"sample_varying": False}),
        **{f"dimensions/{axis}": Dataset((runs.points,), "float32", fixed) for axis in "xy"},
        **{f"boundary_conditions/{axis}_periodic/mask": Dataset((runs.points,), "bool") for axis in "xy"},
        **{f"boundary_conditions/{axis}_periodic/values": Dataset((2,), "float32") for axis in "xy"},
        **{f"scalars/{name}": Dataset((), "float32", fixed) for name in runs.parameters},
        **{f"t0_fields/{name}": Dataset(shape, "float32", varying) for name in runs.fields},
        "t1_fields/velocity": Dataset((*shape, 2), "float32", varying),
    }
    return Content(datasets, _well_attributes(runs), lambda: _well_pieces(runs))


def _well_pieces(runs: Trajectories) -> Iterator[Piece]:
    yield "dimensions/time", ..., runs.times
    is_edge = np.isin(np.arange(runs.points), (0, runs.points - 1))
    for axis in "xy":
        yield f"dimensions/{axis}", ..., runs.coordinates
        yield f"boundary_conditions/{axis}_periodic/mask", ..., is_edge
        yield f"boundary_conditions/{axis}_periodic/values", ..., np.zeros(2)
    for name, value in runs.parameters.items():
        yield f"scalars/{name}", (), value
    for member, index, fields in runs.all():
        for name in runs.fields:
            yield f"t0_fields/{name}", (member, index), fields[name]
        yield "t1_fields/velocity", (member, index), velocity(fields["potential"], runs.box)


def _well_attributes(runs: Trajectories) -> dict[str, dict[str, Any]]:
    boundary = {
        f"boundary_conditions/{axis}_periodic": {
            "associated_dims": [axis], "associated_fields": [], "bc_type": "PERIODIC",
            "sample_varying": False, "time_varying": False,
        }
        for axis in "xy"
    }  # fmt: skip
    return {
        "/": {
            "dataset_name": runs.name,
            "grid_type": "cartesian",
            "n_spatial_dims": 2,
            "n_trajectories": runs.members,
            "simulation_parameters": list(runs.parameters),
            **runs.parameters,
        },
        "dimensions": {"spatial_dims": ["x", "y"]},
        **boundary,
        "scalars": {"field_names": list(runs.parameters)},
        "t0_fields": {"field_names": list(runs.fields)},
        "t1_fields": {"field_names": ["velocity"]},
        "t2_fields": {"field_names": []},
    }


# ---- PDEBench ---------------------------------------------------------------------------------------------------


def pdebench(runs: Trajectories) -> Content:
    """Describe PDEBench's layout, a group per trajectory: ``0000/data`` (t, x, y, channel), ``0000/grid/{t,x,y}``."""
    groups = [f"{member:04d}" for member in range(runs.members)]
    shape = (len(runs.times), runs.points, runs.points, len(runs.fields))
    datasets = {f"{group}/data": Dataset(shape, "float32", {"channels": list(runs.fields)}) for group in groups}
    for group in groups:
        datasets[f"{group}/grid/t"] = Dataset((len(runs.times),), "float32")
        datasets |= {f"{group}/grid/{axis}": Dataset((runs.points,), "float32") for axis in "xy"}

    def pieces() -> Iterator[Piece]:
        for group in groups:
            yield f"{group}/grid/t", ..., runs.times
            for axis in "xy":
                yield f"{group}/grid/{axis}", ..., runs.coordinates
        for member, index, fields in runs.all():
            yield f"{groups[member]}/data", index, np.stack([fields[name] for name in runs.fields], axis=-1)

    return Content(datasets, {"/": dict(runs.parameters)}, pieces)


# ---- hw2d -------------------------------------------------------------------------------------------------------


def hw2d(runs: Trajectories, member: int, attributes: Mapping[str, Any]) -> Content:
    """Describe a file of one run that hw2d can continue: fields over (time, y, x).

    Parameters
    ----------
    runs, member : the runs, and the number of the one to export.
    attributes : parameters of the equations by their names in hw2d.
    """
    count, n = len(runs.times), runs.points
    chunks = (min(HW2D_CHUNK, count), n, n)
    datasets = {
        name: Dataset((count, n, n), "float32", chunks=chunks, compression="gzip", can_grow=True)
        for name in HW2D_NAMES.values()
    }
    datasets["time"] = Dataset((count, 1), "float32", chunks=(chunks[0], 1), can_grow=True)

    def pieces() -> Iterator[Piece]:
        yield "time", ..., runs.times[:, None]
        for first in range(0, count, HW2D_CHUNK):  # whole chunks, so each is compressed once
            states = [runs.read(member, index) for index in range(first, min(first + HW2D_CHUNK, count))]
            for name, theirs in HW2D_NAMES.items():
                yield theirs, slice(first, first + len(states)), np.stack([state[name].T for state in states])

    interval = float(runs.times[1] - runs.times[0]) if count > 1 else 0.0
    grid = {"x": n, "y": n, "x_save": n, "y_save": n, "grid_pts": n, "dx": runs.box / n}
    timing = {"dt": interval, "frame_dt": interval, "initial_time": float(runs.times[0]), "adaptive_step_size": False}
    return Content(datasets, {"/": {**attributes, **grid, **timing}}, pieces)


# ---- SiMLInt ----------------------------------------------------------------------------------------------------


def simlint(runs: Trajectories, member: int, *, is_truth: bool) -> Content:
    """Describe one of SiMLInt's two NetCDF files per trajectory: ``gt_traj_k.nc`` or ``sim_traj_k.nc``.

    SiMLInt's reader drops the first entry of the second file and then pairs entries by number. SiMLInt's own files
    had already lost the first truth, so each truth was paired with a later coarse step. Here the first entry repeats
    the second one, so the pairs are right. The x axis of BOUT++ points the other way.

    Parameters
    ----------
    runs : trajectories of correction pairs, with the fields and the corrections.
    member : number of the trajectory.
    is_truth : describe the truths (coarse step + correction) rather than the coarse steps.
    """
    lead = 0 if is_truth else 1
    count, n = len(runs.times) + lead, runs.points
    dimensions = ("t", "x", "y", "z")
    names = SIMLINT_NAMES if not is_truth else {name: SIMLINT_NAMES[name] for name in ("density", "vorticity")}
    datasets = {
        theirs: Dataset((count, n + 2 * GUARDS, 1, n), "float64", {"long_name": name}, dimensions)
        for name, theirs in names.items()
    }
    datasets["t"] = Dataset((count,), "float64", {"long_name": "time of the truth"}, ("t",))

    def pieces() -> Iterator[Piece]:
        yield "t", ..., np.concatenate([runs.times[:lead], runs.times])
        for entry in range(count):
            fields = runs.read(member, max(entry - lead, 0))
            for name, theirs in names.items():
                change = fields[f"{name}_correction"].astype(np.float64) if is_truth else 0.0
                yield theirs, entry, bout(fields[name] + change)[:, None, :]

    return Content(datasets, {"/": dict(runs.parameters)}, pieces)


def bout(field: Array) -> Array:
    """Return a field as BOUT++ stores it: x reversed, with periodic guard cells; shape (n + 4, n)."""
    return np.pad(field[::-1], ((GUARDS, GUARDS), (0, 0)), mode="wrap")
