"""Generating a data set: plan it, lay it down, make its blocks on all ranks."""

import functools
import shutil

from scimill import __version__
from scimill import config as configuration
from scimill.bench import datasets, directory
from scimill.bench.ledger import Begun, Entry, Manifest
from scimill.bench.params import ALGORITHM, GenerateConfig, format_of
from scimill.bench.plan import Plan
from scimill.parallel.report import human
from scimill.parallel.world import Stop, World
from scimill.store.mill import mill
from scimill.store.output import Output, check_absent


def generate(config: GenerateConfig, output: Output, world: World) -> bool:
    """Generate a data set; collective. Return False where it was complete already.

    Raises
    ------
    Stopped : before the walltime or on a signal; run again with ``resume``.
    ScimillError : see `directory.open_directory` and `datasets.plan`.

    """
    with world.together():
        planned = datasets.plan(config, config.size, world)
    stop = Stop(world, config.walltime, config.walltime_margin)
    begun = Begun("bench", ALGORITHM, __version__, configuration.to_yaml(config), planned.blocks)
    writer = directory.open_directory(
        world, output, planned, begun, configuration.explainer(config), stop,
        functools.partial(manifest, config, planned), direct=config.direct,
    )  # fmt: skip
    if writer is None:
        return False
    mill(world, writer, writer.make, stop, what="generate", unit="B")
    return True


def manifest(config: GenerateConfig, planned: Plan, entries: tuple[Entry, ...]) -> Manifest:
    """Return the manifest of a finished data set."""
    return Manifest(
        config.workload, format_of(config), config.seed, ALGORITHM, planned.block_size, planned.size, planned.records,
        configuration.to_yaml(config), entries, directory.made(),
    )  # fmt: skip


def plan_text(config: GenerateConfig, output: Output, planned: Plan) -> str:
    """What generating would do, for ``--dry-run``; the output's place and space are checked too."""
    check_output(output, planned)
    rows = {"output": str(output.path), **summary(config, planned)}
    rows["free"] = human(shutil.disk_usage(output.path.parent).free)
    return table(rows)


def check_output(output: Output, planned: Plan) -> None:
    """Refuse a place that a data set cannot be written to, or that has no space for it."""
    directory.check_place(output)
    if not (output.resume or output.overwrite) and any(output.path.glob("*")):
        check_absent(output)
    directory.check_space(output.part, planned)


def summary(config: GenerateConfig, planned: Plan) -> dict[str, str]:
    """Content and sizes of a plan, in words."""
    names = [file.name for file in planned.files]
    shown = names if len(names) <= 3 else [*names[:2], "…", names[-1]]
    return {
        "workload": f"{config.workload}, {format_of(config)}, seed {config.seed}",
        "size": f"{planned.size:,} bytes ({human(planned.size)})",
        "records": f"{planned.records:,}",
        "files": f"{len(names):,}: {', '.join(shown)}",
        "blocks": f"{planned.blocks:,} of {human(planned.block_size)}",
    }


def table(rows: dict[str, str]) -> str:
    """Rows of a name and a text."""
    return "\n".join(f"{name:<10}{text}" for name, text in rows.items())
