"""The directory of a run: checks of existing content, and the records of the run.

config.yaml     the complete configuration          checkpoint.pt, checkpoint-previous.pt   to resume from
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

from scimill.claim import Claim
from scimill.config import explainer, to_yaml
from scimill.errors import ConfigError, InputError, StorageError
from scimill.files import check_directory, replacing, storage_errors
from scimill.parallel.report import describe_count
from scimill.parallel.world import World
from scimill.store.checksums import crc32c, file_checksum
from scimill.store.provenance import environment
from scimill.store.reader import Reader
from scimill.training.checkpoint import State, load_checkpoint, read_tensors
from scimill.training.data import Split
from scimill.training.files import BOARD, CONFIG, LAST, LOCK, METRICS, MODEL, PREVIOUS, RESULT, RUN, members_of
from scimill.training.params import TrainingConfig

OWN = (RESULT, LAST, PREVIOUS, MODEL, METRICS, CONFIG, RUN)
"""In the order of removal: the remaining files never look like a finished run, or a new run's checkpoint."""
SUMMED = OWN[1:]


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """Directory of a run, and what to do with an existing run."""

    path: Path
    resume: bool = False
    overwrite: bool = False
    break_lock: bool = False
    is_trial: bool = False
    """whether it is inside the directory of a sweep, which is made if missing"""

    @contextlib.contextmanager
    def claimed(self, world: World) -> Iterator[None]:
        """Claim the directory for this run; make it if missing. Collective.

        A directory made for a run that is then refused is removed again.
        """
        claim = Claim(self.path / LOCK, break_lock=self.break_lock)
        is_new = world.on_root(self._claim, claim)
        try:
            yield
        finally:
            claim.release()
            if is_new and world.is_root:
                with contextlib.suppress(OSError):  # not empty: the run has started
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
        """Refuse an unwritable directory, or one with a run unless --resume or --overwrite is given.

        Raises
        ------
        StorageError : it is refused.
        """
        if self.path.is_dir():
            check_directory(self.path / CONFIG)
        elif self.path.exists():
            raise StorageError("the run directory is a file", where=str(self.path), remedy="choose another --output")
        else:
            check_directory(self.path)
        if (self.path / CONFIG).exists() and not (self.resume or self.overwrite):
            remedy = "use --resume to continue it, --overwrite to start over, or choose another --output"
            raise StorageError("the directory already holds a run", where=str(self.path), remedy=remedy)

    def is_finished(self, config: TrainingConfig) -> bool:
        """Return whether the existing run is finished.

        Raises
        ------
        ConfigError : it is, but with another configuration.
        """
        if not (self.path / RESULT).exists():
            return False
        self._compare_config(config)
        return True

    def begin(self, config: TrainingConfig, record: dict[str, Any]) -> State | None:
        """Write the records, or compare them with those of the run to resume; return its checkpoint.

        Parameters
        ----------
        config : the configuration.
        record : the store, split and network, which must match those of the run to resume; the environment.

        Raises
        ------
        ConfigError : it was made with another configuration.
        InputError : it was trained on another store, or its files are damaged.
        """
        if not (self.resume and (self.path / CONFIG).exists()):
            if self.overwrite:  # only now, after all checks have passed
                self._remove()
            self._write(RUN, json.dumps(record))
            self._write(CONFIG, to_yaml(config))  # last: its existence marks a started run
            return None
        self._compare_config(config)
        self._compare(record)
        state = load_checkpoint(self.path)
        if state:
            self._compare_checkpoint(state, config, record)
        return state

    def _remove(self) -> None:
        """Remove the run that will be replaced."""
        with storage_errors(self.path, "removing the existing run"):
            for name in OWN:
                (self.path / name).unlink(missing_ok=True)
            shutil.rmtree(self.path / BOARD, ignore_errors=True)

    def _compare_config(self, config: TrainingConfig) -> None:
        try:
            difference = explainer(config)((self.path / CONFIG).read_text("utf-8"))
        except (OSError, UnicodeDecodeError):
            raise InputError("the run's configuration is damaged", where=str(self.path / CONFIG)) from None
        if difference:
            remedy = "resume with the same configuration, use --overwrite, or choose another --output"
            raise ConfigError(
                f"the run was started with another configuration: {difference}", where=str(self.path), remedy=remedy
            )

    def _compare_checkpoint(self, state: State, config: TrainingConfig, record: dict[str, Any]) -> None:
        difference = explainer(config)(state["config"])
        if state["store"] != record["store"]["identity"]:
            difference = difference or "another store"
        if state["split"] != record["split"]:
            difference = difference or "another split of the blocks"
        if difference:
            remedy = "restore the run's own checkpoint, or use --overwrite"
            raise InputError(
                f"the checkpoint belongs to another run: {difference}", where=str(self.path), remedy=remedy
            )

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
                remedy = "use --overwrite, or choose another --output"
                raise InputError(f"the run was started {difference}", where=str(self.path), remedy=remedy)

    def finish(self) -> None:
        """Mark the run as finished, with the position and the loss of the best model."""
        position = read_tensors(self.path / MODEL, "model")["position"]
        loss = position["best_loss"]
        result = position | {"best_loss": loss if math.isfinite(loss) else None}  # JSON has no infinity
        with storage_errors(self.path, "reading the run"):
            sums = {name: file_checksum(self.path / name) for name in SUMMED if (self.path / name).exists()}
        self._write(RESULT, _format_result(result | {"crc32c_of_files": sums}))

    def _write(self, name: str, text: str) -> None:
        with replacing(self.path / name, "run's record") as part:
            part.write_text(text, "utf-8")


