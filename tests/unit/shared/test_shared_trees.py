"""Trees as arrays: the same answers as scikit-learn's, and no array that could harm a reader."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_shared.boosting import trees_of
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS, check_leaves, sklearn_class
from cloister_shared.links import class_indices, link, probabilities, values
from cloister_shared.measuring import measure
from cloister_shared.schema import DatasetSchema, Feature, Target
from cloister_shared.trees import Trees, ranks

NAMES = [row.name for row in ESTIMATORS.values() if row.family == "tree"]
N_INPUTS = 4
FOREST = "RandomForestClassifier"


def schema_of(name: str, n_classes: int = 3) -> DatasetSchema:
    is_regression = ESTIMATORS[name].task == "regression"
    return DatasetSchema(
        dataset="made",
        task=ESTIMATORS[name].task,
        features=tuple(Feature(name=f"f{i}", low=0, high=1) for i in range(N_INPUTS)),
        classes=() if is_regression else tuple(range(n_classes)),
        target=Target(low=-5, high=5) if is_regression else None,
    )


def fitted(name: str, seed: int = 0, n_classes: int = 3) -> tuple[Any, Any, Any]:
    """A model, its rows and their answers; values repeat, so that rows lie on thresholds."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 20, (200, N_INPUTS)) / 19
    answers: Any = generator.integers(0, n_classes, len(rows))
    if ESTIMATORS[name].task == "regression":
        answers = rows[:, 0] - 3 * rows[:, 1] + generator.normal(size=len(rows)) / 10
    model = sklearn_class(ESTIMATORS[name])(**ESTIMATORS[name].defaults, random_state=seed)
    return model.fit(rows, answers), rows, answers


def answered(model: Any, rows: Any) -> Any:
    if hasattr(model, "predict_proba"):
        return model.predict_proba(rows)
    return model.predict(rows)[:, None]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_scikit_learns_answers(name: str, n_classes: int) -> None:
    model, rows, answers = fitted(name, n_classes=n_classes)
    trees = trees_of(model)
    trees.check(schema_of(name, n_classes))
    scores = trees.scores(rows)
    meaning = link(name, model.get_params(), n_classes)
    if ESTIMATORS[name].boosted:
        # XGBoost adds up in single precision.
        margins = np.reshape(model.predict(rows, output_margin=True), scores.shape)
        np.testing.assert_allclose(scores, margins, rtol=1e-6, atol=1e-6)
        return
    np.testing.assert_array_equal(scores, answered(model, rows))
    if ESTIMATORS[name].task == "regression":
        np.testing.assert_array_equal(values(scores, meaning), model.predict(rows))
    else:
        np.testing.assert_array_equal(probabilities(scores, meaning), model.predict_proba(rows))
        np.testing.assert_array_equal(class_indices(scores), model.predict(rows))
        assert measure(trees, rows, answers, meaning).quality == model.score(rows, answers)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 50), data=st.data())
def test_ranks_among_thresholds_give_the_same_answers(
    name: str, seed: int, data: st.DataObject
) -> None:
    trees = trees_of(fitted(name, seed)[0])
    ranked = trees.ranked()
    levels = st.one_of(
        st.floats(0, 1), *(st.sampled_from(one.tolist()) for one in ranked.edges)
    ).map(lambda level: min(max(level, 0.0), 1.0))
    row = np.array([data.draw(st.lists(levels, min_size=N_INPUTS, max_size=N_INPUTS))])
    taken = ranks(row[:, ranked.features], ranked.edges)
    assert (taken >= 0).all()
    assert (taken < 2**ranked.bits).all()
    np.testing.assert_array_equal(ranked.trees.scores(taken.astype(np.float64)), trees.scores(row))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_is_read(name: str, tmp_path: Path) -> None:
    model, rows, _ = fitted(name)
    trees = trees_of(model)
    trees.write(tmp_path / "trees.npz")
    read = Trees.read(tmp_path / "trees.npz")
    read.check(schema_of(name))
    np.testing.assert_array_equal(read.scores(rows), trees.scores(rows))
    depths = [one.depth for one in read.each()]
    if ESTIMATORS[name].boosted:
        # XGBoost prints a node a line, with a tab for each node above it.
        dumped = model.get_booster().get_dump()
        assert depths == [max(line.count("\t") for line in one.splitlines()) for one in dumped]
    else:
        assert depths == [one.get_depth() for one in getattr(model, "estimators_", [model])]
    assert sum(one.n_leaves for one in trees.each()) == trees.n_leaves


def changed(array: Any, at: int, value: float) -> Any:
    copy = array.copy()
    copy[at] = value
    return copy


