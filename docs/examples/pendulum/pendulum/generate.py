"""From parameters to a store: its fields, and how a block of them is made."""

from pendulum import CAMPAIGN
from pendulum.kernels import swing
from scimill.parallel.streams import block_stream
from scimill.store.layout import Field, Layout
from scimill.store.writer import BlockData

UNITS = {"initial_angle": "rad", "length": "m", "time": "s", "angle": "rad"}


def layout(config):
    fields = (Field(name, "float64", unit, name.replace("_", " ")) for name, unit in UNITS.items())
    return Layout(config.count, config.block_size, tuple(fields))


def make_block(config, block):
    stream, rows = block_stream(config.seed, CAMPAIGN.number, block), layout(config).rows_in(block)
    ranges = {"initial_angle": config.angle_range, "length": config.length_range, "time": config.time_range}
    values = {name: stream.uniform(low, high, rows) for name, (low, high) in ranges.items()}
    return BlockData({**values, "angle": swing(*values.values())})
