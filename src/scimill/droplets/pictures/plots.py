"""Plot a store of droplets, or one droplet over time, as PNG files in slide format."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import CenteredNorm, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from scimill import config as configuration
from scimill.droplets import CAMPAIGN, arguments
from scimill.droplets.fields import UNITS
from scimill.droplets.kernels import solver
from scimill.droplets.kernels.weird import BITS, CLASSES
from scimill.droplets.pictures.outcomes import (
    PLANES,
    Array,
    Grid,
    compute_outcomes,
    describe_outcome,
    edges,
    map_outcome,
    recompute_trajectories,
    relative_density,
    resolution,
    share_of_class,
)
from scimill.droplets.pictures.population import (
    DRAWN_INPUTS,
    LOGARITHMIC,
    Counts,
    DropletGroup,
    DropletSample,
    read_config,
    read_counts,
    read_group,
    read_sample,
)
from scimill.droplets.solve import Trajectory, describe_facts
from scimill.files import check_directory
from scimill.pictures import SIZE, STYLE, make_folder, save
from scimill.store.reader import Reader

ACCEPTED, WEIRD, REFERENCE, FAINT = "#31688e", "#d1495b", "#666666", "#dddddd"
SHARE, SIGNED, ORDERED = "magma_r", "coolwarm", "viridis"  # perceptually uniform colour maps


def plot_store(store: Path, folder: Path) -> list[Path]:
    """Plot a store of droplets.

    Parameters
    ----------
    store : a store, complete or still being written.
    folder : folder for the pictures; created if its parent exists.

    Returns
    -------
    The files: inputs.png, outcomes.png, weird.png and trajectories.png.

    Raises
    ------
    InputError : not a store of droplets, or without a finished block.
    StorageError : the folder's parent is missing, or the folder cannot be written.

    """
    with Reader.open(store) as reader:
        CAMPAIGN.require(reader)
        make_folder(folder)
        labels, settings = axis_labels(reader), arguments.solver_settings(read_config(reader))
        sample, counts, group = read_sample(reader), read_counts(reader), read_group(reader)
    with mpl.rc_context(STYLE):
        figures = {
            "inputs.png": draw_inputs(sample, labels),
            "outcomes.png": draw_outcomes(sample, labels, settings),
            "weird.png": draw_weird(sample, labels, counts),
            "trajectories.png": draw_trajectories(group, settings, labels),
        }
        for name, figure in figures.items():
            save(figure, folder / name)
    return [folder / name for name in figures]


def plot_trajectory(trajectory: Trajectory, path: Path) -> None:
    """Plot one droplet over time, with its theoretical values.

    Raises
    ------
    StorageError : the directory is missing, or cannot be written.

    """
    check_directory(path)
    with mpl.rc_context(STYLE):
        save(draw_trajectory(trajectory), path)


def axis_labels(reader: Reader) -> dict[str, str]:
    """Make axis labels of all fields, with the units of the store."""
    kind = configuration.parse_yaml(str(reader.provenance["config"]), "the stored configuration").values
    names = {name: name.replace("_", " ") for name in UNITS}
    names["salinity"] = {"salt-mass": "salt mass", "solute-term": "solute term"}.get(str(kind.get("salinity_kind")), "")
    units = {field.name: field.units.replace("m3", "m³") for field in reader.layout.fields}
    return {name: names[name] + (f" ({units[name]})" if units[name] != "1" else "") for name in UNITS}


def _scale(axes: Axes, x: str, y: str = "") -> None:
    """Make an axis logarithmic if its field spans decades."""
    if x in LOGARITHMIC:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=5))
        axes.xaxis.set_minor_locator(NullLocator())
    if y in LOGARITHMIC:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=8))
        axes.yaxis.set_minor_locator(NullLocator())


def draw_inputs(sample: DropletSample, labels: Mapping[str, str]) -> Figure:
    """Draw histograms of the inputs and of time, for accepted and weird droplets."""
    figure = Figure(SIZE)
    figure.suptitle(f"Sampled inputs: {sample.content}")
    panels = figure.subplots(2, 4)
    kinds = {"accepted": (sample.accepted, ACCEPTED, True), "weird": (sample.weird, WEIRD, False)}
    for name, axes in zip(DRAWN_INPUTS, panels.flat, strict=False):
        bins = edges(name, [sample.accepted.values[name], sample.weird.values[name]], 60)
        for population, colour, is_filled in kinds.values():
            density = relative_density(population.values[name], bins)
            axes.stairs(density, bins, color=colour, fill=is_filled, baseline=0 if is_filled else None,
                        alpha=0.6 if is_filled else 1, linewidth=2)  # fmt: skip
        _scale(axes, name)
        axes.set(xlabel=labels[name], ylim=(0, None), xlim=(bins[0], bins[-1]))
    for axes in panels[:, 0]:
        axes.set_ylabel("density relative to uniform")
    drawn = max(1.0, sample.accepted.droplets + sample.weird.droplets)
    patches = [
        Patch(facecolor=colour, alpha=0.6 if is_filled else 1, label=f"{name}: {population.droplets / drawn:.2%}")
        for name, (population, colour, is_filled) in kinds.items()
    ]
    panels[1, 3].set_axis_off()
    panels[1, 3].legend(handles=patches, loc="center", fontsize=13, title="share of sampled droplets")
    return figure


def draw_outcomes(sample: DropletSample, labels: Mapping[str, str], settings: solver.SolverSettings) -> Figure:
    """Draw maps of the accepted droplets' outcomes, over initial radius, humidity and salinity."""
    figure, values = Figure(SIZE), sample.accepted.values
    figure.suptitle(f"Outcomes of accepted droplets: {sample.content} (hatched: no data)")
    drawn = compute_outcomes(values, settings)
    panels = figure.subplots(len(PLANES), len(drawn), sharex=True, sharey="row")
    grids = [plane_grid(sample, plane) for plane in PLANES]
    for column, outcome in zip(panels.T, drawn, strict=True):
        maps = [
            map_outcome(outcome, grid.cells(*(values[axis] for axis in plane)), grid.shape)
            for grid, plane in zip(grids, PLANES, strict=True)
        ]
        norm = Normalize(0, 1) if outcome.is_share else CenteredNorm(halfrange=_half_range(maps))
        for axes, grid, plane, cells in zip(column, grids, PLANES, maps, strict=True):
            mesh = _draw_map(axes, grid, plane, cells, norm, SHARE if outcome.is_share else SIGNED)
        column[0].set_title(f"{outcome.title}\n{describe_outcome(outcome)}")
        column[-1].set_xlabel(labels["initial_radius"])
        bar = figure.colorbar(mesh, ax=column.tolist(), location="bottom", aspect=16, pad=0.02,
                              extend="neither" if outcome.is_share else "both")  # fmt: skip
        if outcome.is_share:
            bar.ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for row, (_, y) in zip(panels, PLANES, strict=True):
        row[0].set_ylabel(labels[y])
    return figure


