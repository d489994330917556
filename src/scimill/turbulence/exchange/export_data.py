"""Stores of snapshots or of corrections as files of other projects' layouts. One process writes them."""

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
    """Write a store in another layout; return the files.

    Parameters
    ----------
    store : of snapshots or of corrections.
    output : the file; for "netcdf" the folder that the files go to.
    form : one of `FORMATS`.
    member : the one that hw2d's file holds.

    Raises
    ------
    InputError : no such store, unfinished, or its times or equations are not those of the layout.
    ConfigError : no such member.
    StorageError : the output exists, or cannot be written; or the store is damaged.
    """
    with open_runs(store) as (runs, physics):
        if form == "netcdf":
            return _netcdf(runs, store, output)
        if form == "hw2d":
            if not 0 <= member < runs.members:
                raise ConfigError(f"no member {member}", where="flag --member", allowed=f"0 to {runs.members - 1}")
            _require(runs, has_corrections=False, store=store)
            content = layouts.hw2d(runs, member, hw2d_parameters(physics, store))
        else:
            content = {"well": layouts.well, "pdebench": layouts.pdebench}[form](runs)
        write_hdf5(content, store, output)
        return [output.path]


def _netcdf(runs: Trajectories, store: Path, output: Output) -> list[Path]:
    """Write the two files of each member, numbered from 1 as the original's are."""
    _require(runs, has_corrections=True, store=store)
    make_folder(output.path)
    paths = []
    for member in range(runs.members):
        for name, is_truth in (("gt", True), ("sim", False)):
            path = output.path / f"{name}_traj_{member + 1}.nc"
            content = layouts.simlint(runs, member, is_truth=is_truth)
            write_netcdf(content, store, dataclasses.replace(output, path=path))
            paths.append(path)
    return paths


def _require(runs: Trajectories, *, has_corrections: bool, store: Path) -> None:
    """Refuse a store of the kind that a layout is not for."""
    if (set(runs.fields) > set(STATE)) != has_corrections:
        allowed = "what turbulence corrections makes" if has_corrections else "what simulate and coarsen make"
        raise InputError("this layout is not for such a store", where=str(store), allowed=allowed)


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
    """Trajectories of density, vorticity, and the potential that follows."""

    def read(index: int) -> Mapping[str, Any]:
        density, vorticity = fine.state(index)
        phi = potential(vorticity, fine.snapshots.physics.box)
        return {"density": density, "vorticity": vorticity, "potential": phi}

    return _trajectories(fine.snapshots.reader, fine.snapshots.physics, fine.times, fine.members, STATE, read)


def trajectories_of_corrections(pairs: Corrections) -> Trajectories:
    """Trajectories of the states after a coarse step, and their corrections."""
    return _trajectories(pairs.reader, pairs.physics, pairs.times, pairs.members, CHANNELS, pairs.rows)


def _trajectories(
    reader: Reader, physics: FlowPhysics, times: Any, members: Any, names: tuple[str, ...],
    read: Callable[[int], Mapping[str, Any]],
) -> Trajectories:  # fmt: skip
    """Put rows that are sorted by member and time into trajectories."""
    try:
        interval_of(times, members)
    except IrregularTimes as error:
        raise InputError(f"no evenly spaced trajectories: {error}", where=str(reader.path)) from None
    runs = int(members.max()) + 1
    by_member = times.reshape(runs, -1)
    if np.abs(by_member - by_member[0]).max() > 1e-6 * np.ptp(by_member):
        raise InputError("the members are of other times", where=str(reader.path), remedy="simulate them together")
    parameters = {name: float(value) for name, value in vars(physics).items()}
    points = next(field.shape[0] for field in reader.layout.fields if field.name == "density")
    count = by_member.shape[1]
    return Trajectories(
        "hasegawa_wakatani", points, physics.box, parameters, by_member[0], runs, names,
        lambda member, index: read(member * count + index),
    )  # fmt: skip


def hw2d_parameters(physics: FlowPhysics, store: Path) -> dict[str, Any]:
    """Parameters of the equations by hw2d's names.

    Raises
    ------
    InputError : hw2d has no such equations.
    """
    diffusions = (physics.density_diffusion, physics.vorticity_diffusion)
    if physics.modified or diffusions[0] != diffusions[1] or (diffusions[0] and physics.hyperviscosity):
        allowed = "the original equations, with one diffusion or hyperviscosity of both fields"
        raise InputError("hw2d cannot go on with these equations", where=str(store), allowed=allowed)
    is_diffusive = diffusions[0] > 0
    return {
        "c1": physics.alpha,
        "kappa_coeff": physics.kappa,
        "poisson_bracket_coeff": 1.0,
        "N": 1 if is_diffusive else physics.order,
        "nu": diffusions[0] if is_diffusive else physics.hyperviscosity,
        "k0": physics.wave_number(1),
    }
