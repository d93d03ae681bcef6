"""Fitting at one site: what it does with its rows, whoever asks and however."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning

from cloister_client.data.shard import Sample, Shard
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator, sklearn_class
from cloister_shared.links import Link, link
from cloister_shared.measuring import Metrics, measure
from cloister_shared.models import Model
from cloister_shared.schema import Answers, DatasetSchema
from cloister_shared.sums import Sums
from cloister_shared.weights import LinearWeights

Floats = npt.NDArray[np.float64]

ABSENT_CLASS_WEIGHT = 1e-9
"""Of the zero row that stands for a class a site lacks, so that the fit knows all classes."""


@dataclass(frozen=True)
class Task:
    """What a site is asked to train."""

    estimator: Estimator
    parameters: dict[str, Any]
    """Of the estimator's constructor."""
    clipping_norm: float | None = None
    """Largest l2 norm of the update, coefficients and intercepts as one vector; None: any."""
    report: bool = True
    """Whether the number of rows and the metrics of the received model are told."""

    def link(self, data: DatasetSchema) -> Link:
        """Return what the scores of a model of this task mean."""
        return link(self.estimator.name, self.parameters, len(data.classes))

    def measure(self, model: Model, shard: Shard) -> Metrics:
        """Measure a model of this task on a site's validation rows."""
        rows = shard.validation
        return measure(model, rows.features, rows.answers, self.link(shard.data))


@dataclass(frozen=True)
class Trained:
    """What a site found."""

    weights: LinearWeights
    """The received ones plus ``update``."""
    update: LinearWeights
    """By how much the weights moved, clipped."""
    examples: int
    """Weight of the update in a mean: the rows fitted, or 1 where that is not told."""
    metrics: Metrics | None
    """Of the received model on the validation rows, where they are told."""


def train(task: Task, received: LinearWeights, shard: Shard) -> Trained:
    """Measure the received model, fit from it on, and clip the update.

    Raises:
        CloisterError: the fit gave values that are not finite, or the site cannot fit this
            estimator.
    """
    fitted = fit(task.estimator, task.parameters, received, shard.train, shard.data)
    fitted.check(shard.data)
    update = fitted - received
    if task.clipping_norm is not None and update.l2_norm > task.clipping_norm:
        update = update.clipped(task.clipping_norm)
        fitted = received + update
    return Trained(
        weights=fitted,
        update=update,
        examples=len(shard.train.answers) if task.report else 1,
        metrics=task.measure(received, shard) if task.report else None,
    )


def sums_of(shard: Shard) -> Sums:
    """Return the sums of the rows that a site fits.

    Raises:
        CloisterError: the schema has no target.
    """
    if shard.data.target is None:
        raise CloisterError(f"{shard.data.dataset} has classes, and no target to sum")
    targets = shard.train.answers.astype(np.float64)
    return Sums.of(shard.train.features, targets, shard.data.target)


def fit(
    estimator: Estimator,
    parameters: dict[str, Any],
    received: LinearWeights,
    sample: Sample,
    data: DatasetSchema,
) -> LinearWeights:
    """Fit, from the received weights on if the estimator can, with the full class list.

    A class of which the site has no row keeps the row of weights it received: the site knows
    nothing about it. Where one of only two classes is absent, the single row is kept.

    Args:
        estimator: which scikit-learn class to fit.
        parameters: of its constructor.
        received: the global model.
        sample: the rows to fit.
        data: the schema, for the class list.

    Raises:
        CloisterError: the site lacks a class, and the estimator begins from nothing.
    """
    model = sklearn_class(estimator)(**parameters)
    begun = estimator.aggregation == "rounds" and any(map(np.any, _arrays(received)))
    with warnings.catch_warnings():
        # A round is a few iterations on purpose; the rounds converge, not the fit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if data.task == "regression":
            _fit(model, received if begun else None, sample.features, sample.answers, None)
            coef, intercept = np.ravel(model.coef_)[None, :], np.ravel(model.intercept_)
            return LinearWeights(coef, _one_a_row(intercept, coef))
        return _fit_classes(model, estimator, received, sample, data)


def _fit_classes(
    model: Any,
    estimator: Estimator,
    received: LinearWeights,
    sample: Sample,
    data: DatasetSchema,
) -> LinearWeights:
    n_classes = len(data.classes)
    absent = np.setdiff1d(np.arange(n_classes), sample.answers)
    if absent.size and estimator.aggregation == "mean":
        raise CloisterError(
            f"this site has no row of some class, and {estimator.name} is fitted once, from "
            "nothing: a mean would take what this site does not know for knowledge; train with "
            "LogisticRegression or SGDClassifier, or without this site"
        )
    if n_classes == 2 and absent.size:
        return received
    features = sample.features
    if absent.size:
        features = np.vstack([features, np.zeros((absent.size, data.n_inputs))])
    classes = np.concatenate([sample.answers, absent])
    weights = np.ones(len(classes))
    weights[len(sample.answers) :] = ABSENT_CLASS_WEIGHT
    model.classes_ = np.arange(n_classes)
    begun = received if estimator.aggregation == "rounds" else None
    _fit(model, begun, features, classes, weights)
    coef = model.coef_
    intercept = _one_a_row(np.ravel(model.intercept_), coef)
    if n_classes > 2:
        coef[absent], intercept[absent] = received.coef[absent], received.intercept[absent]
    return LinearWeights(coef, intercept)


def _fit(
    model: Any,
    received: LinearWeights | None,
    features: Floats,
    answers: Answers,
    weights: Floats | None,
) -> None:
    """Fit from the received weights on, or from nothing."""
    if received is None:
        model.fit(features, answers, sample_weight=weights)
        return
    coef, intercept = _arrays(received)
    if model.__class__.__name__.endswith("Regressor"):
        coef = coef[0]
    if model.__class__.__name__.startswith("SGD"):
        model.fit(
            features, answers, coef_init=coef, intercept_init=intercept, sample_weight=weights
        )
        return
    model.coef_ = coef
    model.intercept_ = intercept if coef.ndim == 2 else float(intercept[0])
    model.fit(features, answers, sample_weight=weights)


def _arrays(weights: LinearWeights) -> tuple[Floats, Floats]:
    # scikit-learn may go on in the very arrays that it is given.
    return weights.coef.copy(), weights.intercept.copy()


def _one_a_row(intercept: Floats, coef: Floats) -> Floats:
    # Without an intercept it is a single 0, whatever the number of rows.
    return np.broadcast_to(intercept, len(coef)).astype(np.float64)