def plane_grid(sample: DropletSample, plane: tuple[str, str]) -> Grid:
    """Choose the cells of a map of all records, accepted and weird."""
    kinds = (sample.accepted.values, sample.weird.values)
    count = resolution(len(sample.accepted.values["time"]))
    return Grid(*(edges(axis, [values[axis] for values in kinds], count) for axis in plane))


def _half_range(maps: Sequence[Array]) -> float:
    """Return half the range of a colour scale; it leaves out the most extreme cells, which are noisy."""
    sizes = np.abs(np.concatenate([cells[np.isfinite(cells)] for cells in maps]))
    return float(np.quantile(sizes, 0.98)) or 1.0 if sizes.size else 1.0


def _draw_map(
    axes: Axes, grid: Grid, plane: tuple[str, str], cells: Array, norm: Normalize, colours: str
) -> ScalarMappable:
    axes.patch.set(facecolor="white", edgecolor=FAINT, hatch="////")  # visible in empty cells
    mesh = axes.pcolormesh(grid.x, grid.y, cells, norm=norm, cmap=colours)
    _scale(axes, *plane)
    return mesh


def draw_weird(sample: DropletSample, labels: Mapping[str, str], counts: Counts) -> Figure:
    """Draw the counts of all classes, and maps of the two most frequent ones."""
    figure = Figure(SIZE)
    share = sample.weird.droplets / max(1.0, sample.accepted.droplets + sample.weird.droplets)
    figure.suptitle(f"Weird droplets: {share:.2%} of {counts.drawn:,} sampled\nmaps: {sample.content}")
    bars, maps = cast(Any, figure.subfigures(1, 2, width_ratios=(2, 3)))
    _draw_classes(bars.subplots(), counts)
    order = np.argsort(-counts.by_class, kind="stable")
    frequent = [CLASSES[i] for i in order[:2] if np.any(sample.weird.values["classes"] & BITS[CLASSES[i]])]
    if frequent:
        panels = maps.subplots(len(frequent), 2, squeeze=False, sharex=True, sharey="col")
        _draw_weird_maps(panels, sample, labels, frequent)
    return figure


