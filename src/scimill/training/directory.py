"""The directory of a run: what may be there already, and the records of what was trained on what.

config.yaml     the complete configuration          checkpoint.pt, checkpoint-previous.pt   to go on from
run.json        store, split, environment           model.pt      best model so far
metrics.csv     losses, learning rate, rates        result.json   written last: the run is finished
"""

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from scimill.config import explainer, to_yaml
from scimill.errors import ConfigError, InputError, StorageError
from scimill.files import Claim, check_directory, replacing, storage_errors
from scimill.parallel.world import World
from scimill.store.provenance import environment
from scimill.store.reader import Reader
from scimill.training.checkpoint import State, load_checkpoint, read_tensors
from scimill.training.data import Split
from scimill.training.files import BOARD, CONFIG, LAST, LOCK, METRICS, MODEL, PREVIOUS, RESULT, RUN, members_of
from scimill.training.params import TrainingConfig

OWN = (RESULT, LAST, PREVIOUS, MODEL, METRICS, CONFIG, RUN)
"""In the order in which they are removed: what is left of them is no finished run, and no checkpoint of a new one."""


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """Where a run goes, and what to do with what is there."""

    path: Path
    resume: bool = False
    overwrite: bool = False
    is_trial: bool = False
    """whether it lies in the directory of a sweep, which is made where it is not there"""

    @contextlib.contextmanager
    def claimed(self, world: World) -> Iterator[None]:
        """Hold the directory for this run, making it where it is not there; collective.

        One that was made for a run that is refused before it begins is removed again.
        """
        claim = Claim(self.path / LOCK)
        is_new = world.on_root(self._claim, claim)
        try:
            yield
        finally:
            claim.release()
            if is_new and world.is_root:
                with contextlib.suppress(OSError):  # it is not empty: the run has begun
                    self.path.rmdir()

    def _claim(self, claim: Claim) -> bool:
        with storage_errors(self.path, "preparing the run directory"):
            if self.is_trial:
                self.path.parent.mkdir(exist_ok=True)
            self.check()
            is_new = not self.path.exists()
            self.path.mkdir(exist_ok=True)
            claim.acquire()
        return is_new

    def check(self) -> None:
        """Refuse a directory that cannot be written, or holds a run and neither --resume nor --overwrite is given.

        Raises
        ------
        StorageError : one of these.
        """
        if self.path.is_dir():
            check_directory(self.path / CONFIG)
        elif self.path.exists():
            raise StorageError("the run directory is a file", where=str(self.path), remedy="name another --output")
        else:
            check_directory(self.path)
        if (self.path / CONFIG).exists() and not (self.resume or self.overwrite):
            remedy = "give --resume to go on with it, --overwrite to begin anew, or name another --output"
            raise StorageError("the directory holds a run already", where=str(self.path), remedy=remedy)

    def is_finished(self, config: TrainingConfig) -> bool:
        """Whether the run there has come to its end.

        Raises
        ------
        ConfigError : it has, with another configuration.
        """
        if not (self.path / RESULT).exists():
            return False
        self._compare_config(config)
        return True

    def begin(self, config: TrainingConfig, record: dict[str, Any]) -> State | None:
        """Write the records, or compare them with those of the run to go on with; return its checkpoint.

        Parameters
        ----------
        config : the configuration.
        record : the store, the split and the network, which must be the same again; and the environment.

        Raises
        ------
        ConfigError : it was made with another configuration.
        InputError : it was trained on another store, or its files are damaged.
        """
        if not (self.resume and (self.path / CONFIG).exists()):
            if self.overwrite:  # only now: whatever could be refused has been
                self._remove()
            self._write(RUN, json.dumps(record))
            self._write(CONFIG, to_yaml(config))  # last: where it is, a run has begun
            return None
        self._compare_config(config)
        self._compare(record)
        state = load_checkpoint(self.path)
        if state:
            self._compare_checkpoint(state, config, record)
        return state

    def _remove(self) -> None:
        """Remove the run that is to be replaced."""
        with storage_errors(self.path, "removing the run that is there"):
            for name in OWN:
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / BOARD, ignore_errors=True)

    def _compare_config(self, config: TrainingConfig) -> None:
        try:
            difference = explainer(config)((self.path / CONFIG).read_text("utf-8"))
        except (OSError, UnicodeDecodeError):
            raise InputError("the run's configuration is damaged", where=str(self.path / CONFIG)) from None
        if difference:
            remedy = "resume with the same, or --overwrite, or name another --output"
            raise ConfigError(
                f"the run was begun with another configuration: {difference}", where=str(self.path), remedy=remedy
            )

    def _compare_checkpoint(self, state: State, config: TrainingConfig, record: dict[str, Any]) -> None:
        difference = explainer(config)(state["config"])
        if state["store"] != record["store"]["identity"]:
            difference = difference or "another store"
        if state["split"] != record["split"]:
            difference = difference or "another split of the blocks"
        if difference:
            remedy = "bring back its own, or --overwrite"
            raise InputError(f"the checkpoint is of another run: {difference}", where=str(self.path), remedy=remedy)

    def _compare(self, record: dict[str, Any]) -> None:
        try:
            stored = json.loads((self.path / RUN).read_text("utf-8"))
            theirs = {part: stored[part] for part in ("store", "network", "split")}
            theirs["store"] = theirs["store"]["identity"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError("the run's record is damaged", where=str(self.path / RUN)) from None
        ours = json.loads(json.dumps({**record, "store": record["store"]["identity"]}))
        words = {"store": "on another store", "network": "with another network", "split": "on other blocks"}
        for part, difference in words.items():
            if ours[part] != theirs[part]:
                remedy = "--overwrite, or name another --output"
                raise InputError(f"the run was begun {difference}", where=str(self.path), remedy=remedy)

    def finish(self) -> None:
        """Mark the run as finished, with the position and the loss of the best model."""
        position = read_tensors(self.path / MODEL, "model")["position"]
        loss = position["best_loss"]
        result = position | {"best_loss": loss if math.isfinite(loss) else None}  # JSON knows no infinity
        self._write(RESULT, json.dumps(result, indent=1))

    def _write(self, name: str, text: str) -> None:
        with replacing(self.path / name, "run's record") as part:
            part.write_text(text, "utf-8")


def describe_store(reader: Reader) -> dict[str, Any]:
    """What distinguishes a store from others: what it was made with, and a digest of its blocks' checksums."""
    return {
        "path": str(reader.path.resolve()),
        "identity": reader.identity(),
        "rows": reader.layout.rows,
        "blocks": reader.layout.blocks,
        **{name: str(reader.provenance[name]) for name in ("campaign", "algorithm", "config", "seed")},
    }


def describe_run(reader: Reader, split: Split, network: dict[str, Any], world: World) -> dict[str, Any]:
    """Record of a run: its store, its split of the blocks, its network, and what it runs on."""
    versions = {"torch_version": str(torch.__version__)}
    return {
        "store": describe_store(reader),
        "split": dataclasses.asdict(split),
        "network": network,
        "environment": {**environment(world), **versions},
    }


def verify_run(path: Path) -> str:
    """Check that a run is finished and its records and model are whole; say so in a line.

    Of an ensemble, whose members' runs lie in its directory, each is checked.

    Raises
    ------
    InputError : it is no run, not finished, or damaged.
    """
    if members := members_of(path):
        return "\n".join(verify_run(member) for member in members)
    if not (path / CONFIG).exists():
        raise InputError("no training run", where=str(path), allowed="a store, or a directory that train has made")
    if not (path / RESULT).exists():
        raise InputError("the run is not finished", where=str(path), remedy="train with --resume")
    try:
        result, record = (json.loads((path / name).read_text("utf-8")) for name in (RESULT, RUN))
        steps, store = int(result["step"]), str(record["store"]["path"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError("the run's record is damaged", where=str(path)) from None
    read_tensors(path / MODEL, "model")
    return f"{path}: sound; trained in {steps:,} steps on {store}"
