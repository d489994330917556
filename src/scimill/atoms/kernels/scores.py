"""How wrong a model is about each structure, and which of them are too wrong to be true."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


def energy_error(predicted: Values, true: Values, counts: Values) -> Values:
    """Error of the energy per atom, without what a constant energy per element would explain; signed, shape (rows,).

    Two methods that agree on all forces may differ by a constant per element. It is found by least squares over the
    rows that are finite, where these are at least twice as many as elements; below that nothing is subtracted, since it
    would explain the errors themselves.

    Parameters
    ----------
    predicted, true : energies, shape (rows,).
    counts : atoms of each element, shape (rows, elements).

    """
    errors = predicted - true
    known = np.isfinite(errors)
    if known.sum() >= 2 * counts.shape[1]:
        offsets = np.linalg.lstsq(counts[known], errors[known], rcond=None)[0]
        errors = errors - counts @ offsets
    result: Values = errors / counts.sum(axis=1)
    return result


def force_error(predicted: Values, true: Values) -> Values:
    """Largest error of a force on an atom, shape (rows,), of forces (rows, atoms, 3)."""
    result: Values = np.linalg.norm(predicted - true, axis=2).max(axis=1)
    return result


def force_deviation(forces: Values) -> Values:
    """Largest standard deviation of a force on an atom over a committee, shape (rows,), of (members, rows, atoms, 3).

    The deviation of a vector is the root of the sum of its components' variances. The mean over atoms would hide the
    one atom that the committee does not know.
    """
    result: Values = np.sqrt(forces.var(axis=0).sum(axis=2)).max(axis=1)
    return result


def limit(scores: Values, rule: str, value: float) -> float:
    """Score above which a structure is anomalous.

    Parameters
    ----------
    scores : finite ones are looked at, shape (rows,).
    rule : "absolute"; "percentile" of the scores; "mad": so many median absolute deviations above the median.
    value : the number that the rule needs.

    """
    known = scores[np.isfinite(scores)]
    if rule == "absolute" or not len(known):
        return value
    if rule == "percentile":
        return float(np.percentile(known, value))
    median = np.median(known)
    return float(median + value * np.median(np.abs(known - median)))
