"""Export of stores of snapshots or corrections to the layouts of other projects. One process writes the files."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scimill.errors import ConfigError, InputError
from scimill.pictures import make_folder
from scimill.store.foreign import write_hdf5, write_netcdf
from scimill.store.output import Output
from scimill.store.reader import Reader
from scimill.turbulence.corrections import CHANNELS, STATE, Corrections, is_corrections
from scimill.turbulence.exchange import layouts
from scimill.turbulence.exchange.layouts import Trajectories
from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.pairs import IrregularTimes, interval_of
from scimill.turbulence.kernels.solver import potential
from scimill.turbulence.snapshots import Snapshots
from scimill.turbulence.sources import FineRun

FORMATS = ("well", "pdebench", "hw2d", "netcdf")


def export(store: Path, output: Output, form: str, member: int) -> list[Path]:
    """Write a store in another layout; return the paths of the files.

    Parameters
    ----------
    store : store of snapshots or corrections.
    output : the file; for "netcdf" the directory of the files.
    form : one of `FORMATS`.
    member : member to export to hw2d.

    Raises
    ------
    InputError : missing, not a store, unfinished, or with times or equations that the layout does not support.
    ConfigError : no such member.
    StorageError : the output exists or cannot be written, or the store is damaged.
    """
    with open_runs(store) as (runs, physics):
        if form == "netcdf":
            return _netcdf(runs, store, output)
        if form == "hw2d":
            if not 0 <= member < runs.members:
                allowed = f"0 to {runs.members - 1}"
                raise ConfigError(f"no such member: {member}", where="flag --member", allowed=allowed)
            _require(runs, form, has_corrections=False, store=store)
            content = layouts.hw2d(runs, member, hw2d_parameters(physics, store))
        else:
            content = {"well": layouts.well, "pdebench": layouts.pdebench}[form](runs)
        write_hdf5(content, store, output)
        return [output.path]


def _netcdf(runs: Trajectories, store: Path, output: Output) -> list[Path]:
    """Write the two files of each member, numbered from 1 as in the original."""
    _require(runs, "netcdf", has_corrections=True, store=store)
    make_folder(output.path)
    paths = []
    for member in range(runs.members):
        for name, is_truth in (("gt", True), ("sim", False)):
            path = output.path / f"{name}_traj_{member + 1}.nc"
            content = layouts.simlint(runs, member, is_truth=is_truth)
            write_netcdf(content, store, dataclasses.replace(output, path=path))
            paths.append(path)
    return paths


def _require(runs: Trajectories, form: str, *, has_corrections: bool, store: Path) -> None:
    """Refuse a store that a layout does not support."""
    if (set(runs.fields) > set(STATE)) != has_corrections:
        held = "snapshots" if has_corrections else "corrections"
        makers = "corrections" if has_corrections else "simulate, coarsen or rollout"
        allowed = f"a store made by turbulence {makers}"
        raise InputError(f"{form} does not support stores of {held}", where=str(store), allowed=allowed)


# ---- reading ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_runs(store: Path) -> Iterator[tuple[Trajectories, FlowPhysics]]:
    """Open a store as trajectories, with the parameters of its equations; raises as `export`."""
    with Reader.open(store) as reader:
        reader.require_complete()
        if is_corrections(reader):
            pairs = Corrections(reader)
            yield trajectories_of_corrections(pairs), pairs.physics
        else:
            fine = FineRun(Snapshots(reader), -np.inf)
            yield trajectories_of_snapshots(fine), fine.snapshots.physics


def trajectories_of_snapshots(fine: FineRun) -> Trajectories:
    """Return trajectories of density, vorticity and the potential computed from it."""

    def read(index: int) -> Mapping[str, Any]:
        density, vorticity = fine.state(index)
        phi = potential(vorticity, fine.snapshots.physics.box)
        return {"density": density, "vorticity": vorticity, "potential": phi}

    return _trajectories(fine.snapshots.reader, fine.snapshots.physics, fine.times, fine.members, STATE, read)


def trajectories_of_corrections(pairs: Corrections) -> Trajectories:
    """Return trajectories of the states after a coarse step, and their corrections."""
    return _trajectories(pairs.reader, pairs.physics, pairs.times, pairs.members, CHANNELS, pairs.rows)


def _trajectories(
    reader: Reader, physics: FlowPhysics, times: Any, members: Any, names: tuple[str, ...],
    read: Callable[[int], Mapping[str, Any]],
) -> Trajectories:  # fmt: skip
    """Arrange rows sorted by member and time as trajectories."""
    try:
        interval_of(times, members)
    except IrregularTimes as error:
        raise InputError(f"the snapshots are not evenly spaced: {error}", where=str(reader.path)) from None
    runs = int(members.max()) + 1
    by_member = times.reshape(runs, -1)
    if np.abs(by_member - by_member[0]).max() > 1e-6 * np.ptp(by_member):
        what = "the members have snapshots at different times"
        raise InputError(what, where=str(reader.path), remedy="simulate them in one run")
    parameters = {name: float(value) for name, value in vars(physics).items()}
    points = next(field.shape[0] for field in reader.layout.fields if field.name == "density")
    count = by_member.shape[1]
    return Trajectories(
        "hasegawa_wakatani", points, physics.box, parameters, by_member[0], runs, names,
        lambda member, index: read(member * count + index),
    )  # fmt: skip


def hw2d_parameters(physics: FlowPhysics, store: Path) -> dict[str, Any]:
    """Return the parameters of the equations by their names in hw2d.

    Raises
    ------
    InputError : hw2d does not support these equations.
    """
    diffusions = (physics.density_diffusion, physics.vorticity_diffusion)
    if physics.modified or diffusions[0] != diffusions[1] or (diffusions[0] and physics.hyperviscosity):
        allowed = "the original equations, with the same diffusion or hyperviscosity for both fields"
        raise InputError("hw2d does not support these equations", where=str(store), allowed=allowed)
    is_diffusive = diffusions[0] > 0
    return {
        "c1": physics.alpha,
        "kappa_coeff": physics.kappa,
        "poisson_bracket_coeff": 1.0,
        "N": 1 if is_diffusive else physics.order,
        "nu": diffusions[0] if is_diffusive else physics.hyperviscosity,
        "k0": physics.wave_number(1),
    }
