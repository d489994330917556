"""The modules that plan and read the files of each workload and format."""

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

from scimill.bench.dataset.plan import DatasetPlan
from scimill.bench.params import PlanConfig, format_of
from scimill.parallel.world import World

FORMATS: Mapping[tuple[str, str], tuple[str, str, str]] = MappingProxyType(
    {
        # (workload, format): module with `make_plan`, reader module, name of the reader in that module
        ("imseg", "npy"): ("imseg_npy.write", "imseg_npy.read", ""),
        ("bert", "tfrecord"): ("bert_tfrecord.write", "bert_tfrecord.read", ""),
        ("dlrm", "bin"): ("dlrm_bin.write", "dlrm_bin.read", ""),
        ("dlrm", "text"): ("dlrm_text.write", "dlrm_text.read", ""),
        ("dlrm", "npz"): ("dlrm_arrays.npz", "dlrm_arrays.read", "npz_reader"),
        ("dlrm", "npy"): ("dlrm_arrays.npy", "dlrm_arrays.read", "npy_reader"),
        ("dlrm", "parquet"): ("dlrm_arrays.parquet", "dlrm_arrays.read", "parquet_reader"),
    }
)


def make_plan(config: PlanConfig, request: int, world: World) -> DatasetPlan:
    """Plan a dataset of plain files of `request` bytes; collective. Independent of the number of ranks.

    Raises
    ------
    ConfigError : the request is smaller than a record.

    """
    writer, _, _ = FORMATS[config.workload, format_of(config)]
    return cast(DatasetPlan, _load(writer).make_plan(config, request, world))


def reader(workload: str, form: str) -> Any:
    """Return the reader of a workload's files in a format: an object with ``PATTERNS``, ``find`` and ``scan``."""
    _, module, name = FORMATS[workload, form]
    return getattr(_load(module), name) if name else _load(module)


def readers(workload: str) -> dict[str, Any]:
    """Return the readers of a workload's files by format; see `reader`."""
    return {form: reader(of, form) for of, form in FORMATS if of == workload}


def _load(module: str) -> Any:
    return importlib.import_module(f"scimill.bench.formats.{module}")
