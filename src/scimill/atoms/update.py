"""The next iteration of a reduction: exclude anomalous structures, choose those worth training on."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scimill.atoms.database.reductions import ANOMALOUS, TRAINED, UNUSED, Index, Reduction, Reductions, selected
from scimill.atoms.database.snapshot import Snapshot
from scimill.atoms.evaluate import FAILED, PREDICTIONS, Arrays
from scimill.atoms.kernels import choice, scores
from scimill.atoms.kernels.composition import element_counts, species_of
from scimill.atoms.kernels.geometry import id_hash
from scimill.errors import ConfigError, InputError
from scimill.files import storage_errors
from scimill.parallel.world import World

Procedure = Literal["highest", "random", "farthest", "stratified"]
Score = Literal["energy", "force", "deviation"]
RULES = ("absolute", "percentile", "mad")
MAX_TRAINED = 2000  # trained structures that farthest-point sampling starts from


@dataclass(frozen=True)
class Rules:
    """How to make an iteration from the one before.

    Parameters
    ----------
    fraction : share of the evaluated, not excluded structures to train on; at least one structure.
    exclude_high_error : None, or "rule:value" for `scores.limit`, such as "mad:8"; a plain number is absolute.
        Structures with a higher score are marked anomalous and not chosen.
    procedure : "highest" scores; "random" ones above the threshold; "farthest" from all trained structures, by
        `choice.descriptor`; "stratified": the highest of each stoichiometry, in proportion to its size.
    score : "energy": error per atom, see `scores.energy_error`; "force": largest error of a force on an atom;
        "deviation": that of the committee, which needs no labels.
    threshold : lowest score that "random" chooses; the 75th percentile of the scores if not given.
    exclude_failed : whether structures on which the calculator failed become anomalous; otherwise they stay unused.
    seed : of "random".

    """

    fraction: float
    exclude_high_error: float | str | None = None
    procedure: Procedure = "highest"
    score: Score = "energy"
    threshold: float | None = None
    exclude_failed: bool = False
    seed: int = 1

    def limit(self, values: NDArray[np.float64]) -> float:
        """Return the score above which a structure is anomalous."""
        if self.exclude_high_error is None:
            return float("inf")
        rule, _, value = str(self.exclude_high_error).rpartition(":")
        return scores.limit(values, rule or "absolute", float(value))

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise ConfigError(f"fraction = {self.fraction:g}", allowed="above 0, at most 1")
        if self.procedure not in ("highest", "random", "farthest", "stratified"):
            raise ConfigError(f"unknown procedure {self.procedure!r}", allowed="highest, random, farthest, stratified")
        if self.score not in ("energy", "force", "deviation"):
            raise ConfigError(f"unknown score {self.score!r}", allowed="energy, force, deviation")
        rule, _, value = str(self.exclude_high_error or 0).rpartition(":")
        try:
            if (rule or "absolute") not in RULES or float(value) < 0 or (rule == "percentile" and float(value) > 100):
                raise ValueError
        except ValueError:
            raise ConfigError(
                f"exclude_high_error = {self.exclude_high_error!r}", allowed="a number, percentile:99 or mad:8"
            ) from None


@dataclass(frozen=True)
class UpdateResult:
    """Result of an update.

    Parameters
    ----------
    iteration : the newest iteration.
    added, excluded : structures newly marked as trained on, or as anomalous.
    complete : whether nothing was left to add; then the reduction is complete and there is no new iteration.

    """

    iteration: int
    added: int
    excluded: int
    complete: bool


def update(
    snapshot: Snapshot, name: str, predicted: Arrays, true: Mapping[str, Mapping[str, Any]], rules: Rules, world: World
) -> UpdateResult:
    """Make the next iteration of a reduction; collective. See `Database.update_data_reductions`."""
    reductions = Reductions(snapshot.folder)
    with reductions.lock(name, world):
        return world.on_root(_update, snapshot, reductions, name, predicted, true, rules)


def _update(
    snapshot: Snapshot, reductions: Reductions, name: str, predicted: Arrays, true: Mapping[str, Any], rules: Rules
) -> UpdateResult:
    if reductions.is_complete(name):
        raise InputError(f"the reduction {name!r} is complete", remedy="start a new reduction: scimill atoms reduce")
    current = reductions.load(name, None, snapshot.groups)
    pool = _Pool(snapshot, current, predicted, true, rules)
    excluded, chosen = pool.find_excluded(), pool.choose()
    if not len(chosen):
        reductions.complete(name, f"nothing was left to add after iteration {current.iteration}")
        return UpdateResult(current.iteration, 0, 0, complete=True)
    index: Index = {group: current.index_for(group, rows) for group, rows in snapshot.groups.items()}
    pool.mark(index, excluded, ANOMALOUS)
    pool.mark(index, chosen, TRAINED)
    attributes = {
        "parent": current.iteration, "procedure": rules.procedure, "score": rules.score, "seed": rules.seed,
        "fraction": rules.fraction, "exclude_high_error": str(rules.exclude_high_error), "limit": pool.limit,
        "n_added": len(chosen), "n_excluded": int(excluded.sum()), "n_evaluated": len(pool.scores),
    }  # fmt: skip
    reductions.write(name, current.iteration + 1, index, attributes)
    with storage_errors(reductions.folder(name), "removing the predictions"):
        shutil.rmtree(reductions.folder(name) / PREDICTIONS, ignore_errors=True)
    return UpdateResult(current.iteration + 1, len(chosen), int(excluded.sum()), complete=False)


class _Pool:
    """The evaluated structures, concatenated over all groups."""

    def __init__(
        self, snapshot: Snapshot, current: Reduction, predicted: Arrays, true: Mapping[str, Any], rules: Rules
    ) -> None:
        self._snapshot, self._current, self._rules = snapshot, current, rules
        self._groups = sorted(predicted)
        for group in self._groups:
            self._check(group, predicted[group])
        self._rows = {group: np.asarray(predicted[group]["rows"]) for group in self._groups}
        self._kinds = np.repeat(np.arange(len(self._groups)), [len(self._rows[group]) for group in self._groups])
        self._status = self._concatenate(predicted, "status").astype(int)
        self.scores = self._compute_scores(predicted, true)
        self.limit = rules.limit(self.scores)

    def _check(self, group: str, values: Mapping[str, Any]) -> None:
        """Refuse predictions that do not belong to the unused structures of this iteration."""
        rows, total = np.asarray(values["rows"]), self._snapshot.groups.get(group, 0)
        test = self._snapshot.rows(group, names=["test"])["test"] if total else np.zeros(0)
        stale = values["iteration"] != self._current.iteration or (len(rows) and rows.max() >= total)
        if stale or len(np.unique(rows)) < len(rows) or (self._current.index_for(group, total)[rows] != UNUSED).any():
            raise InputError(
                f"the predictions do not match the unused structures of iteration {self._current.iteration}",
                where=group, remedy="evaluate the newest iteration; update it only once",
            )  # fmt: skip
        if (test[rows] != 0).any():
            raise InputError("the predictions contain test data", where=group, remedy="evaluate unused structures")

    def _concatenate(self, arrays: Mapping[str, Any], name: str) -> NDArray[Any]:
        return np.concatenate([np.zeros(0), *(np.asarray(arrays[group][name]) for group in self._groups)])

    def _compute_scores(self, predicted: Arrays, true: Mapping[str, Any]) -> NDArray[np.float64]:
        """Compute the score of each structure; NaN where it failed or has no label."""
        if not self._groups:
            return np.zeros(0)
        if self._rules.score == "deviation":
            found = np.where(self._status == FAILED, np.nan, self._concatenate(predicted, "deviation"))
            if not np.any(found[np.isfinite(found)]):
                remedy = "evaluate with several calculators or an --ensemble, or choose another --score"
                raise InputError("no structure has a deviation: a committee needs two calculators", remedy=remedy)
            return found
        if self._rules.score == "force":
            errors = [scores.force_error(predicted[g]["forces"], true[g]["forces"]) for g in self._groups]
            return np.concatenate(errors)
        counts = np.array([element_counts(species_of(group), self._elements) for group in self._groups])
        predictions, labels = self._concatenate(predicted, "energy"), self._concatenate(true, "energy")
        return np.abs(scores.energy_error(predictions, labels, counts[self._kinds]))

    @property
    def _elements(self) -> NDArray[np.uint8]:
        return np.unique(np.concatenate([species_of(group) for group in self._groups]))

    def find_excluded(self) -> NDArray[np.bool_]:
        """Return a mask of the anomalous structures."""
        high: NDArray[np.bool_] = self.scores > self.limit
        failed: NDArray[np.bool_] = (self._status == FAILED) & self._rules.exclude_failed
        return high | failed

    def choose(self) -> NDArray[np.int64]:
        """Choose structures to train on; return their positions in the pool."""
        left = np.flatnonzero(np.isfinite(self.scores) & ~self.find_excluded())
        number = max(round(self._rules.fraction * len(left)), 1) if len(left) else 0
        values = self.scores[left]
        if self._rules.procedure == "random":
            threshold = self._rules.threshold
            threshold = np.percentile(values, 75) if threshold is None and len(values) else threshold
            above = np.flatnonzero(values >= (threshold or 0))
            return left[choice.lowest_hashes(self._hashes()[left], above, number)]
        if self._rules.procedure == "farthest" and number:
            return left[choice.farthest(self._features(left), self._trained_features(), number)]
        if self._rules.procedure == "stratified":
            return left[choice.stratified(values, self._kinds[left], number)]
        return left[choice.highest(values, number)]

    def _hashes(self) -> NDArray[np.uint64]:
        ids = [self._snapshot.rows(group, names=["uid"])["uid"][self._rows[group]] for group in self._groups]
        return id_hash(np.concatenate(ids), self._rules.seed)

    def _features(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        parts = [self._descriptors(group, self._rows[group]) for group in self._groups]
        return np.concatenate(parts)[places]

    def _trained_features(self) -> NDArray[np.float64]:
        """Compute descriptors of structures that are already trained on."""
        rows = selected(self._snapshot, self._current, "train")
        parts: list[NDArray[np.float64]] = []
        for group, mine in rows.items():
            parts.append(self._descriptors(group, mine[: MAX_TRAINED - sum(map(len, parts))]))
        return np.concatenate(parts) if parts else np.zeros((0, 0))

    def _descriptors(self, group: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        columns = self._snapshot.rows(group, names=["coordinates", "cell", "pbc"])
        every = np.unique(np.concatenate([species_of(name) for name in self._snapshot.groups]))
        fractions = element_counts(species_of(group), every) / len(species_of(group))
        coordinates, cell, pbc = (columns[name][rows] for name in ("coordinates", "cell", "pbc"))
        return choice.descriptor(coordinates, cell, pbc, fractions)

    def mark(self, index: Index, places: NDArray[Any], value: int) -> None:
        """Set the index of structures, given by their positions in the pool or by a mask."""
        marked = np.zeros(len(self.scores), dtype=bool)
        marked[places] = True
        for kind, group in enumerate(self._groups):
            index[group][self._rows[group][marked[self._kinds == kind]]] = value
