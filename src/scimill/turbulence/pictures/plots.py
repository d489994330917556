"""Pictures of stores of turbulence: fields, time traces, spectra, an animation. `drawing` defines their look."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scimill.errors import ConfigError
from scimill.parallel.report import describe_count
from scimill.pictures import STYLE, make_folder, save
from scimill.store.reader import Reader
from scimill.turbulence.corrections import CHANGES, STATE, Corrections, is_corrections
from scimill.turbulence.exchange.export_data import trajectories_of_corrections, trajectories_of_snapshots
from scimill.turbulence.exchange.layouts import Trajectories
from scimill.turbulence.kernels import diagnostics
from scimill.turbulence.kernels.equations import FlowPhysics
from scimill.turbulence.kernels.solver import FlowSolver
from scimill.turbulence.kernels.spectral import highest_mode
from scimill.turbulence.pictures import drawing
from scimill.turbulence.pictures.drawing import Curve, FieldFrame
from scimill.turbulence.snapshots import Snapshots
from scimill.turbulence.sources import FineRun

COLUMNS = 5  # times in a picture of fields
MAX_FRAMES = 120  # of an animation: 10 s
MAX_SPECTRA = 50  # snapshots to average spectra over
SPREAD = (0.1, 0.9)  # quantiles at the edges of the band around a curve

Array = NDArray[np.float64]


def plot_store(store: Path, folder: Path, member: int, animation: str) -> list[Path]:
    """Draw a store of snapshots or of corrections.

    Parameters
    ----------
    store : complete.
    folder : directory for the pictures; created if its parent exists.
    member : trajectory to draw.
    animation : "gif", "mp4" or "none".

    Returns
    -------
    The files.

    Raises
    ------
    InputError : missing, not a store, or unfinished.
    ConfigError : no such member, or an MP4 without ffmpeg.
    StorageError : the directory cannot be created or written, or the store is damaged.
    """
    drawing.check_animation(animation)
    with Reader.open(store) as reader:
        reader.require_complete()
        runs, figures = _of_corrections(reader) if is_corrections(reader) else _of_snapshots(reader)
        if member >= runs.members:
            raise ConfigError(f"no such member: {member}", where="flag --member", allowed=f"0 to {runs.members - 1}")
        make_folder(folder)
        paths = [folder / name for name in figures]
        with mpl.rc_context(STYLE):
            for path, draw in zip(paths, figures.values(), strict=True):
                save(draw(member), path)
            if animation != "none":
                paths.append(folder / f"animation.{animation}")
                _animate(runs, member, paths[-1])
    return paths


Figures = Mapping[str, Callable[[int], Figure]]
"""For each picture, the function that draws it, given the member."""


def _of_snapshots(reader: Reader) -> tuple[Trajectories, Figures]:
    snapshots = Snapshots(reader)
    runs = trajectories_of_snapshots(FineRun(snapshots, -np.inf))
    title = describe_flow(snapshots.physics, snapshots.points)
    figures: dict[str, Callable[[int], Figure]] = {
        "fields.png": lambda member: draw_fields(runs, member, title),
        "spectra.png": lambda member: draw_spectra(snapshots, runs, member, title),
    }
    if reader.layout.tables:
        figures["traces.png"] = lambda member: draw_traces(snapshots, member, title)
    return runs, figures


def _of_corrections(reader: Reader) -> tuple[Trajectories, Figures]:
    pairs = Corrections(reader)
    runs = trajectories_of_corrections(pairs)
    substeps = f"{describe_count(pairs.substeps, 'substep')}"
    what = f"corrections of coarse steps of {pairs.duration:.4g} Lₙ/cs, {pairs.scheme}, {substeps}"
    title = f"{describe_flow(pairs.physics, pairs.points)}\n{what}"
    figures: dict[str, Callable[[int], Figure]] = {
        "fields.png": lambda member: draw_fields(runs, member, title),
        "spectra.png": lambda member: draw_correction_spectra(pairs, runs, member, title),
    }
    return runs, figures


def describe_flow(physics: FlowPhysics, points: int) -> str:
    """Describe the equations and the grid in one line."""
    kind = "modified Hasegawa–Wakatani" if physics.modified else "Hasegawa–Wakatani"
    diffusions = {"Dn": physics.density_diffusion, "Dω": physics.vorticity_diffusion}
    if physics.hyperviscosity:
        diffusions[f"ν ∇^{2 * physics.order}"] = physics.hyperviscosity
    words = [f"α = {physics.alpha:g}", f"κ = {physics.kappa:g}"]
    words += [f"{name} = {value:g}" for name, value in diffusions.items() if value]
    return f"{kind}, {', '.join(words)}, {points}² points"


def evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most `most` of `count` indices, evenly spaced and including the last."""
    chosen: list[int] = np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()
    return chosen


