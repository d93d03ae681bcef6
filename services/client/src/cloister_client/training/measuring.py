"""How a model does on a site's rows."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    accuracy_score,
    hinge_loss,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
)

from cloister_client.data.shard import Sample
from cloister_shared.links import Link, class_indices, has_probabilities, probabilities, values
from cloister_shared.weights import LinearWeights

LARGEST = 1e300
"""What a squared error that no float holds is told as."""


@dataclass(frozen=True)
class Metrics:
    """What a site tells of a model, over ``examples`` rows."""

    examples: int
    quality: float
    """Accuracy in [0, 1]; of a regression the mean absolute error, in the target's unit."""
    loss: float
    """Mean cross-entropy in nats; mean hinge loss of a model without probabilities; mean squared
    error of a regression."""


def measure(weights: LinearWeights, sample: Sample, meaning: Link) -> Metrics:
    """Measure a model, whose scores have this meaning, on a site's rows."""
    scores = sample.features @ weights.coef.T + weights.intercept
    if meaning in ("identity", "exponential"):
        # A model on its way can predict what no float holds.
        with np.errstate(over="ignore"):
            predicted = np.clip(values(scores, meaning), -np.sqrt(LARGEST), np.sqrt(LARGEST))
        quality = mean_absolute_error(sample.answers, predicted)
        loss = mean_squared_error(sample.answers, predicted)
    else:
        quality = accuracy_score(sample.answers, class_indices(scores))
        loss = _classification_loss(sample, scores, meaning)
    return Metrics(len(sample.answers), float(quality), float(loss))


def _classification_loss(sample: Sample, scores: npt.NDArray[np.float64], meaning: Link) -> float:
    classes = np.arange(max(scores.shape[1], 2))
    if has_probabilities(meaning):
        found = log_loss(sample.answers, probabilities(scores, meaning), labels=classes)
    elif len(classes) == 2:
        found = np.maximum(0.0, 1.0 - (2 * sample.answers - 1) * scores[:, 0]).mean()
    else:
        found = hinge_loss(sample.answers, scores, labels=classes)
    return float(found)
