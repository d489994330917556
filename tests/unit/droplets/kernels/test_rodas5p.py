"""The coefficients of Rodas5P satisfy the algebraic conditions for its order and stability.

Hairer & Wanner, Solving Ordinary Differential Equations II, section IV.7: each rooted tree t gives the condition
Σᵢ bᵢ Φᵢ(t) = 1/γ(t), in which a vertex with one child stands for β = α + Γ and one with more children for α.
"""

from collections.abc import Iterator
from math import prod

import numpy as np
import pytest

from scimill.droplets.kernels.rodas5p import GAMMA, A, C

STAGES = 8
Tree = tuple["Tree", ...]  # a tree is the tuple of its root's subtrees


def lower_triangle(rows: tuple[tuple[float, ...], ...]) -> np.ndarray:
    matrix = np.zeros((STAGES, STAGES))
    for i, row in enumerate(rows, start=1):
        matrix[i, : len(row)] = row
    return matrix


TRANSFORMED_A = lower_triangle((*A, (*A[-1], 1.0), (*A[-1], 1.0, 1.0)))
WEIGHTS = np.array([*A[-1], 1.0, 1.0, 1.0])
GAMMAS = np.linalg.inv(np.eye(STAGES) / GAMMA - lower_triangle(C))
ALPHA, B = TRANSFORMED_A @ GAMMAS, WEIGHTS @ GAMMAS
BETA = ALPHA + GAMMAS
EMBEDDED = np.array([*A[-1], 1.0, 1.0, 0.0]) @ GAMMAS


def trees(order: int) -> set[Tree]:
    """Return all rooted trees with `order` vertices, subtrees in sorted order."""
    if order == 1:
        return {()}
    grown = {larger for tree in trees(order - 1) for larger in with_a_leaf_more(tree)}
    return {ordered(tree) for tree in grown}


def with_a_leaf_more(tree: Tree) -> Iterator[Tree]:
    yield (*tree, ())
    for i, subtree in enumerate(tree):
        for larger in with_a_leaf_more(subtree):
            yield (*tree[:i], larger, *tree[i + 1 :])


def ordered(tree: Tree) -> Tree:
    return tuple(sorted(ordered(subtree) for subtree in tree))


def size(tree: Tree) -> int:
    return 1 + sum(size(subtree) for subtree in tree)


def density(tree: Tree) -> int:
    return size(tree) * prod(density(subtree) for subtree in tree)


def elementary_weight(tree: Tree) -> np.ndarray:
    matrix = BETA if len(tree) == 1 else ALPHA
    return np.prod([matrix @ elementary_weight(subtree) for subtree in tree] or [np.ones(STAGES)], axis=0)


def test_all_trees_are_found():
    assert [len(trees(order)) for order in range(1, 6)] == [1, 1, 2, 4, 9]


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_solution_has_order_five(order):
    for tree in trees(order):
        assert B @ elementary_weight(tree) == pytest.approx(1 / density(tree), abs=2e-13), tree


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_embedded_solution_has_order_four(order):
    for tree in trees(order):
        assert EMBEDDED @ elementary_weight(tree) == pytest.approx(1 / density(tree), abs=2e-13), tree


def test_embedded_solution_has_no_higher_order():
    assert max(abs(EMBEDDED @ elementary_weight(tree) - 1 / density(tree)) for tree in trees(5)) > 1e-5


def test_method_is_stiffly_accurate_and_so_damps_any_stiff_component():
    np.testing.assert_allclose(B, BETA[-1], atol=1e-13)
    assert B @ np.linalg.solve(BETA, np.ones(STAGES)) == pytest.approx(1, abs=1e-10)  # R(∞) = 0


@pytest.mark.parametrize("z", [1j, 10j, 1000j, -1 + 5j, -1e6])
def test_method_is_stable_in_the_left_half_plane(z):
    assert abs(1 + z * B @ np.linalg.solve(np.eye(STAGES) - z * BETA, np.ones(STAGES))) < 1
