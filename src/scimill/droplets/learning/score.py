"""Score a network: summarise its errors on the exact droplets of a store."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.config import parameters_of, parse_yaml
from scimill.droplets import CAMPAIGN, arguments, origin
from scimill.droplets.fields import is_trace
from scimill.droplets.learning import traces as scoring_traces
from scimill.droplets.learning.errors import Errors, measure
from scimill.droplets.learning.models import load_model
from scimill.droplets.learning.network import DropletNetworkSpec
from scimill.droplets.learning.train import read_generation
from scimill.droplets.params import DropletsGenerateConfig, TraceScoreConfig, solute_per_salinity
from scimill.errors import InputError
from scimill.files import replacing
from scimill.parallel.report import say
from scimill.pictures import make_folder
from scimill.store.reader import Reader
from scimill.training.directory import describe_store

QUANTILES = (0.5, 0.9, 0.99)
HELD_OUT = ("test", "validation")


def score(model_path: Path, store: Path, folder: Path | None, traces: TraceScoreConfig | None = None) -> str:
    """Compare a network with a store of exact droplets.

    Parameters
    ----------
    model_path : a run directory or a model file.
    store : droplets with the physics of the training data. Of the training store itself, only held-out blocks are used.
    folder : if given, folder for score.json and error maps.
    traces : how to score if the store holds traces.

    Returns
    -------
    A table as text.

    Raises
    ------
    InputError : not a model, not a store of droplets, damaged, or with different physics.
    StorageError : the folder cannot be written.

    """
    model, about = load_model(model_path)
    if folder:
        make_folder(folder)
    with Reader.open(store) as reader:
        CAMPAIGN.require(reader)
        reader.require_complete()
        notice = compare_physics(model.spec, about, reader)
        if is_trace(reader):
            if describe_store(reader)["identity"] == about["store"]["identity"]:
                say("the network was trained on this trace")
            return scoring_traces.score(model, reader, folder, traces or TraceScoreConfig(), notice)
        errors = measure(model, reader, *_blocks(reader, about))
    found = error_measures(errors)
    if folder:
        from scimill.droplets.pictures import error_maps

        error_maps.plot(errors, folder)
        with replacing(folder / "score.json", "score") as part:
            part.write_text(json.dumps({"store": str(store), **found}, indent=1), "utf-8")
    return describe_errors(found, errors.content) + (f"\n{'physics':<22} {notice}" if notice else "")


def compare_physics(spec: DropletNetworkSpec, about: Mapping[str, Any], reader: Reader) -> str:
    """Refuse a store with other physics than the training data; return a notice if either is unknown.

    Parameters
    ----------
    spec, about : definition of the network, and the content of its file.
    reader : the store.

    Raises
    ------
    InputError : both are known, and differ; or salinity means different things.
    """
    trained_on, scored_on = origin.read_stored(about["store"]["config"]), origin.stored_config(reader)
    _require_same_salinity(trained_on, scored_on, reader)
    names = {"the training data": trained_on, reader.path.name: scored_on}
    if unknown := [name for name, stored in names.items() if not origin.is_physics_known(stored)]:
        return f"unknown for {' and '.join(unknown)}, so not compared"
    data = read_generation(reader)
    ours = (*spec.constants, *spec.saturation, spec.solute_per_salinity)
    theirs = (
        *arguments.constants(data), data.saturation_pressure, data.saturation_slope, data.saturation_offset,
        solute_per_salinity(data),
    )  # fmt: skip
    if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=1e-12, atol=0):
        raise InputError(
            "the store's physical constants or salinity kind differ from those of the training data",
            where=str(reader.path),
            remedy="generate a store with the configuration of the training data and another --seed",
        )
    return ""


def _require_same_salinity(trained_on: Mapping[str, Any], scored_on: Mapping[str, Any], reader: Reader) -> None:
    """Refuse a store whose salinity the network would misread."""
    kinds = (str(stored.get("salinity_kind", "salt-mass")) for stored in (trained_on, scored_on))
    takes, has = (kind.replace("-", " ") for kind in kinds)
    if takes != has:
        raise InputError(
            f"the network takes the {takes} of a droplet, but the store has its {has}",
            where=str(reader.path),
            remedy="score it with a network trained on such data; for imported files, check --salinity-kind",
        )


def _blocks(reader: Reader, about: Mapping[str, Any]) -> tuple[list[int], str]:
    """Choose the blocks to score; return them with their description."""
    everything = list(range(reader.layout.blocks))
    if describe_store(reader)["identity"] != about["store"]["identity"]:
        _require_other_droplets(reader, about["store"])
        return everything, reader.path.name
    for part in HELD_OUT:
        if about["split"][part]:
            return list(about["split"][part]), f"the {part} blocks of {reader.path.name}, the training store"
    raise InputError(
        "the network was trained on all blocks of this store", where=str(reader.path),
        remedy="generate a store with another --seed, or train with --test-share",
    )  # fmt: skip


def _require_other_droplets(reader: Reader, trained_on: Mapping[str, Any]) -> None:
    """Refuse a store with the same random droplets as the training data, but more or fewer of them."""
    ours = parse_yaml(str(reader.provenance["config"]), str(reader.path)).values
    theirs = parse_yaml(trained_on["config"], "the training data").values
    draws = [
        name for name, known in parameters_of(DropletsGenerateConfig).items() if known.affects_data and name != "count"
    ]
    if "count" in ours and all(ours.get(name) == theirs.get(name) for name in draws):
        raise InputError(
            "the store has the droplets of the training data; only their number differs",
            where=str(reader.path),
            remedy="generate a store with another --seed",
        )


def error_measures(errors: Errors) -> dict[str, float]:
    """Compute error measures by name, also for the baseline that leaves droplets unchanged."""
    radius, temperature = errors.radius.astype(np.float64), errors.temperature.astype(np.float64)
    relative = np.abs(10.0**radius - 1)
    exact = errors.exact.astype(np.float64)
    logarithm = np.log10(exact[:, 0])
    change = (logarithm - np.log10(errors.inputs[:, 0].astype(np.float64)), exact[:, 1] - errors.inputs[:, 1])
    return {
        "droplets": len(radius),
        "radius_rmse": _rms(radius),
        "radius_mae": float(np.abs(radius).mean()),
        "temperature_rmse": _rms(temperature),
        "temperature_mae": float(np.abs(temperature).mean()),
        **{f"relative_radius_error_p{100 * q:g}": float(np.quantile(relative, q)) for q in QUANTILES},
        "temperature_error_p99": float(np.quantile(np.abs(temperature), 0.99)),
        "nrmse": _rms(radius) / abs(float(logarithm.mean())) + _rms(temperature) / abs(float(exact[:, 1].mean())),
        "unchanged_radius_rmse": _rms(change[0]),
        "unchanged_temperature_rmse": _rms(change[1]),
    }


def _rms(values: NDArray[Any]) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


def describe_errors(found: dict[str, float], content: str) -> str:
    """Describe error measures as a table."""
    p50, p90, p99 = (f"{found[f'relative_radius_error_p{100 * q:g}']:.3%}" for q in QUANTILES)
    unchanged = found["unchanged_radius_rmse"], found["unchanged_temperature_rmse"]
    rows = (
        ("droplets", f"{found['droplets']:,} of {content}"),
        ("log10 of the radius", f"RMSE {found['radius_rmse']:.5f}   MAE {found['radius_mae']:.5f}"),
        ("temperature (K)", f"RMSE {found['temperature_rmse']:.4f}    MAE {found['temperature_mae']:.4f}"
                            f"    p99 {found['temperature_error_p99']:.3f}"),
        ("relative radius error", f"median {p50}   p90 {p90}   p99 {p99}"),
        ("NRMSE", f"{found['nrmse']:.6f}"),
        ("baseline: no change", f"RMSE {unchanged[0]:.3f} (log10 of the radius), {unchanged[1]:.2f} K"),
    )  # fmt: skip
    return "\n".join(f"{name:<22} {text}" for name, text in rows)
