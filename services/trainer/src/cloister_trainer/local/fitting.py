"""One fit of all rows that there are."""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from cloister_shared.boosting import trees_of
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator, sklearn_class
from cloister_shared.schema import DatasetSchema
from cloister_shared.trees import Trees
from cloister_shared.weights import LinearWeights
from cloister_trainer.local.rows import Rows

SCALER = "scaler"
ESTIMATOR = "estimator"
"""Steps of what is fitted where inputs are standardised."""

log = logging.getLogger(__name__)


def fit(
    row: Estimator,
    parameters: Mapping[str, Any],
    rows: Rows,
    data: DatasetSchema,
    *,
    standardise: bool = False,
    prune: float = 0.0,
) -> LinearWeights | Trees:
    """Fit the estimator on rows in which every class occurs.

    Args:
        row: of the estimator.
        parameters: of its constructor.
        rows: to fit.
        data: their schema.
        standardise: whether it fits standardised inputs.
        prune: share of the inputs that get no weight.

    Returns:
        Of a linear model the weights for inputs in [0, 1].

    Raises:
        CloisterError: the fit failed, gave values that are not finite, or learnt nothing.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = fitted(row, parameters, rows, standardise=standardise)
    if stopped_early(caught):
        log.warning("the fit stopped before it had converged: raise max_iter, or tol")
    if row.family == "tree":
        trees = trees_of(model)
        trees.check(data)
        return trees
    weights = weights_of(model, prune)
    weights.check(data)
    if not weights.coef.any():
        raise CloisterError(
            "every weight is 0: nothing was learnt, nothing is published; regularise less"
        )
    return weights


def unfitted(row: Estimator, parameters: Mapping[str, Any], *, standardise: bool) -> Any:
    """Return the scikit-learn estimator, in a pipeline where it fits standardised inputs."""
    model = sklearn_class(row)(**parameters)
    return Pipeline([(SCALER, StandardScaler()), (ESTIMATOR, model)]) if standardise else model


def fitted(
    row: Estimator, parameters: Mapping[str, Any], rows: Rows, *, standardise: bool = False
) -> Any:
    """Return what ``unfitted`` makes, fitted; it may warn that it has not converged.

    Raises:
        CloisterError: scikit-learn cannot fit it.
    """
    model = unfitted(row, parameters, standardise=standardise)
    try:
        model.fit(rows.inputs, rows.answers)
    except ValueError as error:
        raise CloisterError(f"{row.name} could not be fitted: {error}") from None
    return model


def own_estimator(model: Any) -> Any:
    """Return the estimator of what ``unfitted`` makes."""
    return model[ESTIMATOR] if isinstance(model, Pipeline) else model


def parameter_prefix(model: Any) -> str:
    """Return what stands before the estimator's parameters in those of what ``unfitted`` makes."""
    return f"{ESTIMATOR}__" if isinstance(model, Pipeline) else ""


def weights_of(model: Any, prune: float = 0.0) -> LinearWeights:
    """Return the weights for inputs in [0, 1] of what ``fitted`` returns of a linear model.

    Args:
        model: fitted.
        prune: share of the inputs that get no weight, of those that are fitted: standardised ones
            count with their mean then.
    """
    own = own_estimator(model)
    weights = LinearWeights.of(own.coef_, own.intercept_).pruned(prune)
    if own is model:
        return weights
    scaler = model[SCALER]
    return weights.absorbing(1.0 / scaler.scale_, -scaler.mean_ / scaler.scale_)


def stopped_early(caught: list[warnings.WarningMessage]) -> int:
    """Return how many of these warnings are of a fit that stopped before it had converged."""
    return sum(issubclass(one.category, ConvergenceWarning) for one in caught)
