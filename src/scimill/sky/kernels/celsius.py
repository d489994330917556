"""Temperatures as the nodes write them: text of 0.04 K counts, read without double rounding.

A camera count n is 0.04 n - 273.15 °C. The text has at most six significant digits, enough to recover every count.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

STEP = 0.04  # K per count ("resolution;high" of the camera)
ZERO = -273.15  # °C of count 0
TOLERANCE = 2e-3  # K; rounding to six digits explains smaller deviations from a count, not larger ones
VALID, TOO_SHORT, TOO_LONG, BLANK, NOT_FINITE, NOT_A_NUMBER = range(6)
PROBLEMS = (
    "", "a row has too few values", "more rows or values than the header says", "a value is blank",
    "a value is not finite", "a value is not a number",
)  # fmt: skip
"""Descriptions of the codes."""

_MOST_DIGITS = 18  # as many as always fit an int64


@njit(cache=True)
def parse(text: NDArray[np.uint8], values: NDArray[np.float64]) -> tuple[int, int]:
    """Parse rows of numbers separated by semicolons.

    One loop on purpose: split into functions for sign, digits and exponent, it took 2.4 times as long.

    Parameters
    ----------
    text : bytes of the rows.
    values : (rows, columns), filled.

    Returns
    -------
    Index into `PROBLEMS`, and the row (from 0) with the problem.

    """
    rows, columns = values.shape
    at, end = 0, len(text)
    for row in range(rows):
        if at >= end:
            return TOO_SHORT, row
        for column in range(columns):
            mantissa, digits, exponent, sign, seen = 0, 0, 0, 1.0, False
            if at < end and (text[at] == 45 or text[at] == 43):
                sign = -1.0 if text[at] == 45 else 1.0
                at += 1
            fraction = False
            while at < end:
                byte = text[at]
                if 48 <= byte <= 57:
                    if digits < _MOST_DIGITS:
                        mantissa = mantissa * 10 + (byte - 48)
                        digits += mantissa > 0
                        exponent -= fraction
                    else:
                        exponent += not fraction
                    seen = True
                elif byte == 46 and not fraction:
                    fraction = True
                else:
                    break
                at += 1
            if seen and at < end and (text[at] == 101 or text[at] == 69):
                at += 1
                power, power_sign = 0, 1
                if at < end and (text[at] == 45 or text[at] == 43):
                    power_sign = -1 if text[at] == 45 else 1
                    at += 1
                while at < end and 48 <= text[at] <= 57:
                    power = min(power * 10 + (text[at] - 48), 400)
                    at += 1
                exponent += power_sign * power
            while at < end and (text[at] == 32 or text[at] == 13):
                at += 1
            is_end = at >= end or text[at] == 10
            if not seen:
                if is_end and column > 0:
                    return TOO_SHORT, row
                if is_end or text[at] == 59:
                    return BLANK, row
                letter = text[at] | 32
                return (NOT_FINITE if letter == 110 or letter == 105 else NOT_A_NUMBER), row
            if not is_end and text[at] != 59:
                return NOT_A_NUMBER, row
            magnitude = mantissa * 10.0**exponent if exponent >= 0 else mantissa / 10.0**-exponent
            values[row, column] = sign * magnitude
            if column < columns - 1:
                if is_end:
                    return TOO_SHORT, row
                at += 1
        if at < end and text[at] == 59:
            at += 1  # trailing semicolon
        while at < end and (text[at] == 32 or text[at] == 13):
            at += 1
        if at < end and text[at] != 10:
            return TOO_LONG, row
        at += 1
    while at < end:
        if text[at] != 10 and text[at] != 13 and text[at] != 32:
            return TOO_LONG, rows
        at += 1
    return VALID, 0


def counts(celsius: NDArray[Any]) -> NDArray[np.uint16] | None:
    """Convert °C to counts; None if any temperature is not a whole count."""
    exact = np.rint((celsius - ZERO) / STEP)
    if exact.min() < 0 or exact.max() > np.iinfo(np.uint16).max:
        return None
    if np.abs(celsius - to_celsius(exact)).max() > TOLERANCE:
        return None
    return exact.astype(np.uint16)


def to_celsius(number: NDArray[Any]) -> NDArray[np.float64]:
    """Convert counts to °C."""
    celsius: NDArray[np.float64] = number.astype(np.float64) / 25.0 + ZERO
    return celsius


def stored_to_celsius(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Convert stored thermal images, counts or °C, to °C."""
    return (to_celsius(stored) if stored.dtype == np.uint16 else stored).astype(np.float32)
