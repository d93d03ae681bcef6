"""Boosting at one site: trees that improve on those of all sites so far, as XGBoost grows them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost

from cloister_client.data.shard import Sample
from cloister_client.training.fitting import Task
from cloister_shared.boosting import boosted_trees, joined, margin
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import sklearn_class
from cloister_shared.links import default_objective
from cloister_shared.schema import DatasetSchema
from cloister_shared.trees import Trees

Floats = npt.NDArray[np.float64]

ANY_BASE = 0.5
"""A prediction that every objective allows. XGBoost is told where to begin row by row, and with
this it does not look for a base of its own."""
SMALLEST_MEAN = 1e-6
"""Of targets whose logarithm is to be finite; XGBoost's own kRtEps."""


def grow(
    task: Task, server_round: int, received: Trees, sample: Sample, data: DatasetSchema
) -> Trees:
    """Return new trees, and in the first round what they are added to; not the received ones.

    Args:
        task: with an estimator of boosted trees; its ``n_estimators`` is of this round.
        server_round: from 1; it varies which rows and inputs are drawn, where some are.
        received: the global model, without a tree in the first round.
        sample: the rows to fit.
        data: their schema.

    Raises:
        CloisterError: XGBoost refuses the parameters, or the site has no row.
    """
    parameters, rounds = _parameters(task, server_round, data)
    base = np.zeros(data.n_outputs)
    if not received.n_trees:
        base += _base(task, sample, data)
    margins = base + received.scores(sample.features)
    rows = xgboost.DMatrix(
        sample.features.astype(np.float32),
        label=sample.answers,
        base_margin=margins if data.n_outputs > 1 else margins[:, 0],
    )
    try:
        booster = xgboost.train(parameters, rows, num_boost_round=rounds)
    except xgboost.core.XGBoostError as error:
        raise CloisterError(f"{task.estimator.name} could not be fitted: {error}") from None
    grown = joined([boosted_trees(booster.save_raw("json"))], base)
    grown.check_form(data)
    return grown


def _parameters(task: Task, server_round: int, data: DatasetSchema) -> tuple[dict[str, Any], int]:
    model = sklearn_class(task.estimator)(**task.parameters)
    n_classes = len(data.classes)
    # As XGBoost's own estimators do it.
    objective = task.parameters.get("objective")
    if objective is None or (n_classes > 2 and objective == "binary:logistic"):
        objective = default_objective(n_classes)
    parameters = model.get_xgb_params() | {
        "objective": objective,
        "base_score": ANY_BASE,
        "random_state": (task.parameters.get("random_state") or 0) + server_round,
    }
    if data.n_outputs > 1:
        parameters["num_class"] = data.n_outputs
    return parameters, int(model.get_num_boosting_rounds())


def _base(task: Task, sample: Sample, data: DatasetSchema) -> float:
    """Return the score that all rows begin from: of two classes even, of a regression the mean."""
    meaning = task.link(data)
    given = task.parameters.get("base_score")
    if given is None and data.target is None:
        return 0.0
    mean = float(np.mean(sample.answers)) if given is None else float(given)
    if meaning == "exponential":
        mean = max(mean, SMALLEST_MEAN)
    return float(margin(np.array(mean), meaning))
