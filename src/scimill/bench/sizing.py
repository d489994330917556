"""How large a dataset must be: the rules of storage benchmarks, and the sizes that `generate` then makes."""

import math

from scimill.bench.dataset.plan import DatasetPlan
from scimill.bench.formats.hdf5.write import StorePlan
from scimill.bench.generate import describe_content, make_plan
from scimill.bench.params import SizeConfig, format_of
from scimill.campaign import describe_rows
from scimill.parallel.report import human
from scimill.parallel.world import World

TYPICAL = {"imseg": 157_000_000, "bert": 2_655, "dlrm": 160}
"""Bytes of a record, from which the search for enough samples begins."""
ENOUGH = 1.001  # samples, of those that are needed, with which the search ends


def find_size(config: SizeConfig, world: World) -> tuple[int, DatasetPlan | StorePlan]:
    """Return the size to ask for, and the plan that it gives; collective.

    MLPerf Storage (training rules, "datasize"): at least five times the memory of all clients, so that no cache holds
    the data, and at least 500 steps of one batch per accelerator. Records that are held out make no steps.
    """
    samples = config.steps * config.batch_size * config.accelerators
    least = max(config.size, math.ceil(config.hosts * config.memory * config.memory_factor))
    request = max(least, samples * TYPICAL[config.workload])
    planned, has_shrunk = make_plan(config, request, world), False
    while planned.training < samples or (planned.training > ENOUGH * samples + 1 and request > least):
        if planned.training >= samples:
            if has_shrunk:  # the smaller one was too small
                break
            has_shrunk = True
        request = max(least, math.ceil(request * (samples + 0.5) / max(1, planned.training)))
        previous, planned = planned, make_plan(config, request, world)
        if previous.records == planned.records and planned.training < samples:
            request += planned.size // planned.records
            planned = make_plan(config, request, world)
    return request, planned


def describe_size(config: SizeConfig, world: World) -> str:
    """Describe how large the dataset must be, and how to make it; collective."""
    with world.together():
        request, planned = find_size(config, world)
    samples = config.steps * config.batch_size * config.accelerators
    memory = math.ceil(config.hosts * config.memory * config.memory_factor)
    rules = [
        f"{samples:,} training samples for {config.steps:,} steps",
        f"{human(memory)} for {config.memory_factor:g} x memory",
    ]
    return describe_rows({
        **describe_content(config, planned),
        "rules": "; ".join(rules),
        "make it": f"scimill bench generate {config.workload} OUTPUT --format {format_of(config)} --size {request}",
    })  # fmt: skip
