"""Models for other programs, as TorchScript and ONNX. Inputs and outputs are physical quantities."""

import contextlib
import copy
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from scimill.errors import ConfigError
from scimill.files import replacing
from scimill.training.inference import ABOUT, DIGEST, graph_digest

OPSET = 18  # of ONNX; released in December 2022


def to_torchscript(model: torch.nn.Module, example: torch.Tensor, path: Path, about: Mapping[str, str]) -> None:
    """Write a model for libtorch, C++ or Python, with its provenance in the extra file about.json.

    Parameters
    ----------
    model, example : the model in evaluation mode, and an example batch; its first axis may have any length.
    path : the file; an existing one is replaced.
    about : provenance of the model.

    Raises
    ------
    StorageError : it cannot be written.
    """
    with replacing(path, "model") as part:
        part.write_bytes(torchscript(model, example, about))


def torchscript(model: torch.nn.Module, example: torch.Tensor, about: Mapping[str, str]) -> bytes:
    """Return what `to_torchscript` writes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # PyTorch recommends torch.export, but libtorch in a Fortran or C++ model reads TorchScript.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, buffer, _extra_files={ABOUT: json.dumps(dict(about))})
    return buffer.getvalue()


def to_onnx(
    model: torch.nn.Module, example: torch.Tensor, path: Path, about: Mapping[str, str], names: Sequence[str],
    free: Sequence[int] = (0,),
) -> None:  # fmt: skip
    """Write a model as ONNX, with its provenance in the metadata.

    Parameters
    ----------
    model, example, path, about : as in `to_torchscript`.
    names : names of the input and of the output.
    free : axes of the input that may have any length.

    Raises
    ------
    ConfigError : ONNX's packages are not installed.
    StorageError : it cannot be written.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"not installed: {', '.join(missing)}", where="--format onnx", remedy="pip install onnx onnxscript"
        )
    shapes = (dict.fromkeys(free, torch.export.Dim.DYNAMIC),)
    with _exporting():
        program = torch.onnx.export(
            _without_sigmoid(model), (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=names[:1], output_names=names[1:], dynamic_shapes=shapes,
        )  # fmt: skip
    assert program is not None  # it is returned if no file is given
    proto = program.model_proto
    for key, value in {**about, DIGEST: graph_digest(proto)}.items():
        proto.metadata_props.add(key=key, value=value)
    with replacing(path, "model") as part:
        part.write_bytes(proto.SerializeToString())


@contextlib.contextmanager
def _exporting() -> Iterator[None]:
    """Silence the exporter's messages and warnings."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns about its own code
            yield
    finally:
        logger.setLevel(level)


def _without_sigmoid(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model with SiLU from exp: ONNX Runtime's float64 Sigmoid is only float32-accurate."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.SiLU):
            model.set_submodule(name, _ExponentialSiLU())
    return model


class _ExponentialSiLU(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (1 + torch.exp(-x))
