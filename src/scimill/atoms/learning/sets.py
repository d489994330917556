"""The structures on which each member trains and validates: strided windows, divided as for caches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scimill.atoms.database import caches
from scimill.atoms.database.batch import Columns
from scimill.atoms.database.caches import PARTS, Selection, SplitRule
from scimill.atoms.database.database import Database
from scimill.atoms.database.reductions import RowsOf
from scimill.atoms.kernels import windows
from scimill.atoms.kernels.composition import species_of
from scimill.atoms.kernels.geometry import id_hash
from scimill.atoms.params import AtomsTrainConfig
from scimill.config import with_values
from scimill.errors import ConfigError, InputError

NOTHING, TRAINS, VALIDATES = range(3)
"""Roles: how a member uses a structure."""
ROLE_OF = dict(zip(PARTS, (TRAINS, VALIDATES), strict=True))
USE_OF = dict(zip(PARTS, ("train on", "validate on"), strict=True))
LABELS = ["coordinates", "cell", "pbc", "energy", "forces", "uid"]


@dataclass(frozen=True)
class TrainingSets:
    """Structures and their role for each member.

    Parameters
    ----------
    rows : columns of structures with energy and forces, padded to the largest structure.
    roles : of each structure for each member, shape (rows, members), uint8.

    """

    rows: Columns
    roles: NDArray[np.uint8]

    def require_filled(self, parts: tuple[str, ...]) -> None:
        """Check that no member has an empty set.

        Raises
        ------
        ConfigError : a set is empty.

        """
        for part in parts:
            empty = np.flatnonzero(~(self.roles == ROLE_OF[part]).any(axis=0))
            if len(empty):
                count, use = len(self.roles), USE_OF[part]
                raise ConfigError(
                    f"member {empty[0]} has no structures to {use}; with energy and forces: {count:,}",
                    remedy="select more structures, or change the shares",
                )


def choose_sets(config: AtomsTrainConfig, database: Database) -> tuple[AtomsTrainConfig, TrainingSets]:
    """Choose the members' sets; return them, and the configuration with the caches' reduction.

    Raises
    ------
    ConfigError : a member has nothing to train on, or nothing to validate on although it should.
    InputError : no structures with labels, no such caches, or caches from another database.

    """
    if config.caches is not None:
        return _sets_from_caches(config, database, Path(config.caches))
    rows, places, chosen = select_labelled(database.select(config.reduction, iteration=config.iteration))
    shares = (1 - config.validation_share - config.test_share, config.validation_share)
    rule = SplitRule(*shares, config.members, config.seed)
    order = windows.places_of(id_hash(chosen.ids[places], config.seed))
    sets = TrainingSets(rows, np.stack([_roles(order, rule, member) for member in range(config.members)], axis=1))
    sets.require_filled(PARTS if config.validation_share else PARTS[:1])
    return config, sets


def _roles(order: NDArray[np.int64], rule: SplitRule, member: int) -> NDArray[np.uint8]:
    trains, validates = windows.split(order, rule.n_caches, member, rule.train_fraction, rule.valid_fraction)
    return np.select([trains, validates], [np.uint8(TRAINS), np.uint8(VALIDATES)], np.uint8(NOTHING))


def _sets_from_caches(
    config: AtomsTrainConfig, database: Database, folder: Path
) -> tuple[AtomsTrainConfig, TrainingSets]:
    about, members = caches.read_index(folder, database.snapshot)
    if config.reduction not in (None, about["reduction"]) or config.iteration not in (None, about["iteration"]):
        made_from = f"reduction {about['reduction']}, iteration {about['iteration']}"
        raise ConfigError(
            f"the caches were made from {made_from}", where=str(folder), remedy="omit --reduction and --iteration"
        )
    if config.members > len(members):
        raise ConfigError(
            f"members = {config.members} exceeds the number of caches", where=str(folder),
            allowed=f"at most {len(members)}",
        )  # fmt: skip
    roles = _roles_of(members[: config.members], database.groups)
    used = {group: np.flatnonzero(values.any(axis=1)) for group, values in roles.items()}
    rows, places, chosen = select_labelled(Selection(database.snapshot, None, "train", False, rows=used))
    sets = TrainingSets(rows, np.concatenate([roles[group][used[group]] for group in chosen.groups])[places])
    sets.require_filled(PARTS if about["valid_fraction"] else PARTS[:1])
    return with_values(config, reduction=about["reduction"], iteration=about["iteration"]), sets


def _roles_of(members: list[dict[str, RowsOf]], groups: dict[str, int]) -> dict[str, NDArray[np.uint8]]:
    """Return the roles of all rows, for groups that occur in a set."""
    named = {group for member in members for part in PARTS for group in member[part]}
    roles = {group: np.full((groups[group], len(members)), NOTHING, dtype=np.uint8) for group in named}
    for number, member in enumerate(members):
        for part in PARTS:
            for group, rows in member[part].items():
                roles[group][rows, number] = ROLE_OF[part]
    return roles


def select_labelled(chosen: Selection) -> tuple[Columns, NDArray[np.int64], Selection]:
    """Select structures with energy and forces, padded to the largest, ordered by a hash of their ids.

    Returns
    -------
    Their columns, the place of each in the selection, and the selection itself.

    Raises
    ------
    InputError : there are none.

    """
    most_atoms = max((len(species_of(group)) for group in chosen.groups), default=0)
    parts = [_pad(group, columns, most_atoms) for group, columns in chosen.blocks(LABELS)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    known = _has_labels(joined) if parts else np.zeros(0, bool)
    if not known.any():
        raise InputError("the selection has no structures with energy and forces", remedy="choose another reduction")
    places = np.flatnonzero(known)
    places = places[np.argsort(id_hash(chosen.ids[places], 0), kind="stable")]
    return {name: values[places] for name, values in joined.items()}, places, chosen


def _has_labels(rows: Columns) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = np.isfinite(rows["energy"]) & np.isfinite(rows["forces"]).all(axis=(1, 2))
    return found


def _pad(group: str, columns: Columns, most_atoms: int) -> Columns:
    rows, atoms = columns["coordinates"].shape[:2]
    made: Columns = {name: columns[name] for name in ("cell", "pbc", "energy")}
    made["species"] = np.zeros((rows, most_atoms), dtype=np.uint8)
    made["species"][:, :atoms] = species_of(group)
    for name in ("coordinates", "forces"):
        made[name] = np.zeros((rows, most_atoms, 3))
        made[name][:, :atoms] = columns[name]
    return made


def arrange_in_blocks(sets: TrainingSets, block_size: int) -> Columns:
    """Arrange structures in blocks with the same roles; pad blocks with rows without atoms.

    Returns
    -------
    The columns, including ``roles``.

    """
    kinds, kind_of = np.unique(sets.roles, axis=0, return_inverse=True)
    parts = [np.flatnonzero(kind_of.reshape(-1) == kind) for kind, roles in enumerate(kinds) if roles.any()]
    places = np.concatenate([np.append(part, np.full(-len(part) % block_size, -1)) for part in parts])
    columns: dict[str, NDArray[Any]] = {**sets.rows, "roles": sets.roles}
    return {n: np.concatenate([v, np.zeros_like(v[:1])])[places] for n, v in columns.items()}