def _format_result(result: dict[str, Any]) -> str:
    """Format the result, with its own checksum."""
    content = json.dumps(result, indent=1)
    return json.dumps(result | {"crc32c": crc32c(content.encode())}, indent=1)


def describe_store(reader: Reader) -> dict[str, Any]:
    """Return what identifies a store: how it was made, and a digest of its blocks' checksums."""
    return {
        "path": str(reader.path.resolve()),
        "identity": reader.identity(),
        "rows": reader.layout.rows,
        "blocks": reader.layout.blocks,
        **{name: str(reader.provenance[name]) for name in ("campaign", "algorithm", "config", "seed")},
    }


def describe_run(reader: Reader, split: Split, network: dict[str, Any], world: World) -> dict[str, Any]:
    """Return the record of a run: its store, split of the blocks, network and environment."""
    versions = {"torch_version": str(torch.__version__)}
    return {
        "store": describe_store(reader),
        "split": dataclasses.asdict(split),
        "network": network,
        "environment": {**environment(world), **versions},
    }


def verify_run(path: Path) -> str:
    """Check that a run is finished, with intact records and model; return a line that says so.

    For an ensemble, check the run of each member.

    Raises
    ------
    InputError : not a run, not finished, or damaged.
    """
    if members := members_of(path):
        return "\n".join(verify_run(member) for member in members)
    if not (path / CONFIG).exists():
        raise InputError("not a training run", where=str(path), allowed="a store, or the directory of a training run")
    if not (path / RESULT).exists():
        raise InputError("the run is not finished", where=str(path), remedy="finish it: train with --resume")
    try:
        result, record = (json.loads((path / name).read_text("utf-8")) for name in (RESULT, RUN))
        steps, store = int(result["step"]), str(record["store"]["path"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError("the run's record is damaged", where=str(path)) from None
    read_tensors(path / MODEL, "model")
    if damaged := _find_changed(path, result):
        raise InputError(f"the run is damaged: {damaged} differs from what was written", where=str(path))
    return f"{path}: sound; trained in {describe_count(steps, 'step')} on {store}"


def _find_changed(path: Path, result: dict[str, Any]) -> str:
    """Return the first file of a finished run that is not as written; earlier versions kept no checksums."""
    if not {"crc32c", "crc32c_of_files"} & result.keys():
        return ""
    own = {key: value for key, value in result.items() if key != "crc32c"}
    if (path / RESULT).read_text("utf-8") != _format_result(own):
        return RESULT
    with storage_errors(path, "reading the run"):
        sums = {name: file_checksum(path / name) for name in SUMMED if (path / name).exists()}
    written = result["crc32c_of_files"]
    return next((name for name in SUMMED if sums.get(name) != written.get(name)), "")
