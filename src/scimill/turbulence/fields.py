"""Content of a store of turbulence: one snapshot per block, spectra, and diagnostics since the previous snapshot."""

import math

from scimill.store.layout import Coordinate, Field, Layout, Table
from scimill.turbulence.kernels import diagnostics

STATE = ("density", "vorticity")
"""Fields of a state. The potential follows from the vorticity: `solver.potential`."""


def coordinates(points: int, box: float) -> tuple[Coordinate, ...]:
    """Return the places of the grid points, and the wavenumbers of the shells of spectra."""
    return (
        Coordinate("x", 0.0, box / points, "ρs", "radial place"),
        Coordinate("y", 0.0, box / points, "ρs", "poloidal place"),
        Coordinate("shell", 0.0, 2 * math.pi / box, "1/ρs", "wavenumber in the middle of the shell"),
    )


def layout(points: int, snapshots: int, members: int, samples: int, precision: str, box: float) -> Layout:
    """Return the structure of a store of trajectories; row = member · snapshots + snapshot.

    Parameters
    ----------
    points : grid points along each side.
    snapshots : per member, including the initial one.
    members : number of trajectories.
    samples : largest number of diagnostic samples per snapshot.
    precision : dtype of the fields.
    box : side of the periodic box, ρs.

    """
    fields = (
        Field("density", precision, "1", "fluctuation of the density n, (x, y)", (points, points), axes=("x", "y")),
        Field(
            "vorticity", precision, "cs/Ln", "vorticity, ∇² of the potential, (x, y)", (points, points), axes=("x", "y")
        ),
        Field("time", "float64", "Ln/cs", "time of the snapshot"),
        Field("member", "int32", "1", "trajectory to which the snapshot belongs"),
        *(
            Field(name, "float64", "1", meaning, (points // 2,), axes=("shell",))
            for name, meaning in diagnostics.SPECTRA.items()
        ),
    )
    steps = Field("steps", "uint32", "1", "steps since the snapshot before")
    table = Table("diagnostics", samples, _diagnostics())
    return Layout(snapshots * members, 1, fields, (table,), (steps,), coordinates(points, box))


def _diagnostics() -> tuple[Field, ...]:
    return (
        Field("time", "float64", "Ln/cs", "time of the sample"),
        Field("member", "int32", "1", "trajectory to which the sample belongs"),
        *(Field(name, "float64", "1", meaning) for name, meaning in diagnostics.SCALARS.items()),
        Field("energy_residual", "float64", "1", "what the budget of the energy leaves over, per unit time"),
        Field("enstrophy_residual", "float64", "1", "what the budget of the enstrophy leaves over, per unit time"),
        Field("step", "float64", "Ln/cs", "length of the last step"),
        Field("courant", "float64", "1", "Courant number (|u| + |v|) · step / spacing of the last step"),
    )
