"""Score a network on traces: its deviations along them, where they begin, and its errors by region."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

from scimill.droplets import origin
from scimill.droplets.learning.follow import Array, TracePieces
from scimill.droplets.learning.network import DropletNetwork
from scimill.droplets.learning.trace_errors import TraceErrors, measure, regions, rms
from scimill.droplets.params import TraceScoreConfig
from scimill.files import replacing
from scimill.store.reader import Reader

ROWS = {
    "network": "network", "exact": "exact integrator", "unchanged": "no change", "one_step": "network, one step",
}  # fmt: skip
PIECE_COLUMNS = (
    "particle", "start_time", "steps", "duration", "radius_rmse", "radius_largest", "temperature_rmse",
    "temperature_largest", "radius_change_points", "temperature_change_points", "exact_radius_rmse",
    "exact_temperature_rmse",
)  # fmt: skip


def score(model: DropletNetwork, reader: Reader, folder: Path | None, config: TraceScoreConfig, notice: str) -> str:
    """Compare a network with traces.

    Parameters
    ----------
    model, reader : the network, and a complete store of traces.
    folder : if given, an existing folder for score.json, traces.csv and traces.png.
    config : its parameters.
    notice : what to say about the physics; empty if nothing.

    Returns
    -------
    Tables as text.

    Raises
    ------
    InputError : the store is damaged.
    StorageError : the folder cannot be written.
    """
    errors = measure(model, reader, config)
    found = measures(errors)
    if not origin.is_physics_known(origin.stored_config(reader)):
        notice += f"{'; ' if notice else ''}'exact' has generate's default constants"
    if folder:
        from scimill.droplets.pictures import traces as pictures

        pictures.plot(errors, folder)
        _write_pieces(errors, folder / "traces.csv")
        content = json.loads(json.dumps(found), parse_constant=lambda _: None)  # JSON has no NaN
        with replacing(folder / "score.json", "score") as part:
            part.write_text(json.dumps({"store": str(reader.path), "notice": notice, **content}, indent=1), "utf-8")
    return describe(found, errors.content) + (f"\n{'physics':<16} {notice}" if notice else "")


# ---- measures ---------------------------------------------------------------------------------------------------


def measures(errors: TraceErrors) -> dict[str, Any]:
    """Compute error measures by name; those of regions in a list."""
    pieces = errors.pieces
    changed = np.logical_or.reduceat(errors.changes, pieces.start, axis=0)
    found: dict[str, Any] = {"steps": len(pieces.inputs), "pieces": len(pieces.start)}
    for name in ("network", "exact", "unchanged", "one_step"):
        radius, temperature = rms(getattr(errors, name))
        found |= {f"{name}_radius_rmse": radius, f"{name}_temperature_rmse": temperature}
    found |= {
        "diverged": int(np.logical_or.reduceat(np.isinf(errors.network[:, 0]), pieces.start).sum()),
        "radius_change_points": int(errors.changes[:, 0].sum()),
        "temperature_change_points": int(errors.changes[:, 1].sum()),
        "pieces_with_radius_change": int(changed[:, 0].sum()),
        "pieces_with_temperature_change": int(changed[:, 1].sum()),
        "regions": regions(errors),
    }
    return found


def describe(found: dict[str, Any], content: str) -> str:
    """Describe error measures as tables."""
    lines = [f"{'traces':<16} {content}", "", f"{'RMSE from the trace':<28}{'log10 r':>10}{'T (K)':>10}"]
    lines += [
        f"{title:<28}{found[f'{name}_radius_rmse']:>10.5f}{found[f'{name}_temperature_rmse']:>10.4f}"
        for name, title in ROWS.items()
    ]
    lines += [
        f"change points: {found['radius_change_points']:,} of the radius, in {found['pieces_with_radius_change']:,} of "
        f"{found['pieces']:,} pieces; {found['temperature_change_points']:,} of the temperature, in "
        f"{found['pieces_with_temperature_change']:,}",
    ]
    if found["diverged"]:
        lines.append(f"diverged: {found['diverged']:,} pieces lose a usable radius; the RMSE ends there")
    lines += ["", f"{'network by region':<28}{'steps':>10}{'one step: log10 r, T':>22}{'along traces: log10 r, T':>26}"]
    lines += [
        f"{row['region']:<28}{row['steps']:>10,}{row['one_step_radius_rmse']:>13.5f}"
        f"{row['one_step_temperature_rmse']:>9.4f}{row['radius_rmse']:>17.5f}{row['temperature_rmse']:>9.4f}"
        for row in found["regions"]
    ]
    return "\n".join(lines)


# ---- pieces -----------------------------------------------------------------------------------------------------


def piece_table(errors: TraceErrors) -> Array:
    """Return a row per piece, columns as in `PIECE_COLUMNS`; the units are s, log10 of the radius in m, and K."""
    pieces = errors.pieces
    last = pieces.start + pieces.length - 1
    network, exact = (np.sqrt(_means(np.square(part), pieces)) for part in (errors.network, errors.exact))
    largest = np.maximum.reduceat(np.abs(errors.network), pieces.start, axis=0)
    changes = np.add.reduceat(errors.changes.astype(np.int64), pieces.start, axis=0)
    columns = (
        pieces.particle, pieces.time, pieces.length, pieces.elapsed()[last], network[:, 0], largest[:, 0],
        network[:, 1], largest[:, 1], changes[:, 0], changes[:, 1], exact[:, 0], exact[:, 1],
    )  # fmt: skip
    return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)


def _means(values: Array, pieces: TracePieces) -> Array:
    sums: Array = np.add.reduceat(values, pieces.start, axis=0)
    return sums / pieces.length[:, None]


def _write_pieces(errors: TraceErrors, path: Path) -> None:
    with replacing(path, "table") as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(PIECE_COLUMNS)
        writer.writerows([f"{value:.9g}" for value in row] for row in piece_table(errors).tolist())
