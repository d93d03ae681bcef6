"""How well a model predicts rows: what a card says of it, and what sites tell of it."""

from dataclasses import dataclass

import numpy as np

from cloister_shared.links import (
    Floats,
    Link,
    class_indices,
    has_probabilities,
    probabilities,
    values,
)
from cloister_shared.models import Model
from cloister_shared.schema import Answers

LARGEST = 1e300
"""What a squared error that no float holds is told as."""


@dataclass(frozen=True)
class Metrics:
    """What is told of a model, over ``examples`` rows."""

    examples: int
    quality: float
    """Accuracy in [0, 1]; of a regression the mean absolute error, in the target's unit."""
    loss: float
    """Mean cross-entropy in nats; mean hinge loss of a model without probabilities; mean squared
    error of a regression."""


def measure(model: Model, inputs: Floats, answers: Answers, meaning: Link) -> Metrics:
    """Measure a model on rows.

    Args:
        model: in floating point.
        inputs: in [0, 1], shape (n, n_inputs), at least one row.
        answers: positions of classes, or targets, shape (n,).
        meaning: of the model's scores.
    """
    scores = model.scores(inputs)
    return Metrics(len(answers), quality(scores, answers, meaning), _loss(scores, answers, meaning))


def quality(scores: Floats, answers: Answers, meaning: Link) -> float:
    """Return the accuracy, or of a regression the mean absolute error, as in ``Metrics``.

    Args:
        scores: shape (n, n_outputs).
        answers: positions of classes, or targets, shape (n,).
        meaning: of the scores.
    """
    if _is_regression(meaning):
        return float(np.abs(_predicted(scores, meaning) - answers).mean())
    return float((class_indices(scores) == answers).mean())


def _loss(scores: Floats, answers: Answers, meaning: Link) -> float:
    if _is_regression(meaning):
        return float(np.square(_predicted(scores, meaning) - answers).mean())
    positions = answers.astype(np.int64)
    rows = np.arange(len(positions))
    if has_probabilities(meaning):
        likely = probabilities(scores, meaning)[rows, positions]
        # As scikit-learn does it: a class that was held for impossible costs much, not infinity.
        return float(-np.log(np.maximum(likely, np.finfo(np.float64).eps)).mean())
    each = np.hstack([-scores, scores]) / 2 if scores.shape[1] == 1 else scores.copy()
    own = each[rows, positions]
    each[rows, positions] = -np.inf
    return float(np.maximum(0.0, 1.0 - (own - each.max(axis=1))).mean())


def _is_regression(meaning: Link) -> bool:
    return meaning in ("identity", "exponential")


def _predicted(scores: Floats, meaning: Link) -> Floats:
    # A model on its way can predict what no float holds.
    with np.errstate(over="ignore"):
        predicted: Floats = np.clip(values(scores, meaning), -np.sqrt(LARGEST), np.sqrt(LARGEST))
    return predicted
