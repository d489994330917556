"""Judging trained networks by embeddings of pairs that training has not seen; probes are fitted to those it has."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scimill.errors import ConfigError, InputError
from scimill.files import replacing
from scimill.pictures import SIZE, STYLE, make_folder, save
from scimill.sky import CAMPAIGN
from scimill.sky.kernels import retrieval
from scimill.sky.kernels.retrieval import Recall
from scimill.sky.learning import embed
from scimill.store.reader import Reader

CAMERAS = ("rgb", "thermal")
COLORS = {"rgb": "#31688e", "thermal": "#d1495b"}
FEWEST = 8  # pairs below which a split is not judged

Columns = dict[str, NDArray[Any]]


class Probe(NamedTuple):
    """How well a label follows from features of one camera: R² of both probes, and what ridge regression predicts."""

    neighbours: float
    ridge: float
    predicted: NDArray[np.float64]
    true: NDArray[np.float64]


class SetResult(NamedTuple):
    """All that is found of one set of pairs."""

    name: str
    pairs: int
    to_thermal: Recall
    """of a colour image's thermal one"""
    to_rgb: Recall
    rank: Mapping[str, float]
    """RankMe of each camera's features"""
    deviation: Mapping[str, float]
    """mean over the dimensions of the embeddings' standard deviation"""
    spectrum: Mapping[str, NDArray[np.float64]]
    probes: Mapping[str, Mapping[str, Probe]]
    """by label and camera"""


def read_embeddings(path: Path) -> Columns:
    """All whole pairs of a store of embeddings.

    Raises
    ------
    InputError : no such store.

    """
    with Reader.open(path) as reader:
        CAMPAIGN.require(reader, embed.EMBED)
        reader.require_complete()
        columns = {field.name: np.asarray(reader.file[field.name]) for field in reader.layout.fields}
    whole = columns["status"] == 0
    return {name: values[whole] for name, values in columns.items()}


