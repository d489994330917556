"""Generating droplets: blocks to kernel to store."""

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

TYPICAL_RATE = 200_000  # droplets/s/core on AVX-512 at tolerance 1e-8, for --dry-run; see benchmarks/droplets.py
MOST_ATTEMPTS = 1000  # draws of one row, all weird, after which its ranges are taken to hold nothing else


def generate(config: DropletsGenerateConfig, output: Output, world: World) -> bool:
    """Generate a store of droplets; collective. Return False where it was complete already.

    Raises
    ------
    Stopped : before the walltime or on a signal; run again with ``resume``.
    ScimillError : see `campaign.Campaign.fill` and `NumericalError`.

    """
    layout = fields.generated(config)
    make_block, prepare = block_maker(config, layout), partial(compile_kernel, config, world)
    return CAMPAIGN.fill(config, layout, make_block, output, world, unit="droplets", prepare=prepare)


def remake(config: str, output: Output, world: World) -> bool:
    """Generate from a stored configuration; see `generate`."""
    return generate(from_stored(DropletsGenerateConfig, config), output, world)


def compile_kernel(config: DropletsGenerateConfig, world: World) -> None:
    """Compile on rank 0, so that the other ranks find the result in the cache."""
    droplet = np.array([[1e-6], [290], [1e-18], [290], [0.9], [1]], dtype=np.float32)

    def compiled() -> None:
        solver.solve(arguments.model(config), droplet, np.ones((1, 1), dtype=np.float32))

    world.on_root(compiled)
    compiled()


def block_maker(config: DropletsGenerateConfig, layout: Layout) -> Callable[[int], BlockData]:
    """Return the function that makes a block from its number."""
    ranges, limits, model = arguments.ranges(config), arguments.limits(config), arguments.model(config)
    sobol = sampling.Sobol(campaign_stream(config.seed, CAMPAIGN.number)) if config.sampling == "sobol" else None

    def make(block: int) -> BlockData:
        stream = block_stream(config.seed, CAMPAIGN.number, block)
        n = layout.rows_in(block)
        times = sampling.times(stream, n, config.samples, ranges)
        points = sobol.points(layout.span(block).start, n) if sobol else stream.random((n, len(INPUTS)))
        sample = BlockDroplets(model, limits, sampling.inputs(points, ranges), times)
        if not config.keep_weird:
            while sample.rows.size:
                sample.draw_again(sampling.inputs(stream.random((sample.rows.size, len(INPUTS))), ranges))
        return sample.block_data(block, layout)

    return make


class BlockDroplets:
    """The droplets of one block while weird ones are being replaced.

    Parameters
    ----------
    model, limits : how they are solved, and what is weird.
    droplets : float32, shape (6, n).
    times : float32, shape (n, samples); a row keeps its times however often its droplet is drawn again.

    Attributes
    ----------
    rows : the rows whose droplet is weird.

    """

    def __init__(self, model: solver.SolverSettings, limits: weird.Limits, droplets: Single, times: Single) -> None:
        self._model, self._limits = model, limits
        self._droplets, self._times = droplets, times
        self._radius, self._temperature = np.empty_like(times), np.empty_like(times)
        self._classes = np.empty(times.shape, dtype=np.uint16)
        self._records: list[dict[str, NDArray[np.generic]]] = []
        self._attempts = 0
        self._solve(np.arange(len(times)))

    def _solve(self, rows: NDArray[np.int64]) -> None:
        radius, temperature, status = solver.solve(self._model, self._droplets[:, rows], self._times[rows])
        self._radius[rows], self._temperature[rows] = radius, temperature
        self._classes[rows] = weird.classify(radius, temperature, status, self._limits)
        self._attempts += len(rows)
        self.rows = rows[self._classes[rows].any(axis=1)]

    def draw_again(self, droplets: Single) -> None:
        """Record the weird droplets, put others (shape (6, number of rows)) in their place, and solve them."""
        if len(self._records) == MOST_ATTEMPTS:
            raise NumericalError(
                f"{self.rows.size} droplets of a block were weird {MOST_ATTEMPTS} times in a row",
                where="the ranges, accepted_radius or accepted_temperature",
                remedy="look at what they are with --keep-weird",
            )
        self._records.append(self._record())
        self._droplets[:, self.rows] = droplets
        self._solve(self.rows)

    def _record(self) -> dict[str, NDArray[np.generic]]:
        """Copy the weird droplets, inputs and outputs, each at its first weird time."""
        rows, first = self.rows, (self._classes[self.rows] != 0).argmax(axis=1)
        record: dict[str, NDArray[np.generic]] = dict(zip(INPUTS, self._droplets[:, rows], strict=True))
        outputs = {"time": self._times, "radius": self._radius, "temperature": self._temperature}
        record |= {name: values[rows, first] for name, values in outputs.items()}
        record["classes"] = weird.of_droplets(self._classes[rows])
        record["attempt"] = np.full(len(rows), len(self._records), dtype=np.uint32)
        return record

    def block_data(self, block: int, layout: Layout) -> BlockData:
        """Content of the store's block: the sample, the weird records that fit, and the counts of all."""
        values: dict[str, NDArray[np.generic]] = dict(zip(INPUTS, self._droplets, strict=True))
        outputs: dict[str, NDArray[np.generic]] = {
            "time": self._times, "radius": self._radius, "temperature": self._temperature,
        }  # fmt: skip
        if not layout.tables:
            outputs["weird"] = self._classes
        values |= {name: array if array.shape[1] > 1 else array[:, 0] for name, array in outputs.items()}
        ledger = {"attempts": self._attempts}
        if not layout.tables:
            return BlockData(values, ledger=ledger | {"weird_by_class": weird.counts(weird.of_droplets(self._classes))})
        names = [field.name for field in layout.tables[0].fields if field.name != "block"]
        records = {name: self._joined(name, layout)[: layout.tables[0].capacity] for name in names}
        records["block"] = np.full(len(records["classes"]), block, dtype=np.uint32)
        by_class = weird.counts(self._joined("classes", layout).astype(np.uint16))
        return BlockData(values, {"weird": records}, ledger | {"weird_by_class": by_class})

    def _joined(self, name: str, layout: Layout) -> NDArray[np.generic]:
        empty = next(np.empty(0, field.dtype) for field in layout.tables[0].fields if field.name == name)
        return np.concatenate([empty, *(record[name] for record in self._records)])


def describe_generation(config: DropletsGenerateConfig, output: Output) -> str:
    """Say what generating would do, for ``--dry-run``; see `campaign.describe_plan`."""
    seconds = config.count / TYPICAL_RATE
    rows = {
        "droplets": f"{config.count:,}, {config.sampling}, seed {config.seed}, times of each: {config.samples}",
        "time": f"about {seconds:.3g} core seconds at {TYPICAL_RATE:,} droplets per second and core",
    }
    return describe_plan(output, fields.generated(config), rows)
