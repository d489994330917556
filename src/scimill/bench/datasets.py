"""Which plan belongs to which workload and format."""

import importlib
from typing import cast

from scimill.bench.params import Plannable, format_of
from scimill.bench.plan import Plan
from scimill.parallel.world import World

PLANNERS = {
    # (workload, format): module of scimill.bench.formats whose `plan` makes it
    ("imseg", "npy"): "npy",
    ("dlrm", "text"): "text",
    ("bert", "tfrecord"): "tfrecord",
    ("dlrm", "parquet"): "parquet",
    ("dlrm", "bin"): "binary",
    ("dlrm", "npz"): "npz",
    ("dlrm", "npy"): "triplet",
}


def plan(config: Plannable, request: int, world: World) -> Plan:
    """Plan a data set of plain files of `request` bytes; collective. The same on any number of ranks.

    Raises
    ------
    ConfigError : the request is smaller than a record.

    """
    module = importlib.import_module(f"scimill.bench.formats.{PLANNERS[config.workload, format_of(config)]}")
    return cast(Plan, module.plan(config, request, world))
