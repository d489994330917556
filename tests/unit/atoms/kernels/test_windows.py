"""The rules that divide rows into the sets of an ensemble."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scimill.atoms.kernels.windows import places_of, split

FRACTIONS = st.integers(0, 20).flatmap(
    lambda v: st.tuples(st.just(v / 20), st.integers(0, 20 - v).map(lambda t: t / 20))
)
HASHES = st.lists(st.integers(0, 2**64 - 1), max_size=60).map(lambda values: np.array(values, dtype=np.uint64))


def sets(hashes, members, train, valid):
    ranks = places_of(hashes)
    return [split(ranks, members, member, train, valid) for member in range(members)]


@given(hashes=HASHES, members=st.integers(1, 9), fractions=FRACTIONS)
def test_sets_are_disjoint_and_have_their_sizes(hashes, members, fractions):
    valid, train = fractions
    for trained, validated in sets(hashes, members, train, valid):
        assert not (trained & validated).any()
        for chosen, fraction in ((trained, train), (validated, valid)):
            assert abs(chosen.sum() - fraction * len(hashes)) < 1 + 1e-9
        if train + valid == 1:
            assert (trained | validated).all()


@given(hashes=HASHES, members=st.integers(1, 9), share=st.integers(0, 4))
def test_validation_sets_of_members_are_disjoint_while_they_can_be(hashes, members, share):
    valid = share / 4 / members
    together = np.sum([validated for _, validated in sets(hashes, members, 0.1, valid)], axis=0)
    assert (np.asarray(together) <= 1).all()
    if share == 4:
        assert (np.asarray(together) == 1).all()


@given(hashes=HASHES, members=st.integers(1, 9), more=st.floats(1, 2))
def test_large_validation_sets_cover_everything(hashes, members, more):
    valid = min(1.0, more / members)
    together = np.sum([validated for _, validated in sets(hashes, members, 0.0, valid)], axis=0)
    assert (np.asarray(together) >= 1).all()


@given(hashes=HASHES.filter(lambda h: len(h) == len(np.unique(h))), members=st.integers(1, 5), order=st.randoms())
def test_sets_do_not_depend_on_the_order_of_rows(hashes, members, order):
    shuffled = np.arange(len(hashes))
    order.shuffle(shuffled)
    for here, there in zip(sets(hashes, members, 0.5, 0.2), sets(hashes[shuffled], members, 0.5, 0.2), strict=True):
        assert np.array_equal(here[0][shuffled], there[0])
        assert np.array_equal(here[1][shuffled], there[1])


@pytest.mark.parametrize("rows", [0, 1, 2, 997])
def test_all_may_be_trained_on(rows):
    ((trained, validated),) = sets(np.arange(rows, dtype=np.uint64), 1, 1.0, 0.0)
    assert trained.all()
    assert not validated.any()
