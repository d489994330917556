"""Evaluate embeddings of pairs that training has not seen; probes are fitted to the training pairs."""

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
CAMERA_NAMES = {"rgb": "colour", "thermal": "thermal"}
AXIS_LABELS = {
    "sun elevation": "sun elevation (°)", "cover": "cloud cover (fraction)", "cloud_base": "cloud base height (m)",
    "air_temperature": "air temperature (°C)",
}  # fmt: skip
FEWEST = 8  # pairs; smaller sets are not evaluated

Columns = dict[str, NDArray[Any]]


class Probe(NamedTuple):
    """How well features of one camera predict a label: R² of both probes, and the ridge regression's predictions."""

    neighbours: float
    ridge: float
    predicted: NDArray[np.float64]
    true: NDArray[np.float64]


class SetResult(NamedTuple):
    """The measures of one set of pairs."""

    name: str
    pairs: int
    to_thermal: Recall
    """recall of the thermal image of a colour image"""
    to_rgb: Recall
    """recall of the colour image of a thermal image"""
    rank: Mapping[str, float]
    """RankMe of each camera's features"""
    deviation: Mapping[str, float]
    """standard deviation of each camera's embeddings, mean over the dimensions"""
    spectrum: Mapping[str, NDArray[np.float64]]
    """singular values of each camera's features"""
    probes: Mapping[str, Mapping[str, Probe]]
    """by label and camera"""


def read_embeddings(path: Path) -> Columns:
    """Read all undamaged pairs of a store of embeddings.

    Raises
    ------
    InputError : it does not exist, or is not a store of embeddings.

    """
    with Reader.open(path) as reader:
        CAMPAIGN.require(reader, embed.EMBED)
        reader.require_complete()
        columns = {field.name: np.asarray(reader.file[field.name]) for field in reader.layout.fields}
    whole = columns["status"] == 0
    return {name: values[whole] for name, values in columns.items()}


