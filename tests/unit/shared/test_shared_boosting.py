"""Boosted trees as arrays: XGBoost's own margins, joined models, and no array that could harm."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st

from cloister_shared.boosting import boosted_trees, joined, no_trees
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.links import OBJECTIVES, link, probabilities, values
from cloister_shared.models import check_exchanged, from_arrays, to_arrays
from cloister_shared.schema import DatasetSchema, Feature, Target
from cloister_shared.trees import Trees
from cloister_shared.weights import LinearWeights

N_INPUTS = 4


def schema_of(n_classes: int) -> DatasetSchema:
    return DatasetSchema(
        dataset="made",
        task="classification" if n_classes else "regression",
        features=tuple(Feature(name=f"f{i}", low=0, high=1) for i in range(N_INPUTS)),
        classes=tuple(range(n_classes)),
        target=None if n_classes else Target(low=0, high=10),
    )


def made(n_classes: int, seed: int = 0) -> tuple[Any, Any]:
    """Rows whose values repeat, so that some lie on thresholds, and their answers."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 12, (150, N_INPUTS)) / 11
    noisy = 3 * rows[:, 0] + rows[:, 1] ** 2 + generator.normal(size=len(rows)) / 4
    if not n_classes:
        return rows, 1 + np.abs(noisy)
    return rows, np.searchsorted(np.quantile(noisy, np.arange(1, n_classes) / n_classes), noisy)


def fitted(objective: str, n_classes: int, seed: int = 0, **parameters: Any) -> tuple[Any, Any]:
    rows, answers = made(n_classes, seed)
    known = xgboost.XGBClassifier if n_classes else xgboost.XGBRegressor
    model = known(objective=objective, n_estimators=3, random_state=seed, **parameters)
    return model.fit(rows, answers), rows


KINDS = [
    *((name, 0) for name, meaning in OBJECTIVES.items() if meaning in ("identity", "exponential")),
    ("binary:logistic", 2),
    ("binary:logistic", 3),
    ("multi:softprob", 4),
    ("multi:softmax", 3),
]


@pytest.mark.parametrize(("objective", "n_classes"), KINDS)
@given(
    seed=st.integers(0, 20),
    depth=st.integers(1, 4),
    gamma=st.sampled_from([0.0, 1.0, 20.0]),
    subsample=st.sampled_from([1.0, 0.5]),
)
def test_scores_are_xgboosts_margins(
    objective: str, n_classes: int, seed: int, depth: int, gamma: float, subsample: float
) -> None:
    model, rows = fitted(
        objective, n_classes, seed, max_depth=depth, gamma=gamma, subsample=subsample
    )
    trees = boosted_trees(model.get_booster().save_raw("json"))
    trees.check_form(schema_of(n_classes))
    scores = trees.scores(rows)
    margins = np.reshape(model.predict(rows, output_margin=True), scores.shape)
    # XGBoost adds up in single precision.
    np.testing.assert_allclose(scores, margins, rtol=1e-5, atol=1e-6)
    meaning = link(type(model).__name__, {"objective": objective}, n_classes)
    if n_classes and objective != "multi:softmax":
        expected = model.predict_proba(rows)
        np.testing.assert_allclose(probabilities(scores, meaning), expected, atol=1e-6)
    elif not n_classes:
        np.testing.assert_allclose(values(scores, meaning), model.predict(rows), rtol=1e-5)


def test_a_stated_base_is_the_one_of_the_scores() -> None:
    model, rows = fitted("count:poisson", 0, base_score=4.0)
    trees = boosted_trees(model.get_booster().save_raw("json"))
    assert trees.base is not None
    np.testing.assert_allclose(trees.base, [np.log(4.0)])
    margins = model.predict(rows, output_margin=True)
    np.testing.assert_allclose(trees.scores(rows)[:, 0], margins, rtol=1e-5)


def test_other_objectives_are_refused() -> None:
    rows, answers = made(0)
    model = xgboost.XGBRegressor(objective="reg:absoluteerror", n_estimators=1).fit(rows, answers)
    with pytest.raises(CloisterError, match="objective reg:absoluteerror is none of"):
        boosted_trees(model.get_booster().save_raw("json"))


