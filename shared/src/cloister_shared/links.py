"""What the scores of a model mean: probabilities, classes or predicted values.

As scikit-learn 1.5 does it, from the estimator and its parameters alone: whoever has a model card
turns scores into the same answers.
"""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError

Floats = npt.NDArray[np.float64]

Link = Literal[
    "softmax",
    "softmax of pairs",
    "logistic",
    "modified Huber",
    "shares",
    "margin",
    "identity",
    "exponential",
]
"""Of scores s, where there are k classes:

- ``softmax``: multinomial logistic regression; k > 2.
- ``softmax of pairs``: the same for two classes, whose scores are -s and s.
- ``logistic``: of each class the logistic function, scaled to sum to 1.
- ``modified Huber``: of each class (clip(s, -1, 1) + 1) / 2 (Zadrozny and Elkan, 2002), scaled to
  sum to 1, and uniform where all are 0.
- ``shares``: of a tree or a forest, the probabilities themselves, of two classes too.
- ``margin``: distances from hyperplanes, which no probabilities are defined for.
- ``identity`` and ``exponential``: of a regression, the predicted value.
"""

OBJECTIVES: Mapping[str, Link] = {
    "binary:logistic": "logistic",
    "multi:softprob": "softmax",
    "multi:softmax": "softmax",
    "reg:squarederror": "identity",
    "count:poisson": "exponential",
    "reg:gamma": "exponential",
    "reg:tweedie": "exponential",
}
"""What the sum of boosted trees means, by XGBoost's name of the loss that they were grown for:
https://xgboost.readthedocs.io/en/release_3.2.0/parameter.html#learning-task-parameters"""


def link(estimator: str, parameters: Mapping[str, Any], n_classes: int) -> Link:
    """Return what a fitted estimator's scores mean.

    Args:
        estimator: its scikit-learn class name.
        parameters: of its constructor; those that are missing have scikit-learn's default.
        n_classes: 0 for a regression.

    Raises:
        CloisterError: it is none of those that are known.
    """
    found: Link
    match estimator:
        case "LogisticRegression":
            found = _of_logistic_regression(parameters, n_classes)
        case "SGDClassifier":
            found = _of_sgd_classifier(parameters)
        case "LinearSVC":
            found = "margin"
        case "DecisionTreeClassifier" | "RandomForestClassifier":
            found = "shares"
        case "DecisionTreeRegressor" | "RandomForestRegressor":
            found = "identity"
        case "XGBClassifier" | "XGBRegressor":
            found = _of_boosting(parameters, n_classes)
        case "PoissonRegressor" | "GammaRegressor":
            found = "exponential"
        case "TweedieRegressor":
            kind = parameters.get("link", "auto")
            if kind == "auto":
                kind = "identity" if parameters.get("power", 0.0) <= 0 else "log"
            found = "identity" if kind == "identity" else "exponential"
        case "LinearRegression" | "Ridge" | "Lasso" | "ElasticNet" | "LinearSVR" | "SGDRegressor":
            found = "identity"
        case _:
            raise CloisterError(f"{estimator} is no estimator that Cloister knows")
    return found


def _of_boosting(parameters: Mapping[str, Any], n_classes: int) -> Link:
    objective = parameters.get("objective") or default_objective(n_classes)
    try:
        found: Link = OBJECTIVES[objective]
    except KeyError:
        raise CloisterError(
            f"the objective of boosted trees must be one of {', '.join(OBJECTIVES)}"
        ) from None
    # XGBoost itself takes the one for two classes for any number.
    return "softmax" if n_classes > 2 else found


def default_objective(n_classes: int) -> str:
    """Return the objective that XGBoost has where none is set.

    Args:
        n_classes: 0 for a regression.
    """
    if not n_classes:
        return "reg:squarederror"
    return "multi:softprob" if n_classes > 2 else "binary:logistic"


def _of_sgd_classifier(parameters: Mapping[str, Any]) -> Link:
    loss = parameters.get("loss", "hinge")
    if loss == "log_loss":
        return "logistic"
    if loss == "modified_huber":
        return "modified Huber"
    raise CloisterError("the loss of an SGDClassifier must be log_loss or modified_huber")


def _of_logistic_regression(parameters: Mapping[str, Any], n_classes: int) -> Link:
    kind = parameters.get("multi_class", "auto")
    if kind in ("auto", "deprecated"):
        one_vs_rest = n_classes <= 2 or parameters.get("solver") == "liblinear"
    else:
        one_vs_rest = kind == "ovr"
    if one_vs_rest:
        return "logistic"
    return "softmax" if n_classes > 2 else "softmax of pairs"


def has_probabilities(meaning: Link) -> bool:
    """Return whether scores of this meaning give class probabilities."""
    return meaning not in ("margin", "identity", "exponential")


def probabilities(scores: Floats, meaning: Link) -> Floats:
    """Turn the scores of a classifier into class probabilities.

    Args:
        scores: finite, shape (n, 1) for two classes of a linear model, else (n, n_classes).
        meaning: of the scores.

    Returns:
        Shape (n, n_classes), rows summing to 1.

    Raises:
        CloisterError: there are none of this meaning.
    """
    if meaning == "shares":
        return scores
    # Both of a pair, so that the smaller one is not lost in 1 - p.
    each = np.hstack([-scores, scores]) if _is_pair(scores) else scores
    match meaning:
        case "softmax" | "softmax of pairs":
            return _scaled(np.exp(each - each.max(axis=1, keepdims=True)))
        case "logistic":
            return _scaled(_logistic(each))
        case "modified Huber":
            return _scaled((np.clip(each, -1, 1) + 1) / 2)
    raise CloisterError("this model's scores give no probabilities")


def class_indices(scores: Floats) -> npt.NDArray[np.int64]:
    """Position of the predicted class, shape (n,): the first where scores are equal.

    Args:
        scores: shape (n, 1) for two classes of a linear model, else (n, n_classes).
    """
    if _is_pair(scores):
        return (scores[:, 0] > 0).astype(np.int64)
    indices: npt.NDArray[np.int64] = np.argmax(scores, axis=1).astype(np.int64)
    return indices


def values(scores: Floats, meaning: Link) -> Floats:
    """Turn the scores of a regression, shape (n, 1), into predicted values, shape (n,)."""
    found: Floats = np.exp(scores[:, 0]) if meaning == "exponential" else scores[:, 0].copy()
    return found


def _is_pair(scores: Floats) -> bool:
    return scores.shape[1] == 1


def _logistic(scores: Floats) -> Floats:
    # exp of the negative magnitude cannot overflow.
    small = np.exp(-np.abs(scores))
    result: Floats = np.where(scores >= 0, 1.0, small) / (1.0 + small)
    return result


def _scaled(likelihoods: Floats) -> Floats:
    """Scale rows of numbers from 0 to sum to 1; one of zeros alone becomes uniform."""
    sums = likelihoods.sum(axis=1, keepdims=True)
    result: Floats = np.where(sums > 0, likelihoods, 1.0) / np.where(
        sums > 0, sums, likelihoods.shape[1]
    )
    return result
