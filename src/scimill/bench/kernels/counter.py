"""Counter-based random words: word i of a stream depends on (key, i) only, for any rank.

The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, with Stafford's variant 13 of the finaliser), whose
i-th output is a hash of key + (i + 1) · the odd golden ratio. Integers in a range are drawn by multiply-shift
(Lemire 2019), which has no branch, is the same on all processors, and has a bias below range / 2^32.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, odd
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)  # Stafford's variant 13
_S27, _S30, _S31 = np.uint64(27), np.uint64(30), np.uint64(31)
_ONE, HALF, LOW_WORD = np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)


@njit(inline="always")
def word(key: np.uint64, index: np.uint64) -> np.uint64:
    """Return the 64-bit word `index` of the stream `key`."""
    z = key + (index + _ONE) * GOLDEN
    z = (z ^ (z >> _S30)) * _FIRST
    z = (z ^ (z >> _S27)) * _SECOND
    return z ^ (z >> _S31)


@njit(inline="always")
def low_half(random: np.uint64) -> np.uint64:
    """Return the lower 32 bits of a word."""
    return random & LOW_WORD


@njit(inline="always")
def high_half(random: np.uint64) -> np.uint64:
    """Return the upper 32 bits of a word."""
    return random >> HALF


@njit(inline="always")
def below(bits: np.uint64, count: np.uint64) -> np.uint64:
    """Return a whole number in [0, count), count <= 2^32, from 32 random bits."""
    return (bits * count) >> HALF


@njit(inline="always")
def index_below(bits: np.uint64, count: Any) -> Any:
    """Return the value of `below` as an int64, for arithmetic with indices."""
    return np.int64((bits * np.uint64(count)) >> HALF)


@njit(inline="always")
def cubed(bits: np.uint64) -> np.uint64:
    """Return u³ for a uniform u, both as 32-bit fractions; its density falls as x^(-2/3)."""
    return (((bits * bits) >> HALF) * bits) >> HALF


@njit(cache=True)
def _fill(out: NDArray[np.uint64], key: np.uint64, first: np.uint64) -> None:
    for i in range(len(out)):
        out[i] = word(key, first + np.uint64(i))


def words(key: np.uint64, first: int, count: int) -> list[int]:
    """Return words of a stream as Python integers, for values drawn once per file, not per record."""
    out = np.empty(count, dtype=np.uint64)
    _fill(out, key, np.uint64(first))
    return [int(random) for random in out]


def within(limits: tuple[int, int], random: int) -> int:
    """Return a whole number in a range, both ends included, from the lower 32 bits of a word."""
    return limits[0] + (((random & 0xFFFFFFFF) * (limits[1] - limits[0] + 1)) >> 32)


@njit(inline="always")
def eighth_power(bits: np.uint64) -> np.uint64:
    """Return u⁸ for a uniform u, both 32-bit fractions; the smallest of 10^7 values has a share of 1/8."""
    for _ in range(3):
        bits = (bits * bits) >> HALF
    return bits


def stream_key(seed: int, campaign: int, stream: int) -> np.uint64:
    """Return the key of a stream; streams of one seed are independent."""
    sequence = np.random.SeedSequence(seed, spawn_key=(campaign, stream))
    return np.uint64(sequence.generate_state(1, np.uint64)[0])
