"""Files with tensors in a run directory: the last checkpoint, the previous one, and the model.

A file is written under a temporary name, synced and renamed, so a file with its final name is complete. It is PyTorch's
zip archive, whose members have checksums; all are verified before anything is used.
"""

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from scimill.errors import InputError
from scimill.files import rename, replacing, sync
from scimill.training.files import LAST, MODEL, PREVIOUS

VERSION = 1  # of checkpoint and model files
State = dict[str, Any]
DAMAGE = (
    zipfile.BadZipFile, zlib.error, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError,
)  # fmt: skip


def save_checkpoint(folder: Path, state: State) -> None:
    """Write a checkpoint; the last one becomes the previous one.

    Raises
    ------
    StorageError : it cannot be written; existing checkpoints stay.
    """
    last = folder / LAST
    with replacing(last, "checkpoint") as part:
        write_tensors(part, "checkpoint", state)
        sync(part)  # before the last one is renamed
        if last.exists():
            rename(last, folder / PREVIOUS)


def load_checkpoint(folder: Path) -> State | None:
    """Read the newest intact checkpoint; return None if there is no checkpoint.

    Raises
    ------
    InputError : there are checkpoints, but none is intact.
    """
    failure = None
    for name in (LAST, PREVIOUS):
        try:
            if (folder / name).exists():
                return read_tensors(folder / name, "checkpoint")
        except InputError as error:
            failure = failure or error
    if failure:
        raise failure
    return None


def save_model(folder: Path, content: State) -> None:
    """Write the best model so far: its network, state and provenance.

    Raises
    ------
    StorageError : it cannot be written.
    """
    with replacing(folder / MODEL, "model") as part:
        write_tensors(part, "model", content)


def read_model(path: Path, campaign: str) -> tuple[Path, State]:
    """Read a model file, or the best model of a run directory; also return the file's path.

    Raises
    ------
    InputError : not a model, damaged, or of another campaign.
    """
    file = path / MODEL if path.is_dir() else path
    content = read_tensors(file, "model")
    found = content["network"]["campaign"]
    if found != campaign:
        raise InputError(
            f"the model belongs to campaign {found}", where=str(file), allowed=f"a model of scimill {campaign} train"
        )
    return file, content


def write_tensors(path: Path, kind: str, content: State) -> None:
    """Write a file of tensors, numbers and texts."""
    buffer = io.BytesIO()  # PyTorch's own writer ends the process with a C++ error if the disk is full
    torch.save({"scimill": kind, "version": VERSION, **content}, buffer)
    with path.open("wb") as file:
        file.write(buffer.getbuffer())


def read_tensors(path: Path, kind: str) -> State:
    """Read a file of tensors without executing anything in it.

    Parameters
    ----------
    path : the file.
    kind : what it must be, "checkpoint" or "model".

    Raises
    ------
    InputError : missing, damaged, or another kind of file.
    """
    try:
        content = _load(path.read_bytes())
    except OSError as error:
        raise InputError.unreadable(kind, error, path) from None
    except DAMAGE:
        content = None
    if not isinstance(content, dict) or content.get("scimill") != kind:
        remedy = "give a run directory or its model.pt" if kind == "model" else ""
        raise InputError(f"the file is not a {kind} of scimill, or it is damaged", where=str(path), remedy=remedy)
    if content.get("version") != VERSION:
        raise InputError(
            f"the {kind} is version {content.get('version')}", where=str(path), allowed=f"version {VERSION}"
        )
    return content


def _load(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        damaged = archive.testzip()
        is_script = any(name.endswith("/constants.pkl") for name in archive.namelist())
    if damaged is not None:
        raise ValueError(f"{damaged} does not match its checksum")
    if is_script:
        raise ValueError("it is a TorchScript program")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
