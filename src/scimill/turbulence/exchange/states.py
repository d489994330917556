"""Initial states: from noise, a snapshot of a store, a BOUT++ file or an hw2d file."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.errors import InputError
from scimill.parallel.streams import block_stream
from scimill.store.foreign import is_store, read_hdf5
from scimill.turbulence import CAMPAIGN
from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.resemblance import resample
from scimill.turbulence.params import SimulateConfig
from scimill.turbulence.snapshots import open_snapshots, physics

Grid = NDArray[np.floating]
Datasets = dict[str, NDArray[Any]]

GUARDS = 2
"""Cells that BOUT++ adds on either side along x (MXG)."""


def initial(config: SimulateConfig, member: int, rows: slice) -> tuple[Grid, Grid, float]:
    """Return density and vorticity of own rows (x) of the initial state of a member, and its time.

    Raises
    ------
    InputError : the file is missing, damaged or of an unknown kind, has another grid or physics, or lacks the snapshot.
    """
    if config.from_ is None:
        density, vorticity = noise(config, member)
        return density[rows], vorticity[rows], 0.0
    path = Path(config.from_)
    if is_store(path):
        return _of_store(config, path, member, rows)
    density, vorticity, time = _foreign(path, config.snapshot)
    _check_grid(config, path, density.shape)
    return density[rows], vorticity[rows], time


def noise(config: SimulateConfig, member: int) -> tuple[Grid, Grid]:
    """Return random density of modes up to `noise_modes`, and the vorticity whose potential equals it.

    Each has the shape (points, points). The modes are drawn in a fixed order, so the noise of a member is the same on
    any grid.
    """
    highest, points = config.noise_modes, config.points
    stream = block_stream(config.seed, CAMPAIGN.number, member)
    drawn = stream.standard_normal((2 * highest + 1, highest + 1, 2)) @ np.array([1, 1j])
    mx = np.arange(-highest, highest + 1)[:, None]
    my = np.arange(highest + 1)[None, :]
    drawn[mx**2 + my**2 > highest**2] = 0
    drawn[highest, 0] = 0
    drawn[:highest, 0] = drawn[:highest:-1, 0].conj()  # so that the field is real
    weight = np.where(my == 0, 1.0, 2.0)
    drawn *= config.amplitude / np.sqrt((weight * np.abs(drawn) ** 2).sum())
    density = np.zeros((points, points // 2 + 1), complex)
    density[mx, my] = drawn * points**2
    k2 = physics(config).wave_number(1) ** 2 * (mx**2 + my**2)
    vorticity = np.zeros_like(density)
    vorticity[mx, my] = -k2 * density[mx, my]
    return np.fft.irfft2(density), np.fft.irfft2(vorticity)


def _of_store(config: SimulateConfig, path: Path, member: int, rows: slice) -> tuple[Grid, Grid, float]:
    with open_snapshots(path, check=member == 0 and rows.start == 0) as store:
        if not config.resample:
            _check_grid(config, path, (store.points, store.points))
        _check_physics(store.physics, physics(config), path)
        if store.members != config.members:
            what = f"the store has --members {store.members}, not {config.members}"
            raise InputError(what, where=str(path), remedy=f"use --members {store.members}")
        snapshot = _index(config.snapshot, store.count, path)
        time = float(store.times[member, snapshot])
        if store.points == config.points:
            return (*store.read(snapshot, member, rows), time)
        density, vorticity = (resample(field, config.points) for field in store.read(snapshot, member))
        return density[rows], vorticity[rows], time


def _check_grid(config: SimulateConfig, path: Path, shape: tuple[int, ...]) -> None:
    if shape != (config.points, config.points):
        what = f"the state has {' x '.join(str(n) for n in shape)} points, not {config.points} x {config.points}"
        raise InputError(what, where=str(path), remedy=f"use --points {shape[0]}, or --resample for a store")


def _check_physics(stored: FlowPhysics, asked: FlowPhysics, path: Path) -> None:
    names = [name for name in vars(asked) if getattr(stored, name) != getattr(asked, name)]
    if names:
        what = "; ".join(f"{name} was {getattr(stored, name)}, is {getattr(asked, name)}" for name in names)
        what = f"the snapshot was made with different parameters: {what}"
        raise InputError(what, where=str(path), remedy="use the same parameters")


def _index(snapshot: int, count: int, path: Path) -> int:
    if snapshot >= count:
        raise InputError(f"no such snapshot: {snapshot}", where=str(path), allowed=f"0 to {count - 1}, or -1")
    return snapshot if snapshot >= 0 else count - 1


# ---- other programs' files ------------------------------------------------------------------------------------


def _foreign(path: Path, snapshot: int) -> tuple[Grid, Grid, float]:
    """Read a state from a file of hw2d or BOUT++."""
    datasets = read_hdf5(path, ("density", "omega", "time", "n", "vort", "t_array", "tt", "MXG"))
    if {"density", "omega"} <= datasets.keys():
        return _of_hw2d(datasets, snapshot, path)
    if {"n", "vort"} <= datasets.keys():
        return _of_bout(datasets, snapshot, path)
    allowed = "a store, a BOUT++ file with n and vort, or an hw2d file with density and omega"
    raise InputError("the file holds no state of turbulence", where=str(path), allowed=allowed)


def _of_hw2d(datasets: Datasets, snapshot: int, path: Path) -> tuple[Grid, Grid, float]:
    """Read a state from hw2d fields, which are (time, y, x), or (y, x) for a single frame."""
    density, vorticity = (datasets[name] for name in ("density", "omega"))
    frames = density if density.ndim == 3 else density[None]
    at = _index(snapshot, len(frames), path)
    others = vorticity if vorticity.ndim == 3 else vorticity[None]
    time = np.ravel(datasets["time"])[at] if "time" in datasets and datasets["time"].size > at else 0.0
    return frames[at].T.astype(np.float64), others[at].T.astype(np.float64), float(time)


def _of_bout(datasets: Datasets, snapshot: int, path: Path) -> tuple[Grid, Grid, float]:
    """Read a state from BOUT++ fields: (x, y, z), or (time, x, y, z) in a dump, with guard cells along x.

    The bracket of BOUT++ has the opposite sign, so x is mirrored.
    """
    guards = int(np.ravel(datasets.get("MXG", np.array(GUARDS)))[0])
    fields, times = [], np.ravel(datasets.get("t_array", datasets.get("tt", np.zeros(1))))
    for name in ("n", "vort"):
        frames = datasets[name] if datasets[name].ndim == 4 else datasets[name][None]
        if frames.ndim != 4 or frames.shape[1] <= 2 * guards:
            raise InputError(f"dataset {name} does not have axes (x, y, z) with guard cells along x", where=str(path))
        at = _index(snapshot, len(frames), path)
        interior = frames[at, guards : frames.shape[1] - guards, frames.shape[2] // 2]
        fields.append(interior[::-1].astype(np.float64))
    time = float(times[at]) if at < len(times) else float(times[-1])
    return fields[0], fields[1], time
