"""Fitting and measuring at one site: what it does with its rows, whoever asks and however."""

import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, log_loss

from cloister_client.data.shard import Sample, Shard
from cloister_shared.estimators import Estimator
from cloister_shared.links import Link, class_indices, link, probabilities
from cloister_shared.schema import DatasetSchema
from cloister_shared.weights import LinearWeights

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


@dataclass(frozen=True)
class Metrics:
    """Accuracy in [0, 1] and mean cross-entropy in nats, over ``examples`` rows."""

    examples: int
    accuracy: float
    loss: float


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
        CloisterError: the fit gave values that are not finite.
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
        metrics=measure(received, shard.validation, task.link(shard.data)) if task.report else None,
    )


def fit(
    estimator: Estimator,
    parameters: dict[str, Any],
    received: LinearWeights,
    sample: Sample,
    data: DatasetSchema,
) -> LinearWeights:
    """Fit from the received weights on with the full class list.

    A class of which the site has no row keeps the row of weights it received: the site knows
    nothing about it. Where one of only two classes is absent, the single row is kept.

    Args:
        estimator: which scikit-learn class to fit.
        parameters: of its constructor.
        received: the global model.
        sample: the rows to fit.
        data: the schema, for the class list.
    """
    n_classes = len(data.classes)
    absent = np.setdiff1d(np.arange(n_classes), sample.answers)
    if n_classes == 2 and absent.size:
        return received
    features = sample.features
    if absent.size:
        features = np.vstack([features, np.zeros((absent.size, data.n_inputs))])
    classes = np.concatenate([sample.answers, absent])
    weights = np.ones(len(classes))
    weights[len(sample.answers) :] = ABSENT_CLASS_WEIGHT

    module, name = estimator.sklearn_class.rsplit(".", 1)
    model = getattr(import_module(module), name)(**parameters)
    model.classes_ = np.arange(n_classes)
    model.coef_, model.intercept_ = received.coef, received.intercept
    with warnings.catch_warnings():
        # A round is a few iterations on purpose; the rounds converge, not the fit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(features, classes, sample_weight=weights)
    coef, intercept = model.coef_, model.intercept_
    if n_classes > 2:
        coef[absent], intercept[absent] = received.coef[absent], received.intercept[absent]
    return LinearWeights(coef, intercept)


def measure(weights: LinearWeights, sample: Sample, meaning: Link) -> Metrics:
    """Measure a model, whose scores have this meaning, on a site's rows."""
    scores = sample.features @ weights.coef.T + weights.intercept
    class_probabilities = probabilities(scores, meaning)
    return Metrics(
        examples=len(sample.answers),
        accuracy=float(accuracy_score(sample.answers, class_indices(scores))),
        loss=float(
            log_loss(
                sample.answers, class_probabilities, labels=np.arange(class_probabilities.shape[1])
            )
        ),
    )