def read_truth(path: Path, columns: Columns) -> dict[str, NDArray[np.float64]]:
    """Labels of each pair from a CSV file with ``timestamp`` (ns) and ``vsn``: all its other columns that are numbers.

    Raises
    ------
    InputError : no such file, or it does not know a pair.

    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = {(int(row["timestamp"]), row["vsn"]): row for row in csv.DictReader(file)}
        wanted = [rows[int(t), n.decode()] for t, n in zip(columns["time"], columns["node"], strict=True)]
        names = [name for name in wanted[0] if name not in ("timestamp", "vsn", "position", "sun_elevation")]
        return {name: np.array([float(row[name]) for row in wanted]) for name in names}
    except OSError as error:
        raise InputError(f"cannot read the labels: {error.strerror}", where=str(path)) from None
    except (KeyError, ValueError, TypeError, IndexError, csv.Error) as error:
        what = f"no labels of these pairs: {type(error).__name__} {error}"
        raise InputError(what, where=str(path), allowed="CSV with timestamp (ns), vsn and a row per pair") from None


def evaluate_set(
    name: str, columns: Columns, labels: Columns, known: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> SetResult:
    """Judge some pairs.

    Parameters
    ----------
    name : of the set.
    columns, labels : of all pairs.
    known, chosen : pairs that probes are fitted to, and those that are judged.

    """
    part = {key: values[chosen] for key, values in columns.items()}
    features = {camera: part[f"{camera}_features"] for camera in CAMERAS}
    spectra = {camera: retrieval.spectrum(features[camera]) for camera in CAMERAS}
    probes = {
        label: {
            camera: _probe(columns[f"{camera}_features"][known], values[known], features[camera], values[chosen])
            for camera in CAMERAS
        }
        for label, values in labels.items()
        if known.any()
    }
    return SetResult(
        name=name,
        pairs=int(chosen.sum()),
        to_thermal=retrieval.recall(part["rgb_embedding"], part["thermal_embedding"]),
        to_rgb=retrieval.recall(part["thermal_embedding"], part["rgb_embedding"]),
        rank={camera: retrieval.effective_rank(spectra[camera]) for camera in CAMERAS},
        deviation={camera: float(part[f"{camera}_embedding"].std(0).mean()) for camera in CAMERAS},
        spectrum=spectra,
        probes=probes,
    )


def _probe(known: NDArray[Any], labels: NDArray[Any], wanted: NDArray[Any], true: NDArray[Any]) -> Probe:
    near, line = retrieval.neighbours(known, labels, wanted), retrieval.ridge(known, labels, wanted)
    return Probe(retrieval.r_squared(near, true), retrieval.r_squared(line, true), line, true)


def evaluate(path: Path, truth: Path | None) -> list[SetResult]:
    """Judge each set of pairs that training has not seen: stretches of time, nodes, or all of another store.

    Raises
    ------
    InputError : no such store or labels.
    ConfigError : fewer pairs than can be judged.

    """
    columns = read_embeddings(path)
    labels: Columns = {"sun elevation": columns["sun_elevation"]}
    if truth:
        labels |= read_truth(truth, columns)
    role = columns["role"]
    known = role == embed.TRAIN
    sets = {
        embed.ROLES[code]: role == code for code in (embed.TEST, embed.VALIDATION, embed.OTHER_NODE, embed.OTHER_STORE)
    }
    found = [evaluate_set(name, columns, labels, known, chosen) for name, chosen in sets.items() if chosen.sum() >= FEWEST]
    if not found:
        raise ConfigError(
            f"no set has {FEWEST} pairs that training has not seen", where=str(path),
            remedy="train with a larger --test-share, or embed another store",
        )  # fmt: skip
    return found


def describe_evaluation(path: Path, truth: Path | None, folder: Path | None) -> str:
    """Judge, write the files if a folder is given, and describe the result; see `evaluate` and `write`."""
    found = evaluate(path, truth)
    if folder:
        write_evaluation(found, folder)
    return describe_results(found)


def describe_results(found: list[SetResult]) -> str:
    """Describe what was found, one paragraph per set."""
    lines = []
    for j in found:
        lines.append(f"{j.name}: {j.pairs:,} pairs, chance R@1 {1 / j.pairs:.4f}")
        for words, r in (("rgb to thermal", j.to_thermal), ("thermal to rgb", j.to_rgb)):
            times = f"{r.over_chance(1):.3g} and {r.over_chance(5):.3g} times chance"
            lines.append(f"  {words:<16}R@1 {r.at_1:.4f}  R@5 {r.at_5:.4f}  ({times})")
        lines += [f"  {c:<16}RankMe {j.rank[c]:.1f}  deviation {j.deviation[c]:.3f}" for c in CAMERAS]
        for label, probes in j.probes.items():
            words = "; ".join(f"{camera} {p.neighbours:.2f}, {p.ridge:.2f}" for camera, p in probes.items())
            lines.append(f"  R² of {label} (neighbours, ridge): {words}")
    return "\n".join(lines)


def write_evaluation(found: list[SetResult], folder: Path) -> list[Path]:
    """Write evaluation.json and evaluation.png.

    Raises
    ------
    StorageError : they cannot be written.

    """
    make_folder(folder)
    paths = [folder / "evaluation.json", folder / "evaluation.png"]
    with replacing(paths[0], "evaluation") as part:
        part.write_text(json.dumps([_plain(j) for j in found], indent=2) + "\n", "utf-8")
    with mpl.rc_context(STYLE):
        save(draw(found[0]), paths[1])
    return paths


def _plain(j: SetResult) -> dict[str, Any]:
    recalls = {"rgb_to_thermal": j.to_thermal._asdict(), "thermal_to_rgb": j.to_rgb._asdict()}
    probes = {
        label: {camera: {"neighbours": p.neighbours, "ridge": p.ridge} for camera, p in both.items()}
        for label, both in j.probes.items()
    }
    return {
        "set": j.name, "pairs": j.pairs, **recalls, "rankme": dict(j.rank), "deviation": dict(j.deviation),
        "r_squared": probes,
    }  # fmt: skip


def draw(j: SetResult) -> Figure:
    """Make the figure: recall beside chance, the spectrum of the features, and a probe per label."""
    figure = Figure(SIZE)
    labels = list(j.probes)[:4]
    grid = figure.subplots(2, 3).ravel()
    _draw_recall(grid[0], j)
    for camera in CAMERAS:
        values = j.spectrum[camera]
        grid[1].plot(np.arange(1, len(values) + 1), values / values[0], color=COLORS[camera], label=camera)
    grid[1].set(title="singular values of the features", xlabel="number", yscale="log", xscale="log")
    grid[1].legend()
    for axes, label in zip(grid[2:], labels, strict=False):
        _draw_probe(axes, label, j.probes[label])
    for axes in grid[2 + len(labels) :]:
        axes.set_axis_off()
    figure.suptitle(f"{j.name}: {j.pairs:,} pairs that training has not seen")
    return figure


def _draw_recall(axes: Axes, j: SetResult) -> None:
    for number, (name, r) in enumerate((("rgb → thermal", j.to_thermal), ("thermal → rgb", j.to_rgb))):
        axes.bar(np.arange(2) + 0.4 * number, [r.at_1, r.at_5], 0.38, color=COLORS[CAMERAS[number]], label=name)
    for number, k in enumerate((1, 5)):
        chance = k / j.pairs
        axes.hlines(chance, number - 0.25, number + 0.65, color="black", ls=":", label="" if number else "chance")
    axes.set_xticks(np.arange(2) + 0.2, ["R@1", "R@5"])
    axes.set(title="recall of the other image of a pair", ylabel="share of the pairs")
    axes.legend()


def _draw_probe(axes: Axes, label: str, probes: Mapping[str, Probe]) -> None:
    for camera, probe in probes.items():
        axes.plot(probe.true, probe.predicted, ".", ms=3, color=COLORS[camera], label=f"{camera}, R² {probe.ridge:.2f}")
    low, high = min(p.true.min() for p in probes.values()), max(p.true.max() for p in probes.values())
    axes.plot([low, high], [low, high], color="black", lw=0.8)
    axes.set(title=f"{label}, ridge regression", xlabel="true", ylabel="predicted")
    axes.legend()
