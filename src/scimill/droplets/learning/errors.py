"""Errors of a network, compared with the exact droplets of a store."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scimill.droplets.learning.formulas import MODEL_INPUTS
from scimill.droplets.learning.network import DropletNetwork, make_samples, predict, sample_fields
from scimill.droplets.learning.train import is_flagged
from scimill.errors import InputError
from scimill.store.reader import Reader
from scimill.store.verify import block_damage


class Errors(NamedTuple):
    """Errors of a network, droplet by droplet."""

    inputs: NDArray[np.float32]
    """(n, 7), columns as in MODEL_INPUTS"""
    radius: NDArray[np.float32]
    """predicted − exact log10 of the radius in m"""
    temperature: NDArray[np.float32]
    """predicted − exact, K"""
    exact: NDArray[np.float32]
    """(n, 2), columns as in MODEL_OUTPUTS"""
    content: str
    """which droplets these are, as text"""


def measure(model: DropletNetwork, reader: Reader, blocks: list[int], content: str) -> Errors:
    """Measure the errors of a network on blocks of a store.

    Raises
    ------
    InputError : a block is damaged.

    """
    parts = [_measure_block(model, reader, block) for block in blocks]
    inputs, radius, temperature, exact = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Errors(inputs, radius, temperature, exact, content)


def _measure_block(model: DropletNetwork, reader: Reader, block: int) -> tuple[NDArray[np.float32], ...]:
    if damage := block_damage(reader, block):
        raise InputError(f"the store is damaged: block {block}: {damage}", where=str(reader.path))
    rows = {name: reader.rows(block, name) for name in sample_fields(flagged=is_flagged(reader))}
    inputs, exact = np.split(make_samples(rows), [len(MODEL_INPUTS)], axis=1)
    predicted = predict(model, inputs)
    radius = np.log10(predicted[:, 0] / exact[:, 0])
    temperature = predicted[:, 1] - exact[:, 1]
    return tuple(values.astype(np.float32) for values in (inputs, radius, temperature, exact))