def grown(n_classes: int, seed: int = 0) -> Trees:
    objective = "multi:softprob" if n_classes > 2 else "reg:squarederror"
    model, _ = fitted(objective, n_classes, seed, max_depth=2)
    return boosted_trees(model.get_booster().save_raw("json"))


@pytest.mark.parametrize("n_classes", [0, 3])
def test_joined_they_answer_the_sum(n_classes: int) -> None:
    rows, _ = made(n_classes)
    parts = [grown(n_classes, seed) for seed in (1, 2)]
    base = np.arange(1.0, 1 + parts[0].n_outputs)
    whole = joined([no_trees(base), *parts], base)
    whole.check(schema_of(n_classes))
    assert whole.n_rounds == 6
    expected = base + sum(part.scores(rows) - np.array(part.base) for part in parts)
    np.testing.assert_allclose(whole.scores(rows), expected, atol=1e-12)
    # Ranks among thresholds answer the same.
    ranked = whole.ranked()
    assert ranked.trees.base is whole.base


def test_without_a_tree_it_answers_its_base_and_is_no_model_to_publish() -> None:
    none = no_trees(np.array([1.0, 2.0, 3.0]))
    check_exchanged(none, schema_of(3))
    assert none.scores(np.zeros((2, N_INPUTS))).tolist() == [[1, 2, 3]] * 2
    assert none.n_rounds == none.depth == none.n_leaves == 0
    with pytest.raises(CloisterError, match="there is no tree"):
        none.check(schema_of(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda trees: replace(trees, base=np.zeros(2)), "must be 3 finite numbers"),
        (lambda trees: replace(trees, base=np.full(3, np.nan)), "must be 3 finite numbers"),
        (lambda trees: next(trees.each()), "are not boosted"),
        (
            lambda trees: replace(next(trees.each()), base=trees.base),
            "1 boosted trees are not as many for each of 3 outputs",
        ),
        (lambda trees: replace(trees, value=np.repeat(trees.value, 3, axis=1)), "has shape"),
        (lambda trees: replace(trees, value=trees.value + np.inf), "not finite"),
        (lambda trees: replace(trees, feature=trees.feature + N_INPUTS), "compare inputs"),
        (lambda trees: replace(trees, left=trees.left[::-1].copy()), "make trees|one child"),
        (lambda trees: replace(trees, roots=trees.roots[:0]), "begin one after the other"),
    ],
)
def test_what_is_no_boosted_model_of_these_data_is_refused(
    change: Callable[[Trees], Trees], message: str
) -> None:
    with pytest.raises(CloisterError, match=message):
        check_exchanged(change(grown(3)), schema_of(3))


@pytest.mark.parametrize("n_classes", [0, 3])
def test_its_arrays_are_all_of_it(n_classes: int) -> None:
    trees = grown(n_classes)
    again = from_arrays(to_arrays(trees))
    assert isinstance(again, Trees)
    for name, array in trees.arrays().items():
        np.testing.assert_array_equal(getattr(again, name), array)


@pytest.mark.parametrize(
    "name", ["roots", "left", "right", "feature", "threshold", "value", "base"]
)
def test_arrays_of_another_kind_are_refused(name: str) -> None:
    arrays = grown(0).arrays()
    with pytest.raises(TypeError):
        from_arrays(arrays | {name: arrays[name].astype(np.complex128)})


def test_linear_weights_are_known_by_their_arrays() -> None:
    weights = LinearWeights(np.eye(3, N_INPUTS), np.ones(3))
    again = from_arrays(to_arrays(weights))
    assert isinstance(again, LinearWeights)
    np.testing.assert_array_equal(again.coef, weights.coef)
    with pytest.raises(KeyError):
        from_arrays({"coef": weights.coef})
    with pytest.raises(CloisterError, match="coef has shape"):
        check_exchanged(weights, schema("digits"))
