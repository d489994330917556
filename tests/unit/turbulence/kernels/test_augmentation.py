"""Shifts and the reflection on the grid."""

import numpy as np

from scimill.turbulence.kernels import augmentation


def test_a_shift_moves_whole_cells_and_wraps() -> None:
    field = np.arange(12.0).reshape(3, 4)
    moved = augmentation.shift(field, 1, 2)
    assert moved[1, 2] == field[0, 0]
    assert moved[0, 1] == field[2, 3]


def test_the_reflection_is_its_own_inverse_and_keeps_the_first_point() -> None:
    fields = np.random.default_rng(1).standard_normal((5, 8, 6))
    mirrored = augmentation.reflect(fields)
    np.testing.assert_array_equal(mirrored[:, 0], -fields[:, 0])
    np.testing.assert_array_equal(mirrored[:, 3], -fields[:, 5])
    np.testing.assert_array_equal(augmentation.reflect(mirrored), fields)


def test_augmentation_moves_all_channels_of_a_sample_together() -> None:
    fields = np.random.default_rng(2).standard_normal((16, 1, 8, 8)).astype(np.float32)
    both = np.concatenate([fields, 2 * fields], axis=1)
    made = augmentation.augment(both, np.random.default_rng(3))
    assert (made.shape, made.dtype) == (both.shape, np.float32)
    np.testing.assert_array_equal(made[:, 1], 2 * made[:, 0])
    signs = np.sign(made.sum(axis=(1, 2, 3)) * both.sum(axis=(1, 2, 3)))
    assert {-1, 1} == set(signs.tolist())  # some are reflected, some are not
    np.testing.assert_array_equal(
        np.sort(np.abs(made[:, 0]).reshape(16, -1)), np.sort(np.abs(fields[:, 0]).reshape(16, -1))
    )


def test_augmentation_depends_on_the_stream_only() -> None:
    fields = np.random.default_rng(4).standard_normal((4, 3, 8, 8))
    first, again, other = (augmentation.augment(fields, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
