"""Generate droplets: sample and solve each block, and write it to the store."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from scimill.campaign import describe_plan
from scimill.config import from_stored
from scimill.droplets import CAMPAIGN, arguments, fields
from scimill.droplets.kernels import sampling, solver, weird
from scimill.droplets.kernels.sampling import INPUTS, Single
from scimill.droplets.params import DropletsGenerateConfig
from scimill.errors import NumericalError
from scimill.parallel.streams import block_stream, campaign_stream
from scimill.parallel.world import World
from scimill.store.layout import Layout
from scimill.store.output import Output
from scimill.store.writer import BlockData

MOST_ATTEMPTS = 1000  # weird draws in a row, after which the ranges are assumed to hold nothing else


def generate(config: DropletsGenerateConfig, output: Output, world: World) -> bool:
    """Generate a store of droplets; collective. Return False if it was already complete.

    Raises
    ------
    Stopped : before the walltime or on a signal; rerun with ``resume``.
    NumericalError : nearly all droplets in the ranges are weird.
    ScimillError : see `campaign.Campaign.fill`.

    """
    layout = fields.generation_layout(config)
    make_block, prepare = block_maker(config, layout), partial(compile_kernel, config, world)
    return CAMPAIGN.fill(config, layout, make_block, output, world, unit="droplets", prepare=prepare)


def remake(config: str, output: Output, world: World) -> bool:
    """Generate from a stored configuration; see `generate`."""
    return generate(from_stored(DropletsGenerateConfig, config), output, world)


def compile_kernel(config: DropletsGenerateConfig, world: World) -> None:
    """Compile on rank 0 first, so that the other ranks find the result in the cache."""
    droplet = np.array([[1e-6], [290], [1e-18], [290], [0.9], [1]], dtype=np.float32)

    def solve_one() -> None:
        solver.solve(arguments.solver_settings(config), droplet, np.ones((1, 1), dtype=np.float32))

    world.on_root(solve_one)
    solve_one()


def block_maker(config: DropletsGenerateConfig, layout: Layout) -> Callable[[int], BlockData]:
    """Return the function that makes a block from its number."""
    ranges, limits, settings = arguments.ranges(config), arguments.limits(config), arguments.solver_settings(config)
    sobol = sampling.Sobol(campaign_stream(config.seed, CAMPAIGN.number)) if config.sampling == "sobol" else None

    def make(block: int) -> BlockData:
        stream = block_stream(config.seed, CAMPAIGN.number, block)
        n = layout.rows_in(block)
        times = sampling.times(stream, n, config.samples, ranges)
        points = sobol.points(layout.span(block).start, n) if sobol else stream.random((n, len(INPUTS)))
        sample = BlockDroplets(settings, limits, sampling.inputs(points, ranges), times)
        if not config.keep_weird:
            while sample.rows.size:
                sample.resample(sampling.inputs(stream.random((sample.rows.size, len(INPUTS))), ranges))
        return sample.block_data(block, layout)

    return make


class BlockDroplets:
    """The droplets of one block while weird ones are being resampled.

    Parameters
    ----------
    settings, limits : of the solver, and of accepted results.
    droplets : float32, shape (6, n).
    times : float32, shape (n, samples); a row keeps its times when its droplet is resampled.

    Attributes
    ----------
    rows : rows that hold a weird droplet.

    """

    def __init__(self, settings: solver.SolverSettings, limits: weird.Limits, droplets: Single, times: Single) -> None:
        self._settings, self._limits = settings, limits
        self._droplets, self._times = droplets, times
        self._radius, self._temperature = np.empty_like(times), np.empty_like(times)
        self._classes = np.empty(times.shape, dtype=np.uint16)
        self._records: list[dict[str, NDArray[np.generic]]] = []
        self._attempts = 0
        self._solve(np.arange(len(times)))

    def _solve(self, rows: NDArray[np.int64]) -> None:
        radius, temperature, status = solver.solve(self._settings, self._droplets[:, rows], self._times[rows])
        self._radius[rows], self._temperature[rows] = radius, temperature
        self._classes[rows] = weird.classify(radius, temperature, status, self._limits)
        self._attempts += len(rows)
        self.rows = rows[self._classes[rows].any(axis=1)]

    def resample(self, droplets: Single) -> None:
        """Record the weird droplets, replace them by others, shape (6, number of rows), and solve those."""
        if len(self._records) == MOST_ATTEMPTS:
            raise NumericalError(
                f"a block still has weird droplets after {MOST_ATTEMPTS} attempts: {self.rows.size}",
                where="the ranges, accepted_radius or accepted_temperature",
                remedy="inspect them with --keep-weird",
            )
        self._records.append(self._record())
        self._droplets[:, self.rows] = droplets
        self._solve(self.rows)

    def _record(self) -> dict[str, NDArray[np.generic]]:
        """Copy inputs and outputs of the weird droplets, each at its first weird time."""
        rows, first = self.rows, (self._classes[self.rows] != 0).argmax(axis=1)
        record: dict[str, NDArray[np.generic]] = dict(zip(INPUTS, self._droplets[:, rows], strict=True))
        outputs = {"time": self._times, "radius": self._radius, "temperature": self._temperature}
        record |= {name: values[rows, first] for name, values in outputs.items()}
        record["classes"] = weird.droplet_classes(self._classes[rows])
        record["attempt"] = np.full(len(rows), len(self._records), dtype=np.uint32)
        return record

    def block_data(self, block: int, layout: Layout) -> BlockData:
        """Return the content of the store's block: sample, weird records that fit, and counts of all."""
        values: dict[str, NDArray[np.generic]] = dict(zip(INPUTS, self._droplets, strict=True))
        outputs: dict[str, NDArray[np.generic]] = {
            "time": self._times, "radius": self._radius, "temperature": self._temperature,
        }  # fmt: skip
        if not layout.tables:
            outputs["weird"] = self._classes
        values |= {name: array if array.shape[1] > 1 else array[:, 0] for name, array in outputs.items()}
        ledger = {"attempts": self._attempts}
        if not layout.tables:
            return BlockData(
                values, ledger=ledger | {"weird_by_class": weird.count_classes(weird.droplet_classes(self._classes))}
            )
        names = [field.name for field in layout.tables[0].fields if field.name != "block"]
        records = {name: self._concatenate(name, layout)[: layout.tables[0].capacity] for name in names}
        records["block"] = np.full(len(records["classes"]), block, dtype=np.uint32)
        by_class = weird.count_classes(self._concatenate("classes", layout).astype(np.uint16))
        return BlockData(values, {"weird": records}, ledger | {"weird_by_class": by_class})

    def _concatenate(self, name: str, layout: Layout) -> NDArray[np.generic]:
        empty = next(np.empty(0, field.dtype) for field in layout.tables[0].fields if field.name == name)
        return np.concatenate([empty, *(record[name] for record in self._records)])


def describe_generation(config: DropletsGenerateConfig, output: Output) -> str:
    """Describe what a run would generate, for ``--dry-run``; see `campaign.describe_plan`."""
    rows = {
        "droplets": f"{config.count:,}, {config.sampling}, seed {config.seed}, times per droplet: {config.samples}",
        "time": CAMPAIGN.describe_time("generate", config.count),
    }
    return describe_plan(output, fields.generation_layout(config), rows)
