"""One fit of all rows that there are."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator, sklearn_class
from cloister_shared.schema import DatasetSchema
from cloister_shared.trees import Trees
from cloister_shared.weights import LinearWeights
from cloister_trainer.local.rows import Rows

log = logging.getLogger(__name__)


def fit(
    row: Estimator, parameters: Mapping[str, Any], rows: Rows, data: DatasetSchema
) -> LinearWeights | Trees:
    """Fit the estimator on rows in which every class occurs.

    Raises:
        CloisterError: the fit failed, gave values that are not finite, or learnt nothing.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fitted(row, parameters, rows)
    if stopped_early(caught):
        log.warning("the fit stopped before it had converged: raise max_iter, or tol")
    if row.family == "tree":
        trees = Trees.of(model)
        trees.check(data)
        return trees
    weights = LinearWeights.of(model.coef_, model.intercept_)
    weights.check(data)
    if not weights.coef.any():
        raise CloisterError(
            "every weight is 0: nothing was learnt, nothing is published; regularise less"
        )
    return weights


def fitted(row: Estimator, parameters: Mapping[str, Any], rows: Rows) -> Any:
    """Return the scikit-learn estimator, fitted; it may warn that it has not converged.

    Raises:
        CloisterError: scikit-learn cannot fit it.
    """
    model = sklearn_class(row)(**parameters)
    try:
        model.fit(rows.inputs, rows.answers)
    except ValueError as error:
        raise CloisterError(f"{row.name} could not be fitted: {error}") from None
    return model


def stopped_early(caught: list[warnings.WarningMessage]) -> int:
    """Return how many of these warnings are of a fit that stopped before it had converged."""
    return sum(issubclass(one.category, ConvergenceWarning) for one in caught)
