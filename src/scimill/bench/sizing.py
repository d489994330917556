"""How large a dataset must be by the rules of storage benchmarks, and the plan for that size."""

import math

from scimill.bench.dataset.plan import DatasetPlan
from scimill.bench.formats.hdf5.write import StorePlan
from scimill.bench.generate import describe_content, make_plan
from scimill.bench.params import BenchGenerateConfig, SizeConfig, format_of
from scimill.campaign import describe_rows
from scimill.config import Layer, build, parameters_of, plain
from scimill.parallel.report import human
from scimill.parallel.world import World

TYPICAL = {"imseg": 157_000_000, "bert": 2_655, "dlrm": 160}
"""Bytes per record with which the search for enough samples starts."""
ENOUGH = 1.001  # the search stops at this multiple of the samples needed


def find_size(config: SizeConfig, world: World) -> tuple[int, DatasetPlan | StorePlan]:
    """Return the size to request and the resulting plan; collective.

    MLPerf Storage (training rules, "datasize"): at least five times the memory of all clients, so that no cache holds
    the data, and at least 500 steps of one batch per accelerator. Held-out records do not count towards the steps.
    """
    samples = config.steps * config.batch_size * config.accelerators
    least = max(config.size, math.ceil(config.hosts * config.memory * config.memory_factor))
    request = max(least, samples * TYPICAL[config.workload])
    plan, was_reduced = make_plan(config, request, world), False
    while plan.training < samples or (plan.training > ENOUGH * samples + 1 and request > least):
        if plan.training >= samples:
            if was_reduced:  # a reduced request gave too few samples
                break
            was_reduced = True
        request = max(least, math.ceil(request * (samples + 0.5) / max(1, plan.training)))
        previous, plan = plan, make_plan(config, request, world)
        if previous.records == plan.records and plan.training < samples:
            request += plan.size // plan.records
            plan = make_plan(config, request, world)
    return request, plan


def describe_size(config: SizeConfig, world: World) -> str:
    """Describe how large the dataset must be, and the command that generates it; collective."""
    with world.together():
        request, plan = find_size(config, world)
    samples = config.steps * config.batch_size * config.accelerators
    memory = math.ceil(config.hosts * config.memory * config.memory_factor)
    rules = [
        f"{samples:,} training sample{'s' * (samples != 1)} for {config.steps:,} step{'s' * (config.steps != 1)}",
        f"{human(memory)} for {config.memory_factor:g} times the memory",
    ]
    return describe_rows({
        **describe_content(config, plan),
        "rules": "; ".join(rules),
        "command": " ".join(["scimill bench generate", config.workload, "OUTPUT", *_flags(config, request)]),
    })  # fmt: skip


def _flags(config: SizeConfig, request: int) -> list[str]:
    """Return the flags that generate the planned dataset: format, size, and values that differ from the defaults."""
    values: dict[str, object] = {"format": format_of(config), "size": request}
    usual = plain(build(SizeConfig, [Layer("the defaults", {"workload": config.workload})]))
    for name, value in plain(config).items():
        is_content = name in parameters_of(BenchGenerateConfig) and parameters_of(SizeConfig)[name].affects_data
        if is_content and name not in values and value != usual[name]:
            values[name] = ":".join(map(str, value)) if isinstance(value, list) else value
    return [f"{parameters_of(SizeConfig)[name].flag} {value}" for name, value in values.items()]
