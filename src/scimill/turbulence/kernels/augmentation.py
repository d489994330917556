"""What maps a solution of the Hasegawa–Wakatani equations to another one, for more training data from the same runs.

The box is periodic and homogeneous, so any shift is exact, by whole cells also on the grid. The one exact reflection is
x → −x with all fields negated. The background gradient breaks the others: y → −y, or a rotation, gives no solution.
"""

import numpy as np
from numpy.typing import NDArray

Fields = NDArray[np.floating]


def shift(fields: Fields, x: int, y: int) -> Fields:
    """Move fields, shape (..., x, y), by whole cells of the periodic box; a new array."""
    return np.roll(fields, (x, y), axis=(-2, -1))


def reflect(fields: Fields) -> Fields:
    """Reflect fields, shape (..., x, y), at x = 0 and negate them; a new array.

    The point 0 stays, the others change places: point i goes to n − i.
    """
    return -np.roll(fields[..., ::-1, :], 1, axis=-2)


def augment(fields: Fields, stream: np.random.Generator) -> Fields:
    """Shift and reflect each sample at random, all its channels together.

    Parameters
    ----------
    fields : shape (samples, channels, x, y); the channels are fields of one state and its corrections.
    stream : random stream; each sample takes two shifts and one coin from it.

    Returns
    -------
    Fields : a new array of the same shape and type.
    """
    samples, _, nx, ny = fields.shape
    made = np.empty_like(fields)
    for number in range(samples):
        x, y, coin = (int(stream.integers(high)) for high in (nx, ny, 2))
        sample = reflect(fields[number]) if coin else fields[number]
        made[number] = shift(sample, x, y)
    return made
