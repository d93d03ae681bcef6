"""Scores to probabilities, classes and values, against scikit-learn."""

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS, estimator, sklearn_class
from cloister_shared.links import (
    Link,
    class_indices,
    has_probabilities,
    link,
    probabilities,
    values,
)

CLASSIFIERS: list[tuple[str, dict[str, Any]]] = [
    ("LogisticRegression", {"C": 10.0}),
    ("LogisticRegression", {"multi_class": "ovr"}),
    ("LogisticRegression", {"multi_class": "multinomial"}),
    ("LogisticRegression", {"solver": "liblinear"}),
    ("SGDClassifier", {"loss": "log_loss"}),
    ("SGDClassifier", {"loss": "modified_huber"}),
    ("LinearSVC", {}),
]
REGRESSORS: list[tuple[str, dict[str, Any]]] = [
    *(
        (row.name, {})
        for row in ESTIMATORS.values()
        if row.task == "regression" and row.family == "linear"
    ),
    ("TweedieRegressor", {"power": 1.5}),
    ("TweedieRegressor", {"power": 1.5, "link": "identity"}),
    ("TweedieRegressor", {"power": 0, "link": "log"}),
]
LINKS: list[Link] = ["softmax", "softmax of pairs", "logistic", "modified Huber"]


def fitted(name: str, parameters: dict[str, Any], n_classes: int) -> tuple[Any, Any]:
    """A model and rows for it, some of them far from what it was fitted on."""
    generator = np.random.default_rng(n_classes)
    rows = generator.normal(size=(60, 5))
    answers = np.arange(60) % n_classes if n_classes else 1.0 + generator.random(60)
    model = sklearn_class(estimator(name))(**parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, answers)
    return model, np.vstack([rows, 5 * rows])


@pytest.mark.parametrize("n_classes", [2, 3, 4, 10])
@pytest.mark.parametrize(("name", "parameters"), CLASSIFIERS)
def test_classes_and_probabilities_equal_scikit_learn(
    name: str, parameters: dict[str, Any], n_classes: int
) -> None:
    model, rows = fitted(name, parameters, n_classes)
    meaning = link(name, parameters, n_classes)
    scores = model.decision_function(rows).reshape(len(rows), -1)
    np.testing.assert_array_equal(class_indices(scores), model.predict(rows))
    assert has_probabilities(meaning) == hasattr(model, "predict_proba")
    if has_probabilities(meaning):
        ours = probabilities(scores, meaning)
        assert ours.shape == (len(rows), n_classes)
        np.testing.assert_allclose(ours, model.predict_proba(rows), rtol=1e-10, atol=1e-15)
    else:
        with pytest.raises(CloisterError, match="no probabilities"):
            probabilities(scores, meaning)


@pytest.mark.parametrize(("name", "parameters"), REGRESSORS)
def test_values_equal_scikit_learn(name: str, parameters: dict[str, Any]) -> None:
    model, rows = fitted(name, parameters, 0)
    scores = (rows @ np.ravel(model.coef_) + model.intercept_).reshape(-1, 1)
    ours = values(scores, link(name, parameters, 0))
    np.testing.assert_allclose(ours, model.predict(rows), rtol=1e-12)


def test_other_estimators_are_refused() -> None:
    with pytest.raises(CloisterError, match="GaussianNB is no estimator"):
        link("GaussianNB", {}, 2)


@pytest.mark.parametrize("meaning", LINKS)
@given(
    scores=st.integers(1, 5).flatmap(
        lambda n_outputs: arrays(np.float64, (3, n_outputs), elements=st.floats(-1e300, 1e300))
    )
)
def test_probabilities_of_any_scores_sum_to_1_and_agree_with_the_class(
    meaning: Link, scores: np.ndarray[Any, Any]
) -> None:
    result = probabilities(scores, meaning)
    assert ((result >= 0) & (result <= 1)).all()
    np.testing.assert_allclose(result.sum(axis=1), 1.0, rtol=1e-12)
    chosen = result[np.arange(len(result)), class_indices(scores)]
    np.testing.assert_array_equal(chosen, result.max(axis=1))


def test_equal_scores_give_the_first_class_as_scikit_learn_does() -> None:
    np.testing.assert_array_equal(class_indices(np.array([[1.0, 2.0, 2.0]])), [1])
    model, _ = fitted("LogisticRegression", {}, 2)
    model.coef_, model.intercept_ = np.zeros((1, 5)), np.zeros(1)
    assert class_indices(np.zeros((1, 1)))[0] == model.predict(np.zeros((1, 5)))[0] == 0
