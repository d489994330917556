"""Models for other programs, as TorchScript and ONNX. Inputs and outputs are physical quantities."""

import contextlib
import copy
import importlib.util
import io
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scimill.errors import ConfigError
from scimill.files import replacing
from scimill.training.inference import ABOUT, DIGEST, graph_digest

OPSET = 18  # of ONNX; released in December 2022


def to_torchscript(model: torch.nn.Module, example: torch.Tensor, path: Path, about: Mapping[str, str]) -> None:
    """Write a model for libtorch, C++ or Python, with its provenance in the extra file about.json.

    Parameters
    ----------
    model, example : the model in evaluation mode, and an example batch; its first axis may have any length. A model
        that is not a script yet is traced with the example, so it only accepts the example's dtype.
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
    script = model if isinstance(model, torch.jit.ScriptModule) else trace(model, example)
    with _without_advice():
        torch.jit.save(script, buffer, _extra_files={ABOUT: json.dumps(dict(about))})
    return buffer.getvalue()


def trace(model: torch.nn.Module, example: torch.Tensor) -> torch.jit.ScriptModule:
    """Record what a model computes for an example batch."""
    with _without_advice():
        traced: torch.jit.ScriptModule = torch.jit.trace(model, example, check_trace=False)  # type: ignore[no-untyped-call]
    return traced


def compile_script(model: torch.nn.Module) -> torch.jit.ScriptModule:
    """Compile the Python code of a model, which may contain traced models."""
    with _without_advice():
        script: torch.jit.ScriptModule = torch.jit.script(model)
    return script


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Silence PyTorch's advice to use torch.export: libtorch in a Fortran or C++ model reads TorchScript."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def to_onnx(
    model: torch.nn.Module, example: torch.Tensor, path: Path, about: Mapping[str, str], names: Sequence[str],
    axes: Mapping[int, str],
) -> None:  # fmt: skip
    """Write a model as ONNX, with its provenance in the metadata.

    Parameters
    ----------
    model, example, path, about : as in `to_torchscript`; the dtype of the example is that of the input.
    names : names of the input and of the outputs.
    axes : axes of the input that may have any length, with their names.

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
    shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    with _exporting():
        program = torch.onnx.export(
            _without_sigmoid(model), (example,), dynamo=True, opset_version=OPSET, verbose=False,
            input_names=names[:1], output_names=names[1:], dynamic_shapes=shapes,
        )  # fmt: skip
    assert program is not None  # it is returned if no file is given
    proto = program.model_proto
    _name_axes(proto.graph, axes)
    for key, value in {**about, DIGEST: graph_digest(proto)}.items():
        proto.metadata_props.add(key=key, value=value)
    with replacing(path, "model") as part:
        part.write_bytes(proto.SerializeToString())


def _name_axes(graph: Any, axes: Mapping[int, str]) -> None:
    """Replace the symbols of free axes, such as s77, by their names, also in expressions such as s77 - 2."""
    given = graph.input[0].type.tensor_type.shape.dim
    names = {given[axis].dim_param: name for axis, name in axes.items()}
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = re.sub(r"\w+", lambda found: names.get(found[0], found[0]), axis.dim_param)


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