def read_truth(path: Path, columns: Columns) -> dict[str, NDArray[np.float64]]:
    """Read the labels of each pair from a CSV file with ``timestamp`` (ns) and ``vsn``.

    The labels are all other columns except ``position`` and ``sun_elevation``; they must be numbers.

    Raises
    ------
    InputError : the file does not exist or lacks a pair, or a label is not a number.

    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = {(int(row["timestamp"]), row["vsn"]): row for row in csv.DictReader(file)}
        wanted = [rows[int(t), n.decode()] for t, n in zip(columns["time"], columns["node"], strict=True)]
        names = [name for name in wanted[0] if name not in ("timestamp", "vsn", "position", "sun_elevation")]
        return {name: np.array([float(row[name]) for row in wanted]) for name in names}
    except OSError as error:
        raise InputError.unreadable("labels", error, path) from None
    except (KeyError, ValueError, TypeError, IndexError, csv.Error) as error:
        what = f"cannot label these pairs: {_describe_error(error)}"
        allowed = "CSV with timestamp (ns), vsn and a row per pair"
        raise InputError(what, where=str(path), allowed=allowed) from None


def _describe_error(error: Exception) -> str:
    if isinstance(error, KeyError):
        key = error.args[0]
        return f"no row for timestamp {key[0]}, vsn {key[1]}" if isinstance(key, tuple) else f"column {key} is missing"
    if isinstance(error, UnicodeDecodeError | csv.Error):
        return "not CSV text"
    return "the store has no pairs" if isinstance(error, IndexError) else "a value is not a number"


def evaluate_set(
    name: str, columns: Columns, labels: Columns, known: NDArray[np.bool_], chosen: NDArray[np.bool_]
) -> SetResult:
    """Evaluate one set of pairs.

    Parameters
    ----------
    name : name of the set.
    columns, labels : embeddings and labels of all pairs.
    known, chosen : which pairs the probes are fitted to, and which are evaluated.

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
    """Evaluate each set of pairs that training has not seen: held-out periods or nodes, or another store.

    Raises
    ------
    InputError : the store or the labels cannot be read.
    ConfigError : every set is too small.

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
    found = [
        evaluate_set(name, columns, labels, known, chosen) for name, chosen in sets.items() if chosen.sum() >= FEWEST
    ]
    if not found:
        raise ConfigError(
            f"no set has at least {FEWEST} pairs that training has not seen", where=str(path),
            remedy="train with a larger --test-share, or embed another store",
        )  # fmt: skip
    return found


def describe_evaluation(path: Path, truth: Path | None, folder: Path | None) -> str:
    """Evaluate, write the files if a folder is given, and describe the results."""
    found = evaluate(path, truth)
    if folder:
        write_evaluation(found, folder)
    return describe_results(found)


def describe_results(found: list[SetResult]) -> str:
    """Describe the results, one paragraph per set."""
    lines = []
    for j in found:
        lines.append(f"{j.name}: {j.pairs:,} pairs, chance R@1 {1 / j.pairs:.4f}")
        for words, r in (("rgb to thermal", j.to_thermal), ("thermal to rgb", j.to_rgb)):
            times = f"{r.over_chance(1):.3g} and {r.over_chance(5):.3g} times chance"
            lines.append(f"  {words:<16}R@1 {r.at_1:.4f}  R@5 {r.at_5:.4f}  ({times})")
        lines += [f"  {c:<16}RankMe {j.rank[c]:.1f}  standard deviation {j.deviation[c]:.3f}" for c in CAMERAS]
        for label, probes in j.probes.items():
            words = "; ".join(f"{camera} {p.neighbours:.2f}, {p.ridge:.2f}" for camera, p in probes.items())
            lines.append(f"  R² of {label} (neighbours, ridge): {words}")
    return "\n".join(lines)


def write_evaluation(found: list[SetResult], folder: Path) -> list[Path]:
    """Write evaluation.json and evaluation.png.

    Raises
    ------
    StorageError : a file cannot be written.

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
    """Draw recall beside chance, the spectrum of the features, and a probe per label."""
    figure = Figure(SIZE)
    labels = list(j.probes)[:4]
    grid = figure.subplots(2, 3).ravel()
    _draw_recall(grid[0], j)
    for camera in CAMERAS:
        values = j.spectrum[camera]
        grid[1].plot(np.arange(1, len(values) + 1), values / values[0], color=COLORS[camera])
    grid[1].set(title="Singular values of the features", xlabel="index", ylabel="share of the largest",
                yscale="log", xscale="log")  # fmt: skip
    for axes, label in zip(grid[2:], labels, strict=False):
        _draw_probe(axes, label, j.probes[label])
    for axes in grid[2 + len(labels) :]:
        axes.set_axis_off()
    figure.suptitle(f"{j.pairs:,} pairs that training has not seen (set: {j.name})")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _draw_recall(axes: Axes, j: SetResult) -> None:
    for number, (camera, r) in enumerate(zip(CAMERAS, (j.to_thermal, j.to_rgb), strict=True)):
        at = np.arange(2) + 0.4 * number
        axes.bar(at, [r.at_1, r.at_5], 0.38, color=COLORS[camera], label=f"from {CAMERA_NAMES[camera]} images")
    for number, k in enumerate((1, 5)):
        chance = k / j.pairs
        axes.hlines(chance, number - 0.25, number + 0.65, color="black", ls=":", label="" if number else "chance")
    axes.set_xticks(np.arange(2) + 0.2, ["most similar\n(R@1)", "among five most similar\n(R@5)"])
    axes.set(title="Recall of the other image of a pair", ylabel="share of pairs")


def _draw_probe(axes: Axes, label: str, probes: Mapping[str, Probe]) -> None:
    for camera, probe in probes.items():
        axes.plot(probe.true, probe.predicted, ".", ms=3, color=COLORS[camera])
    low, high = min(p.true.min() for p in probes.values()), max(p.true.max() for p in probes.values())
    axes.plot([low, high], [low, high], color="black", lw=0.8)
    quality = ", ".join(f"{probe.ridge:.2f} ({CAMERA_NAMES[camera]})" for camera, probe in probes.items())
    name = AXIS_LABELS.get(label, label)
    axes.set(title=f"Ridge regression\nR² {quality}", xlabel=f"true {name}", ylabel=f"predicted {name}")
