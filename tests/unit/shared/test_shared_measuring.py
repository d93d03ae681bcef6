"""How well a model predicts, against scikit-learn's own metrics."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    hinge_loss,
    log_loss,
    mean_absolute_error,
    mean_squared_error,
)

from cloister_shared.links import Link, class_indices, probabilities, values
from cloister_shared.measuring import LARGEST, measure, quality
from cloister_shared.weights import LinearWeights

INPUTS = np.random.default_rng(0).random((50, 4))


def weights_of(n_outputs: int) -> LinearWeights:
    generator = np.random.default_rng(n_outputs)
    return LinearWeights(
        5 * generator.normal(size=(n_outputs, 4)), generator.normal(size=n_outputs)
    )


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("meaning", ["logistic", "softmax", "modified Huber", "margin"])
def test_a_classification_is_measured_as_scikit_learn_does(n_outputs: int, meaning: Link) -> None:
    if meaning == "softmax" and n_outputs == 1:
        meaning = "softmax of pairs"
    weights = weights_of(n_outputs)
    classes = np.arange(max(n_outputs, 2))
    answers = np.random.default_rng(1).integers(0, len(classes), len(INPUTS))
    scores = INPUTS @ weights.coef.T + weights.intercept
    found = measure(weights, INPUTS, answers, meaning)
    assert found.examples == len(INPUTS)
    assert found.quality == accuracy_score(answers, class_indices(scores))
    if meaning == "margin":
        decisions = scores[:, 0] if n_outputs == 1 else scores
        assert found.loss == pytest.approx(
            hinge_loss(answers, decisions, labels=classes)
            if n_outputs > 1
            else np.maximum(0, 1 - (2 * answers - 1) * decisions).mean()
        )
    else:
        assert found.loss == pytest.approx(
            log_loss(answers, probabilities(scores, meaning), labels=classes)
        )


@pytest.mark.parametrize("meaning", ["identity", "exponential"])
def test_a_regression_is_measured_as_scikit_learn_does(meaning: Link) -> None:
    weights = weights_of(1)
    scores = INPUTS @ weights.coef.T + weights.intercept
    answers = np.random.default_rng(1).random(len(INPUTS))
    found = measure(weights, INPUTS, answers, meaning)
    predicted = values(scores, meaning)
    assert found.quality == pytest.approx(mean_absolute_error(answers, predicted))
    assert found.loss == pytest.approx(mean_squared_error(answers, predicted))
    assert quality(scores, answers, meaning) == found.quality


def test_what_no_float_holds_is_told_as_a_large_number() -> None:
    weights = LinearWeights(np.full((1, 4), 1e3), np.zeros(1))
    found = measure(weights, np.ones((2, 4)), np.zeros(2), "exponential")
    assert found.loss == pytest.approx(LARGEST)
    assert np.isfinite(found.quality)
