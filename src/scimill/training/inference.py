"""Exported models in a simulation: ONNX by onnxruntime, TorchScript by PyTorch, one thread per rank."""

import hashlib
import importlib.util
import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from scimill.errors import ConfigError, InputError

Single = NDArray[np.float32]
ABOUT = "about.json"
DIGEST = "sha256"


class InferenceModel(Protocol):
    """A model that maps a batch of inputs to a batch of outputs."""

    @property
    def about(self) -> Mapping[str, str]:
        """Provenance of the model, by title."""

    def __call__(self, inputs: Single) -> Single:
        """Compute the outputs; the first axis of both arrays is the samples."""


class TorchModel:
    """A PyTorch model, either a script or a module."""

    def __init__(self, module: torch.nn.Module, about: Mapping[str, str]) -> None:
        self.about = about
        self._module = module.float().eval()
        torch.set_num_threads(1)

    def __call__(self, inputs: Single) -> Single:
        """Compute."""
        with torch.inference_mode():
            outputs: Single = self._module(torch.from_numpy(inputs)).numpy()
        return outputs


class OnnxModel:
    """An ONNX model in a session of onnxruntime."""

    def __init__(self, session: Any, about: Mapping[str, str]) -> None:
        self.about = about
        self._session = session
        self._input = session.get_inputs()[0].name

    def __call__(self, inputs: Single) -> Single:
        """Compute."""
        outputs: Single = self._session.run(None, {self._input: inputs})[0]
        return outputs


def open_model(path: Path) -> InferenceModel:
    """Open a model written by `to_onnx` or `to_torchscript`.

    Raises
    ------
    InputError : missing, damaged, or not written by scimill.
    ConfigError : onnxruntime is not installed.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError.unreadable("model", error, path) from None
    return _open_torchscript(data, path) if is_torchscript(path) else _open_onnx(data, path)


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript program, perhaps a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return path.suffix != ".onnx"


def _open_torchscript(data: bytes, path: Path) -> InferenceModel:
    extra = {ABOUT: ""}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} does not match its checksum")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch recommends torch.export
            script = torch.jit.load(io.BytesIO(data), map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
        about: dict[str, str] = json.loads(extra[ABOUT])
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise InputError(f"the model is damaged, or the file is not a model: {error}", where=str(path)) from None
    return TorchModel(script, about)


def _open_onnx(data: bytes, path: Path) -> InferenceModel:
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"not installed: {', '.join(missing)}", where=str(path), remedy="pip install onnxruntime onnx"
        )
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    try:
        proto = onnx.load_model_from_string(data)
        about = {entry.key: entry.value for entry in proto.metadata_props}
        if about.pop(DIGEST, "") != graph_digest(proto):
            raise ValueError("its graph does not match its checksum")
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # protobuf and onnxruntime raise their own classes for every kind of damage
        raise InputError(f"the model is damaged, or the file is not a model: {error}", where=str(path)) from None
    return OnnxModel(session, about)


def graph_digest(proto: Any) -> str:
    """Return the SHA-256 of a model's graph, including its weights."""
    return hashlib.sha256(proto.graph.SerializeToString(deterministic=True)).hexdigest()