def frames(
    runs: Trajectories, member: int, most: int, names: Sequence[str], *, without_first: bool = False
) -> Iterator[FieldFrame]:
    """Yield fields at times evenly spaced over the run."""
    first = int(without_first and len(runs.times) > most)  # the initial noise has no meaning
    for index in evenly_spaced(len(runs.times) - first, most):
        fields = runs.read(member, index + first)
        yield FieldFrame(float(runs.times[index + first]), {name: fields[name] for name in names})


def draw_fields(runs: Trajectories, member: int, title: str) -> Figure:
    """Draw the fields at several times."""
    names = fields_to_draw(runs)
    return drawing.draw_fields(list(frames(runs, member, COLUMNS, names, without_first=True)), runs.box, title)


def fields_to_draw(runs: Trajectories) -> tuple[str, ...]:
    """Return the fields to draw: the state, or the vorticity and the corrections of a store of corrections."""
    return STATE if runs.fields == STATE else ("vorticity", *CHANGES)


def _animate(runs: Trajectories, member: int, path: Path) -> None:
    """Write an animation of the state, or of the vorticity and the corrections."""
    names = fields_to_draw(runs)
    sample = list(frames(runs, member, COLUMNS, names, without_first=True))
    halves = {name: drawing.half_range(frame.fields[name] for frame in sample) for name in names}
    drawing.animate(frames(runs, member, MAX_FRAMES, names), halves, runs.box, path)


# ---- time traces ------------------------------------------------------------------------------------------------


def draw_traces(snapshots: Snapshots, member: int, title: str) -> Figure:
    """Draw diagnostics over time, with their means over the second half of the run."""
    time = snapshots.diagnostics("time", member)
    late = time >= 0.5 * (time[0] + time[-1])

    def curve(symbol: str, name: str, *, size: bool = False) -> Curve:
        values = snapshots.diagnostics(name, member)
        if size:
            return Curve(symbol, time, np.where(values == 0, np.nan, np.abs(values)))
        return Curve(f"{symbol} = {values[late].mean():.3g} ± {values[late].std():.2g}", time, values)

    panels = {
        "flux, dissipation": [
            curve("Γn", "particle_flux"), curve("Γc", "resistive_dissipation"), curve("D_E", "energy_dissipation"),
            curve("D_U", "enstrophy_dissipation"),
        ],
        "energy, enstrophy": [
            curve("E", "energy"), curve("U", "enstrophy"), curve("E kinetic", "kinetic_energy"),
            curve("E zonal", "zonal_energy"),
        ],
        "|budget residual|": [
            curve("dE/dt", "energy_residual", size=True), curve("dU/dt", "enstrophy_residual", size=True)
        ],
        "Courant number": [curve("last step", "courant")],
    }  # fmt: skip
    return drawing.draw_traces(panels, f"{title}\nmean ± standard deviation for t ≥ {time[late][0]:.4g} Lₙ/cs")


# ---- spectra ----------------------------------------------------------------------------------------------------


