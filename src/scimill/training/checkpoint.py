"""Files of a run that hold tensors: checkpoints, of which the previous one is kept, and the model.

A file is written under another name, synced and renamed, so what has its name is whole. It is a zip archive of
PyTorch's, whose members carry checksums; they are all compared before anything is believed.
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

VERSION = 1  # of both kinds of file
State = dict[str, Any]
DAMAGE = (
    zipfile.BadZipFile, zlib.error, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError,
)  # fmt: skip


def save_checkpoint(folder: Path, state: State) -> None:
    """Write a checkpoint; the last one becomes the previous one.

    Raises
    ------
    StorageError : it cannot be written; those that are there stay.
    """
    last = folder / LAST
    with replacing(last, "checkpoint") as part:
        write_tensors(part, "checkpoint", state)
        sync(part)  # before the last one gives up its name
        if last.exists():
            rename(last, folder / PREVIOUS)


def load_checkpoint(folder: Path) -> State | None:
    """Read the newest checkpoint that is whole, or None where there is none.

    Raises
    ------
    InputError : there are some, but none is whole.
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
    """Write the best model so far: its network and state, where it comes from.

    Raises
    ------
    StorageError : it cannot be written.
    """
    with replacing(folder / MODEL, "model") as part:
        write_tensors(part, "model", content)


def read_model(path: Path, campaign: str) -> tuple[Path, State]:
    """Read a model's file, or the best model of a run directory; return the file's path too.

    Raises
    ------
    InputError : no model, damaged, or of another campaign.
    """
    file = path / MODEL if path.is_dir() else path
    content = read_tensors(file, "model")
    found = content["network"]["campaign"]
    if found != campaign:
        raise InputError(f"a model of {found}", where=str(file), allowed=f"one of scimill {campaign} train")
    return file, content


def write_tensors(path: Path, kind: str, content: State) -> None:
    """Write a file of tensors, numbers and texts."""
    buffer = io.BytesIO()  # PyTorch's own writer ends the process with a C++ error where the disk is full
    torch.save({"scimill": kind, "version": VERSION, **content}, buffer)
    with path.open("wb") as file:
        file.write(buffer.getbuffer())


def read_tensors(path: Path, kind: str) -> State:
    """Read a file of tensors; nothing in it is executed.

    Parameters
    ----------
    path : the file.
    kind : what it must be, "checkpoint" or "model".

    Raises
    ------
    InputError : not there, damaged, or something else.
    """
    try:
        content = _load(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"there is no such {kind}", where=str(path)) from None
    except OSError as error:
        raise InputError(f"cannot read the {kind}: {error.strerror}", where=str(path)) from None
    except DAMAGE as error:
        raise InputError(f"the {kind} is damaged, or none: {error}", where=str(path)) from None
    if not isinstance(content, dict) or content.get("scimill") != kind:
        raise InputError(f"a file of tensors, but no {kind} of scimill", where=str(path))
    if content.get("version") != VERSION:
        raise InputError(f"a {kind} of version {content.get('version')}", where=str(path), allowed=f"version {VERSION}")
    return content


def _load(data: bytes) -> Any:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        damaged = archive.testzip()
        is_script = any(name.endswith("/constants.pkl") for name in archive.namelist())
    if damaged is not None:
        raise ValueError(f"{damaged} does not match its checksum")
    if is_script:
        raise ValueError("it is TorchScript")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