LAST = 10_000
HARMS: list[tuple[Callable[[Trees], dict[str, Any]], str]] = [
    (lambda one: {"left": changed(one.left, 0, LAST)}, "one parent"),
    (lambda one: {"left": changed(one.left, 0, 0)}, "one parent"),
    (lambda one: {"right": changed(one.right, 0, -7)}, "one parent"),
    (lambda one: {"left": one.right, "right": one.left[::-1]}, "one parent|before its parent"),
    (lambda one: {"right": changed(one.right, len(one.right) - 1, 3)}, "one child"),
    (lambda one: {"feature": changed(one.feature, 0, N_INPUTS)}, "inputs that"),
    (lambda one: {"feature": changed(one.feature, len(one.feature) - 1, -2)}, "inputs that"),
    (lambda one: {"threshold": changed(one.threshold, 0, np.nan)}, "not finite"),
    (lambda one: {"value": changed(one.value, 0, np.inf)}, "not finite"),
    (lambda one: {"value": 2 * one.value}, "add up to 1"),
    (lambda one: {"value": one.value[:, :2]}, "value of the trees has shape"),
    (lambda one: {"threshold": one.threshold[1:]}, "threshold of the trees has shape"),
    (lambda one: {"roots": one.roots[:0]}, "no tree"),
    (lambda one: {"roots": one.roots + 1}, "one after the other"),
    (lambda one: {"roots": np.concatenate([one.roots, [2]])}, "one parent"),
]


@pytest.mark.parametrize(("harm", "message"), HARMS)
def test_arrays_that_make_no_trees_are_refused(
    harm: Callable[[Trees], dict[str, Any]], message: str
) -> None:
    trees = trees_of(fitted("DecisionTreeClassifier")[0])
    with pytest.raises(CloisterError, match=message):
        replace(trees, **harm(trees)).check(schema_of("DecisionTreeClassifier"))


@given(seed=st.integers(0, 2**32 - 1))
def test_trees_whose_children_are_shuffled_are_refused_or_walked_to_a_leaf(seed: int) -> None:
    trees = trees_of(fitted("RandomForestClassifier")[0])
    generator = np.random.default_rng(seed)
    inner = np.flatnonzero(trees.left >= 0)
    shuffled = trees.left.copy()
    some = generator.choice(inner, 3, replace=False)
    shuffled[some] = shuffled[generator.permutation(some)]
    harmed = replace(trees, left=shuffled)
    try:
        harmed.check(schema_of("RandomForestClassifier"))
    except CloisterError:
        return
    assert (harmed.left[harmed.leaves(generator.random((5, N_INPUTS)))] < 0).all()


def test_a_class_in_no_leaf_and_a_tree_without_a_split_are_told() -> None:
    model = sklearn_class(ESTIMATORS["DecisionTreeClassifier"])(max_depth=2)
    rows = np.random.default_rng(0).random((50, N_INPUTS))
    model.fit(rows, np.arange(50) % 2)
    trees = trees_of(model)
    padded = np.hstack([trees.value, np.zeros((len(trees.value), 1))])
    with pytest.raises(CloisterError, match="class 2 occurs in no leaf"):
        replace(trees, value=padded).check(schema_of("DecisionTreeClassifier"))
    model.fit(np.zeros((50, N_INPUTS)), np.arange(50) % 2)
    with pytest.raises(CloisterError, match="single split"):
        trees_of(model).check(schema_of("DecisionTreeClassifier", 2))


@pytest.mark.parametrize("name", ["roots", "left", "right", "feature"])
def test_an_index_that_is_no_integer_is_refused(name: str, tmp_path: Path) -> None:
    trees = trees_of(fitted("DecisionTreeClassifier")[0])
    replace(trees, **{name: getattr(trees, name) + 0.5}).write(tmp_path / "trees.npz")
    with pytest.raises(CloisterError, match=f"{name} holds float64, not integers"):
        Trees.read(tmp_path / "trees.npz")


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("DecisionTreeClassifier", {"max_depth": 5}, None),
        (FOREST, {"max_depth": 3, "n_estimators": 10}, None),
        (FOREST, {"max_depth": 5, "n_estimators": 10, "max_leaf_nodes": 8}, None),
        (
            FOREST,
            {"max_depth": 4, "n_estimators": 10},
            "Lower n_estimators to 5, or max_depth to 3, or max_leaf_nodes to 8",
        ),
        ("XGBRegressor", {"max_depth": 1, "n_estimators": 40}, None),
        ("XGBClassifier", {"max_depth": 2, "n_estimators": 6, "max_leaves": 0}, None),
        ("XGBClassifier", {"max_depth": 5, "n_estimators": 6, "max_leaves": 4}, None),
        (
            "XGBClassifier",
            {"max_depth": 2, "n_estimators": 7},
            r"21 trees \(7 for each of 3 classes\) .* Lower n_estimators to 6, or max_depth to 1",
        ),
    ],
)
def test_more_leaves_than_can_be_served_are_refused_beforehand(
    name: str, parameters: dict[str, Any], message: str | None
) -> None:
    n_classes = 3 if ESTIMATORS[name].task == "classification" else 0
    if message is None:
        check_leaves(ESTIMATORS[name], parameters, n_classes)
        return
    with pytest.raises(CloisterError, match=message):
        check_leaves(ESTIMATORS[name], parameters, n_classes)
