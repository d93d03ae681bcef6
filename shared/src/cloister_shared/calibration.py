"""Calibration from declared bounds alone: no row of anyone's data is needed, or helps.

Concrete chooses the width of the integer scores from what the calibration rows reach, and a score
that does not fit wraps around silently. Uniform random rows stay far from the extremes: on MNIST
the published recipe's circuit answers .575 of its inputs right under real encryption where the
same integers in the clear answer .950. The rows here reach each score's exact extremes instead.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def extreme_rows(coef: Floats) -> Floats:
    """Rows in [0, 1] that drive each output to its largest and to its smallest score.

    Args:
        coef: shape (n_outputs, n_features).

    Returns:
        Shape (2 * n_outputs, n_features): the largest of every output, then the smallest.
    """
    largest = (coef > 0).astype(np.float64)
    return np.vstack([largest, 1.0 - largest])


def boundary_rows(n_features: int) -> Floats:
    """Rows with every feature at its low, at its high, and half way, shape (3, n_features)."""
    return np.vstack([np.full(n_features, level) for level in (0.0, 1.0, 0.5)])


def calibration_rows(coef: Floats) -> Floats:
    """Rows in [0, 1] to calibrate a linear circuit with, shape (2 * n_outputs + 3, n_features)."""
    return np.vstack([boundary_rows(coef.shape[1]), extreme_rows(coef)])


def random_rows(n_rows: int, n_features: int, seed: int = 0) -> Floats:
    """Uniform rows in [0, 1], shape (n_rows, n_features), the same for the same seed."""
    return np.random.default_rng(seed).random((n_rows, n_features))