def draw_spectra(snapshots: Snapshots, runs: Trajectories, member: int, title: str) -> Figure:
    """Draw spectra of energy, enstrophy and flux, averaged over the second half of the run."""
    late = np.flatnonzero(runs.times >= 0.5 * (runs.times[0] + runs.times[-1]))
    chosen = [int(late[i]) for i in evenly_spaced(len(late), MAX_SPECTRA)]
    found = np.array([_spectra(snapshots, runs, member, index) for index in chosen])  # (snapshot, spectrum, shell)
    k = snapshots.physics.wave_number(1) * np.arange(found.shape[2])
    density, kinetic, vorticity, flux = (_band(found[:, i], k) for i in range(found.shape[1]))
    panels = {
        "energy per shell": [density("density ½⟨n²⟩"), kinetic("kinetic ½⟨|∇φ|²⟩")],
        "enstrophy per shell": [vorticity("½⟨ω²⟩")],
        "flux per shell": [flux("Γn")],
    }
    limits = {}
    if snapshots.values.get("scheme", "spectral") == "spectral":
        limits["highest mode kept"] = snapshots.physics.wave_number(highest_mode(snapshots.points))
    start, number = runs.times[chosen[0]], len(chosen)
    snapshots_used = f"{describe_count(number, 'snapshot')} at t ≥ {start:.4g} Lₙ/cs"
    about = f"mean of {snapshots_used}; bands contain 80 % of them"
    return drawing.draw_spectra(panels, f"{title}\n{about}", limits)


def _spectra(snapshots: Snapshots, runs: Trajectories, member: int, index: int) -> Array:
    """Return the spectra of a snapshot, shape (spectra, shells): as stored, or computed from its state."""
    names = {field.name for field in snapshots.reader.layout.fields}
    if set(diagnostics.SPECTRA) <= names:
        row = member * snapshots.count + index
        return np.array([snapshots.reader.rows(row, name)[0] for name in diagnostics.SPECTRA])
    fields = runs.read(member, index)
    return spectra_of(snapshots.physics, fields["density"], fields["vorticity"])


def spectra_of(physics: FlowPhysics, density: drawing.Array, vorticity: drawing.Array) -> Array:
    """Return the spectra of a state up to the 2/3 cutoff, shape (spectra, shells); see `diagnostics.SPECTRA`."""
    solver = FlowSolver(physics, density.shape[0])
    solver.load(density.astype(np.float64), vorticity.astype(np.float64))
    return solver.spectra()


def _band(spectra: drawing.Array, k: drawing.Array) -> Callable[[str], Curve]:
    """Return a function that makes a curve, given its label: mean and band of spectra (snapshot, shell)."""
    mean, (low, high) = spectra.mean(axis=0), np.quantile(spectra, SPREAD, axis=0)
    there = np.flatnonzero(mean)[np.flatnonzero(mean) > 0]  # without the box mean: the axis is logarithmic
    is_signed = mean[there].min(initial=0) < 0
    low = low if is_signed else np.where(low > 0, low, np.nan)  # a logarithmic axis cannot show the rest
    return lambda label: Curve(label, k[there], mean[there], low[there], high[there])


def draw_correction_spectra(pairs: Corrections, runs: Trajectories, member: int, title: str) -> Figure:
    """Draw spectra of the corrections and of the state, and their ratio."""
    chosen = evenly_spaced(len(runs.times), MAX_SPECTRA)
    states, changes = _mean_spectra(pairs, runs, member, chosen)
    panels, ratios = {}, []
    for name, label in (("density", "½⟨n²⟩"), ("vorticity", "½⟨ω²⟩")):
        row = list(diagnostics.SPECTRA).index(f"{name}_spectrum")
        state, change = states[row], changes[row]
        shells = np.flatnonzero((state > 0) & (change > 0))
        k = pairs.physics.wave_number(1) * shells
        curves = (("after the coarse step", state), ("correction", change))
        panels[f"{label} per shell"] = [Curve(legend, k, spectrum[shells]) for legend, spectrum in curves]
        ratios.append(Curve(name, k, np.sqrt(change[shells] / state[shells])))
    panels["amplitude, correction / state"] = ratios
    limits = {"highest mode kept": pairs.physics.wave_number(highest_mode(pairs.points))}
    averaged_over = f"{describe_count(len(chosen), 'pair')}"
    return drawing.draw_spectra(panels, f"{title}; mean of {averaged_over}", limits)


def _mean_spectra(pairs: Corrections, runs: Trajectories, member: int, chosen: Sequence[int]) -> tuple[Array, Array]:
    """Return mean spectra of the states after the coarse step, and of their corrections."""
    states, changes = [], []
    for index in chosen:
        fields = runs.read(member, index)
        states.append(spectra_of(pairs.physics, fields["density"], fields["vorticity"]))
        changes.append(spectra_of(pairs.physics, *(fields[name] for name in CHANGES)))
    return np.mean(states, axis=0), np.mean(changes, axis=0)