def _draw_classes(axes: Axes, counts: Counts) -> None:
    """Draw a bar for each class, on a logarithmic axis that shows even a single droplet."""
    shares = counts.by_class / max(1, counts.drawn)
    lowest = min(0.5 / max(1, counts.drawn), 1e-3)
    names = [name.split("-")[-1].replace("_", " ") for name in CLASSES]
    axes.barh(names, np.maximum(shares - lowest, 0), left=lowest, color=WEIRD, height=0.6)
    axes.set(xscale="log", xlim=(lowest, 1), xlabel="share of sampled droplets")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.invert_yaxis()
    texts = [f"{n:,}  ({share:.2%})" if n else "none" for n, share in zip(counts.by_class, shares, strict=True)]
    beside = axes.secondary_yaxis("right")
    beside.set_yticks(range(len(texts)), labels=texts)
    beside.tick_params(length=0)
    beside.spines["right"].set_visible(False)


def _draw_weird_maps(panels: Any, sample: DropletSample, labels: Mapping[str, str], names: Sequence[str]) -> None:
    for row, name in zip(panels, names, strict=True):
        grids = [plane_grid(sample, plane) for plane in PLANES]
        maps = [share_of_class(sample, grid, plane, name) for grid, plane in zip(grids, PLANES, strict=True)]
        norm = Normalize(0, max(np.nanmax(cells) for cells in maps))
        for axes, grid, plane, cells in zip(row, grids, PLANES, maps, strict=True):
            mesh = _draw_map(axes, grid, plane, cells, norm, SHARE)
            axes.set(ylabel=labels[plane[1]], title=name.split("-")[-1].replace("_", " "))
        bar = row[0].figure.colorbar(mesh, ax=row.tolist(), label="share in cell")
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes, plane in zip(panels[-1], PLANES, strict=True):
        axes.set_xlabel(labels[plane[0]])


def draw_trajectories(group: DropletGroup, settings: solver.SolverSettings, labels: Mapping[str, str]) -> Figure:
    """Draw recomputed trajectories of droplets of a store, with their stored points."""
    figure = Figure(SIZE)
    if not len(group.times):
        figure.suptitle("No accepted droplets to plot")
        return figure
    again = recompute_trajectories(settings, group)
    figure.suptitle(
        f"Recomputed trajectories (lines) and stored points (circles), droplets shown: {len(group.times)}\n"
        f"largest relative deviation: radius {again.radius_deviation:.1g}, "
        f"temperature {again.temperature_deviation:.1g}"
    )
    panels, norm = figure.subplots(1, 2), _norm(group.inputs[0])
    colours = mpl.colormaps[ORDERED](norm(group.inputs[0]))
    pairs = {"radius": (again.radius, group.radius), "temperature": (again.temperature, group.temperature)}
    for axes, (name, (lines, points)) in zip(panels, pairs.items(), strict=True):
        for i, colour in enumerate(colours):
            axes.plot(again.times[i], lines[i], color=colour, linewidth=1.8)
            axes.plot(
                group.times[i], points[i], "o", color=colour, markeredgecolor="black", markersize=7, clip_on=False
            )
        _scale(axes, "time", name)
        axes.set(xlabel=labels["time"], ylabel=labels[name])
        axes.margins(x=0)
        axes.grid(color=FAINT, linewidth=0.6)
    figure.colorbar(ScalarMappable(norm, ORDERED), ax=panels.tolist(), label=labels["initial_radius"], pad=0.02)
    return figure


def _norm(radii: NDArray[np.float32]) -> Normalize:
    low, high = float(radii.min()), float(radii.max())
    return LogNorm(low, high if high > low else 1.01 * low)


def draw_trajectory(trajectory: Trajectory) -> Figure:
    """Draw one droplet over time, with the radii and temperatures from theory."""
    figure, theory, known = Figure(SIZE), trajectory.theory, describe_facts(trajectory)
    figure.suptitle(f"Droplet: {known['droplet']}\nair: {known['air']}; integration: {known['ending']}")
    radius, temperature = figure.subplots(1, 2)
    radius.plot(trajectory.times, trajectory.radius, color=ACCEPTED, linewidth=2.5)
    _reference(radius, theory.equilibrium_radius, "equilibrium radius", "--")
    _reference(radius, theory.critical_radius, "critical radius", ":")
    temperature.plot(trajectory.times, trajectory.temperature, color=WEIRD, linewidth=2.5)
    _reference(temperature, theory.wet_bulb, "wet-bulb temperature", "--")
    _reference(temperature, trajectory.config.air_temperature, "air temperature", ":")
    for axes, name, label in ((radius, "radius", "radius (m)"), (temperature, "temperature", "temperature (K)")):
        _scale(axes, "time", name)
        axes.set(xlabel="time (s)", ylabel=label)
        axes.margins(x=0)
        axes.grid(color=FAINT, linewidth=0.6)
        axes.axvline(theory.conduction_time, color=FAINT, linewidth=6, zorder=0, label="conduction time")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)  # above the axes, clear of the lines
    return figure


def _reference(axes: Axes, value: float | None, label: str, style: str) -> None:
    if value is not None:
        axes.axhline(value, color=REFERENCE, linestyle=style, label=label)
