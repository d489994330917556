"""Errors of a model on each structure, and the limit above which a structure is anomalous."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def energy_error(predicted: Values, true: Values, counts: Values) -> Values:
    """Compute the signed error of the energy per atom, less a constant per element, shape (rows,).

    Two methods that agree on all forces may differ by a constant energy per element. Least squares over the finite rows
    give these constants. With fewer than two finite rows per element nothing is removed, because the fit would absorb
    the errors themselves.

    Parameters
    ----------
    predicted, true : energies, shape (rows,).
    counts : number of atoms of each element, shape (rows, elements).

    """
    errors = predicted - true
    known = np.isfinite(errors)
    if known.sum() >= 2 * counts.shape[1]:
        offsets = np.linalg.lstsq(counts[known], errors[known], rcond=None)[0]
        errors = errors - counts @ offsets
    result: Values = errors / counts.sum(axis=1)
    return result


def force_error(predicted: Values, true: Values) -> Values:
    """Compute the largest error of the force on an atom, shape (rows,), from forces (rows, atoms, 3)."""
    result: Values = np.linalg.norm(predicted - true, axis=2).max(axis=1)
    return result


def force_deviation(forces: Values) -> Values:
    """Compute the largest standard deviation of the force on an atom over a committee, shape (rows,).

    Forces have shape (members, rows, atoms, 3). The deviation of a vector is the root of the sum of its components'
    variances. A mean over atoms would hide a single atom on which the committee disagrees.
    """
    result: Values = np.sqrt(forces.var(axis=0).sum(axis=2)).max(axis=1)
    return result


def limit(scores: Values, rule: str, value: float) -> float:
    """Return the score above which a structure is anomalous.

    Parameters
    ----------
    scores : shape (rows,); only finite ones are used.
    rule : "absolute"; "percentile" of the scores; "mad": ``value`` median absolute deviations above the median.
    value : the number that the rule needs.

    """
    known = scores[np.isfinite(scores)]
    if rule == "absolute" or not len(known):
        return value
    if rule == "percentile":
        return float(np.percentile(known, value))
    median = np.median(known)
    return float(median + value * np.median(np.abs(known - median)))
