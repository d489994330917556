"""Choose a few combinations of many values in which every pair of values of two axes occurs."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product

Row = dict[str, str]


def pairs_of(row: Row) -> set[frozenset[tuple[str, str]]]:
    """Return all pairs of values in a row."""
    return {frozenset(pair) for pair in combinations(row.items(), 2)}


def all_pairs(axes: Mapping[str, Sequence[str]]) -> Iterator[Row]:
    """Yield every pair of values of two axes, as a row of these two alone."""
    for first, second in combinations(axes, 2):
        for one, other in product(axes[first], axes[second]):
            yield {first: one, second: other}


def cover_pairs(axes: Mapping[str, Sequence[str]], is_possible: Callable[[Row], bool]) -> list[Row]:
    """Return rows in which every possible pair occurs: each begins with a missing pair and adds what covers most.

    Parameters
    ----------
    axes : values by axis.
    is_possible : whether a row, which may lack axes, can be completed.

    """
    missing = {pair for row in all_pairs(axes) if is_possible(row) for pair in pairs_of(row)}
    rows = []
    for pair in all_pairs(axes):
        if pairs_of(pair) <= missing:
            row = pair
            for axis in [axis for axis in axes if axis not in pair]:
                choices = filter(is_possible, ({**row, axis: value} for value in axes[axis]))
                row = max(choices, key=lambda choice: len(pairs_of(choice) & missing))
            missing -= pairs_of(row)
            rows.append({axis: row[axis] for axis in axes})
    return rows
