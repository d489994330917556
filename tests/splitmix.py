"""SplitMix64 as published, in Python integers: the reference for the random words of scimill bench."""

from collections.abc import Iterator

MASK = 2**64 - 1


def splitmix64(key: int, first: int, count: int) -> list[int]:
    """Return outputs `first` to `first + count - 1` of the generator with state `key`."""
    words = []
    for i in range(first, first + count):
        z = (key + (i + 1) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        words.append(z ^ (z >> 31))
    return words


def halves(key: int, first: int, count: int) -> Iterator[int]:
    """Yield 32-bit halves of words, the lower half first."""
    for word in splitmix64(key, first, count):
        yield word & 0xFFFFFFFF
        yield word >> 32
