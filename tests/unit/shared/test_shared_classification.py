"""Scores to probabilities and classes, against scikit-learn."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression

from cloister_shared.classification import class_indices, probabilities


def fitted(n_classes: int) -> tuple[LogisticRegression, np.ndarray[Any, Any]]:
    """A model and rows for it, some of them far from what it was fitted on."""
    generator = np.random.default_rng(n_classes)
    rows = generator.normal(size=(60, 5))
    model = LogisticRegression(C=10.0).fit(rows, np.arange(60) % n_classes)
    return model, np.vstack([rows, 100 * rows])


@pytest.mark.parametrize("n_classes", [2, 3, 4, 10])
def test_they_equal_scikit_learn(n_classes: int) -> None:
    model, rows = fitted(n_classes)
    scores = model.decision_function(rows).reshape(len(rows), -1)
    ours = probabilities(scores)
    assert ours.shape == (len(rows), n_classes)
    np.testing.assert_allclose(ours, model.predict_proba(rows), rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(class_indices(scores), model.predict(rows))


@given(
    st.integers(1, 5).flatmap(
        lambda n_outputs: arrays(np.float64, (3, n_outputs), elements=st.floats(-1e300, 1e300))
    )
)
def test_probabilities_of_any_scores_sum_to_1_and_agree_with_the_class(
    scores: np.ndarray[Any, Any],
) -> None:
    result = probabilities(scores)
    assert ((result >= 0) & (result <= 1)).all()
    np.testing.assert_allclose(result.sum(axis=1), 1.0, rtol=1e-12)
    chosen = result[np.arange(len(result)), class_indices(scores)]
    np.testing.assert_array_equal(chosen, result.max(axis=1))


def test_equal_scores_give_the_first_class_as_scikit_learn_does() -> None:
    np.testing.assert_array_equal(class_indices(np.array([[1.0, 2.0, 2.0]])), [1])
    model, _ = fitted(2)
    model.coef_, model.intercept_ = np.zeros((1, 5)), np.zeros(1)
    assert class_indices(np.zeros((1, 1)))[0] == model.predict(np.zeros((1, 5)))[0] == 0
