"""Symmetries of the Hasegawa–Wakatani equations, which give more training data from the same runs.

The box is periodic and homogeneous, so any shift maps solutions to solutions; on the grid, any shift by whole cells.
The only exact reflection is x → −x with all fields negated. The background gradient breaks y → −y and rotations.
"""

import numpy as np
from numpy.typing import NDArray

Fields = NDArray[np.floating]


def shift(fields: Fields, x: int, y: int) -> Fields:
    """Move fields, shape (..., x, y), by whole cells of the periodic box; a new array."""
    return np.roll(fields, (x, y), axis=(-2, -1))


def reflect(fields: Fields) -> Fields:
    """Reflect fields, shape (..., x, y), at x = 0 and negate them; a new array.

    Point 0 stays; point i moves to n − i.
    """
    return -np.roll(fields[..., ::-1, :], 1, axis=-2)


def augment(fields: Fields, stream: np.random.Generator) -> Fields:
    """Shift and reflect each sample at random, all its channels together.

    Parameters
    ----------
    fields : shape (samples, channels, x, y); the channels are fields of one state and its corrections.
    stream : random stream; each sample draws two shifts and one coin toss.

    Returns
    -------
    Fields : a new array of the same shape and dtype.
    """
    samples, _, nx, ny = fields.shape
    made = np.empty_like(fields)
    for number in range(samples):
        x, y, coin = (int(stream.integers(high)) for high in (nx, ny, 2))
        sample = reflect(fields[number]) if coin else fields[number]
        made[number] = shift(sample, x, y)
    return made
