"""Generating a dataset: plan it, create its files, and fill them with blocks on all ranks."""

import dataclasses
import functools
from typing import TYPE_CHECKING

from scimill import config as configuration
from scimill.bench import CAMPAIGN
from scimill.bench.dataset import directory
from scimill.bench.dataset.ledger import PendingWrite
from scimill.bench.dataset.plan import MARGIN, DatasetPlan, work_buffer
from scimill.bench.formats import catalogue
from scimill.bench.params import BenchGenerateConfig, PlanConfig, format_of
from scimill.campaign import checked_plan, describe_plan
from scimill.parallel.report import human
from scimill.parallel.world import Stop, World
from scimill.store.blocks import run_blocks
from scimill.store.output import Output, check_absent
from scimill.version import __version__

if TYPE_CHECKING:
    from scimill.bench.formats.hdf5.write import StorePlan

WARM_BYTES = 2**14  # per file; more than its headers


def generate(config: BenchGenerateConfig, output: Output, world: World) -> bool:
    """Generate a dataset; collective. Return False if it was complete already.

    Raises
    ------
    Stopped : at the walltime or on a signal; rerun with ``resume``.
    ScimillError : see `directory.open_directory` and `catalogue.make_plan`.

    """
    if format_of(config) == "hdf5":
        return generate_store(config, output, world)
    with world.together():
        plan = catalogue.make_plan(config, config.size, world)
    stop = Stop(world, config.walltime, config.walltime_margin)
    text = configuration.to_yaml(config)
    pending = PendingWrite("bench", CAMPAIGN.algorithm, __version__, text, plan.blocks)
    writer = directory.open_directory(
        world, output, plan, pending, configuration.explainer(config), stop,
        functools.partial(directory.make_manifest, config.workload, format_of(config), config.seed, plan, text),
        direct=config.direct,
    )  # fmt: skip
    if writer is None:
        return False
    world.on_root(compile_kernels, plan)
    run_blocks(world, writer, writer.make, stop, what="generate", unit="B")
    return True


def remake(config: str, output: Output, world: World) -> bool:
    """Generate from a stored configuration; see `generate`."""
    return generate(configuration.from_stored(BenchGenerateConfig, config), output, world)


def compile_kernels(plan: DatasetPlan) -> None:
    """Make a few bytes on rank 0, so that the other ranks find the compiled kernels in the cache."""
    work = work_buffer(WARM_BYTES)
    for file in plan.files[:3]:
        file.fill(0, min(WARM_BYTES, file.size), work, MARGIN)


def generate_store(config: BenchGenerateConfig, output: Output, world: World) -> bool:
    """Generate the data as a store (one HDF5 file); collective. Return False if it was complete already."""
    # Imported here: HDF5 takes memory that plain files do not need.
    from scimill.bench.formats.hdf5.write import make_store_plan

    with world.together():
        plan = make_store_plan(config, config.size)
    output = dataclasses.replace(output, direct=config.direct)
    return CAMPAIGN.fill(config, plan.layout, plan.make, output, world)


def make_plan(config: PlanConfig, request: int, world: World) -> "DatasetPlan | StorePlan":
    """Plan a dataset of plain files, or a store; collective."""
    if format_of(config) == "hdf5":
        from scimill.bench.formats.hdf5.write import make_store_plan

        return make_store_plan(config, request)
    return catalogue.make_plan(config, request, world)


def describe_generation(config: BenchGenerateConfig, output: Output, world: World) -> str:
    """Check the output's path and space and describe the plan, for ``--dry-run``; collective."""
    with world.together():
        plan = make_plan(config, config.size, world)
    return world.on_root(_describe_generation, config, output, plan)


def _describe_generation(config: BenchGenerateConfig, output: Output, plan: "DatasetPlan | StorePlan") -> str:
    rows = describe_content(config, plan)
    if not isinstance(plan, DatasetPlan):
        return describe_plan(output, plan.layout, rows)
    return checked_plan(output, rows, functools.partial(check_output, output, plan))


def check_output(output: Output, plan: DatasetPlan, *, takes_space: bool = True) -> None:
    """Raise if a dataset cannot be written to a path, or its disk lacks the space that the dataset takes."""
    directory.check_place(output)
    if not (output.resume or output.overwrite) and any(output.path.glob("*")):
        check_absent(output)
    if takes_space:
        directory.check_space(output.part, plan)


def describe_content(config: PlanConfig, plan: "DatasetPlan | StorePlan") -> dict[str, str]:
    """Describe the contents and sizes of a plan."""
    rows = {
        "workload": f"{config.workload}, {format_of(config)}, seed {config.seed}",
        "size": f"{plan.size:,} bytes ({human(plan.size)})",
        "records": f"{plan.records:,}",
    }
    if not isinstance(plan, DatasetPlan):
        return rows | {"blocks": f"{plan.layout.blocks:,} of {plan.layout.block_rows:,} rows"}
    names = [file.name for file in plan.files]
    shown = names if len(names) <= 3 else [*names[:2], "…", names[-1]]
    rows["files"] = f"{len(names):,}: {', '.join(shown)}"
    return rows | {"blocks": f"{plan.blocks:,} of {human(plan.block_size)}"}
