"""A linear model from the sums of all sites' rows, by scikit-learn's own estimators.

scikit-learn fits rows, and here are only their sums. But the objective of least squares, with
whatever penalty, depends on the rows through the Gram matrix of inputs and target alone. So p + 1
other rows with the same Gram matrix have the same objective, and the same minimum: those of its
square root. With centred sums they are fitted without an intercept, which the means then give.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator, sklearn_class
from cloister_shared.schema import DatasetSchema
from cloister_shared.sums import Sums
from cloister_shared.weights import LinearWeights

Floats = npt.NDArray[np.float64]

BY_MEAN = ("Lasso", "ElasticNet")
"""Estimators whose penalty stands beside the mean over rows, and not beside the sum."""


def fit_sums(
    sums: Sums, estimator: Estimator, parameters: Mapping[str, Any], data: DatasetSchema
) -> LinearWeights:
    """Return the weights that a fit of all rows in one place comes to.

    Args:
        sums: of all rows, whose inputs may be standardised.
        estimator: one of those that are trained by their sums.
        parameters: of its constructor.
        data: the schema, a regression.

    Raises:
        CloisterError: scikit-learn does not take the parameters.
    """
    if data.target is None:
        raise CloisterError(f"{estimator.name} predicts a target, and {data.dataset} has classes")
    centre = bool(parameters.get("fit_intercept", True))
    # The target is scaled back: the penalty is for weights in its own unit.
    scale = np.append(np.ones(data.n_inputs), data.target.width)
    gram = sums.gram[1:, 1:] * np.outer(scale, scale)
    totals = sums.gram[0, 1:] * scale
    if centre:
        gram -= np.outer(totals, totals) / sums.rows
    else:
        # Without an intercept the target counts from 0, and not from its lower bound.
        low = data.target.low
        gram[-1, -1] += 2 * low * totals[-1] + low**2 * sums.rows
        gram[:-1, -1] += low * totals[:-1]
        gram[-1, :-1] = gram[:-1, -1]
    rows = square_root(gram)
    if estimator.name in BY_MEAN:
        rows *= np.sqrt(len(rows) / sums.rows)
    model = sklearn_class(estimator)(**{**parameters, "fit_intercept": False})
    try:
        model.fit(rows[:, :-1], rows[:, -1])
    except (TypeError, ValueError) as error:
        raise CloisterError(
            f"scikit-learn does not fit {estimator.name} with {dict(parameters)}: {error}"
        ) from None
    coef = np.ravel(model.coef_).astype(np.float64)
    intercept = 0.0
    if centre:
        means = totals / sums.rows
        intercept = data.target.low + means[-1] - means[:-1] @ coef
    return LinearWeights(coef[None, :], np.array([intercept]))


def square_root(gram: Floats) -> Floats:
    """Return rows whose Gram matrix is this one, without what may be rounding.

    Args:
        gram: symmetric, shape (k, k), no eigenvalue below 0 but for rounding.

    Returns:
        Shape (k, k): as many rows as columns, some of them 0 where columns depend on each other.
    """
    values, vectors = np.linalg.eigh(gram)
    # An eigenvalue is known to within rounding of the largest; below, it is 0 as well as not.
    noise = len(gram) * np.finfo(np.float64).eps * max(float(values[-1]), 0.0)
    values = np.where(values > noise, values, 0.0)
    rows: Floats = np.sqrt(values)[:, None] * vectors.T
    return np.ascontiguousarray(rows)
