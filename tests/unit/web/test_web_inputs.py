"""Rows to integers, and scores to answers: in the browser as in Python, to the last bit."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from javascript import JavaScript

from cloister_shared.card import ModelCard
from cloister_shared.datasets import schema as known
from cloister_shared.errors import CloisterError
from cloister_shared.links import class_indices, has_probabilities, link, probabilities, values
from cloister_shared.preprocessing import OutOfBounds, to_inputs
from cloister_shared.reference import Quantiser
from cloister_shared.schema import Category, DatasetSchema, Feature, Target

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
MANY = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
FINITE = st.floats(-1e6, 1e6)


def card(
    data: DatasetSchema, estimator: str = "LogisticRegression", **parameters: Any
) -> ModelCard:
    return ModelCard.model_validate(
        {
            "name": "small",
            "estimator": estimator,
            "parameters": parameters,
            "data": data,
            "rounds": (),
            "libraries": {},
            "created": "2025-01-01T00:00:00Z",
        }
    )


def inputs(
    javascript: JavaScript, data: DatasetSchema, rows: Any, out_of_bounds: OutOfBounds = "refuse"
) -> Any:
    return javascript(
        "inputs", card=card(data).model_dump_json(), rows=rows, outOfBounds=out_of_bounds
    )


def in_python(data: DatasetSchema, row: Any, out_of_bounds: OutOfBounds) -> list[float] | None:
    """Inputs, or None where the row is refused."""
    try:
        found: list[float] = to_inputs([row], data, out_of_bounds)[0].tolist()
    except CloisterError:
        return None
    return found


MIXED = DatasetSchema(
    dataset="mixed",
    features=(
        Feature(name="with a gap", low=-3, high=5.5, missing=0.1),
        Feature(name="without", low=0, high=1e-3),
        Category(name="ward", categories=("north", "7", 0, "True", "none"), missing="north"),
        Category(name="sex", categories=("f", 1), unknown="ignore"),
        Category(
            name="strict",
            categories=("1.50", "a b", "10000000000000000000000", "1e-07", "5e-05", "0.00025"),
        ),
    ),
    classes=(0, 1),
)
TEXTS = (
    "north|7|7.0|7.|07|-7|0|-0|0.0|true|TRUE|False|f| f |F|1|1.0|1.50|1.5|a b|a  b|none|None",
    "NaN|-nan",
    "n/a|#N/A|-|--|?|.| |0,5|1.000,5|.5|5.|+.5|5e-4|5E-4|1e999|inf|-Infinity|0x1|1_0|#value!",
    "missing|null|nat|<NA>|north\u00a0|\u0661",
)
CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 9),
    st.floats(-4, 6),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e22, 1.5, 7.0, 1e-7, 5e-5, 2.5e-4]),
)


def by_itself(javascript: JavaScript, cells: list[Any], out_of_bounds: OutOfBounds) -> None:
    """Compare cells as the one value of a row, for each of the features."""
    # JSON has no numbers that are not finite: as text they are the same cells.
    sent = [[repr(c) if isinstance(c, float) and not math.isfinite(c) else c] for c in cells]
    for feature in MIXED.features:
        data = DatasetSchema(dataset="one", features=(feature,), classes=(0, 1))
        found = inputs(javascript, data, sent, out_of_bounds)
        for cell, one in zip(cells, found, strict=True):
            expected = in_python(data, [cell], out_of_bounds)
            if expected is None:
                assert one.startswith(f"CloisterError: feature {feature.name}: "), cell
            else:
                assert one == expected, cell


@pytest.mark.parametrize("out_of_bounds", ["refuse", "clip"])
def test_texts_become_the_same_inputs_or_are_refused(
    javascript: JavaScript, out_of_bounds: OutOfBounds
) -> None:
    by_itself(javascript, "|".join(TEXTS).split("|"), out_of_bounds)


@MANY
@given(cells=st.lists(CELLS, min_size=1), out_of_bounds=st.sampled_from(["refuse", "clip"]))
def test_cells_of_every_kind_become_the_same_inputs_or_are_refused(
    javascript: JavaScript, cells: list[Any], out_of_bounds: OutOfBounds
) -> None:
    by_itself(javascript, cells, out_of_bounds)


def test_a_refusal_names_the_feature_and_not_the_value(javascript: JavaScript) -> None:
    assert inputs(javascript, MIXED, [["1", "secret", "north", "f", "a b"], [1, 2]]) == [
        "CloisterError: feature without: the value is not finite, or no number; it must be a "
        "number in [0, 0.001]",
        "CloisterError: a row has 2 cells; mixed needs 5",
    ]


@pytest.mark.parametrize(
    ("shape", "pool"), [((8, 12), 2), ((8, 12), 4), ((9, 3), 3), ((18, 27), 9), ((24, 12), 12)]
)
def test_pooled_pixels_are_equal_to_the_last_bit(
    javascript: JavaScript, shape: tuple[int, int], pool: int
) -> None:
    n_pixels = math.prod(shape)
    data = DatasetSchema(
        dataset="image",
        features=tuple(Feature(name=f"p{i}", low=0, high=7) for i in range(n_pixels)),
        image_shape=shape,
        pool=pool,
        classes=(0, 1),
    )
    rows = np.random.default_rng(pool).uniform(0, 7, (20, n_pixels))
    found = inputs(javascript, data, rows.tolist())
    assert found == [to_inputs(row[None], data)[0].tolist() for row in rows]
    assert found == to_inputs(rows, data).tolist()


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 127, 128, 129, 1000])
def test_sums_are_numpys(javascript: JavaScript, count: int) -> None:
    numbers = np.random.default_rng(count).uniform(-1, 1, count)
    assert javascript("sum", values=numbers.tolist()) == numbers.sum()


@MANY
@given(
    scale=st.floats(1e-4, 1),
    zero_point=st.integers(-200, 200),
    halves=st.lists(st.integers(-600, 600), max_size=30),
    others=st.lists(st.floats(0, 1), max_size=30),
)
def test_quantised_values_are_equal_at_ties_too(
    javascript: JavaScript, scale: float, zero_point: int, halves: list[int], others: list[float]
) -> None:
    unit = [half / 2 * scale for half in halves] + others
    quantiser = Quantiser(scale, zero_point, -128, 127)
    found = javascript(
        "quantise", scale=scale, zeroPoint=zero_point, low=-128, high=127, values=unit
    )
    assert found == quantiser.quantise(np.array(unit, dtype=np.float64)).tolist()


def schema(n_classes: int) -> DatasetSchema:
    features = (Feature(name="x", low=0, high=1),)
    if n_classes:
        return DatasetSchema(dataset="d", features=features, classes=tuple(range(n_classes)))
    return DatasetSchema(
        dataset="d", task="regression", features=features, target=Target(low=0, high=1)
    )


MODELS = [
    ("LogisticRegression", {}, 2),
    ("LogisticRegression", {"multi_class": "multinomial"}, 2),
    ("LogisticRegression", {}, 10),
    ("LogisticRegression", {"multi_class": "ovr"}, 3),
    ("LogisticRegression", {"solver": "liblinear"}, 3),
    ("SGDClassifier", {"loss": "log_loss"}, 4),
    ("SGDClassifier", {"loss": "modified_huber"}, 2),
    ("SGDClassifier", {"loss": "modified_huber"}, 9),
    ("LinearSVC", {}, 2),
    ("LinearSVC", {}, 3),
    ("Ridge", {}, 0),
    ("PoissonRegressor", {}, 0),
    ("GammaRegressor", {}, 0),
    ("TweedieRegressor", {}, 0),
    ("TweedieRegressor", {"power": 1.5}, 0),
    ("TweedieRegressor", {"power": 1.5, "link": "identity"}, 0),
]


@pytest.mark.parametrize(("estimator", "parameters", "n_classes"), MODELS)
def test_scores_mean_the_same(
    javascript: JavaScript, estimator: str, parameters: dict[str, Any], n_classes: int
) -> None:
    rng, n_outputs = np.random.default_rng(1), n_classes if n_classes > 2 else 1
    scores = rng.normal(size=(200, n_outputs)) * rng.choice([1e-3, 1, 40], (200, 1))
    scores[:3] = [[0.0] * n_outputs, [-2.0] * n_outputs, [800.0] * n_outputs]
    if not n_classes:
        scores = np.clip(scores, -700, 700)
    described = card(schema(n_classes), estimator, **parameters)
    found = javascript("answers", card=described.model_dump_json(), scores=scores.tolist())
    meaning = link(estimator, parameters, n_classes)
    # An exponential may differ in its last bit.
    if has_probabilities(meaning):
        expected = probabilities(scores, meaning)
        np.testing.assert_allclose([one[0] for one in found], expected, rtol=1e-14)
    else:
        assert {one[0] for one in found} == {None}
    if n_classes:
        assert [one[1] for one in found] == class_indices(scores).tolist()
    else:
        np.testing.assert_allclose([one[2] for one in found], values(scores, meaning), rtol=1e-15)


def test_rows_of_real_data_become_the_same_inputs(
    javascript: JavaScript, digits_data: Data, breast_cancer_data: Data, diabetes_data: Data
) -> None:
    for data, (rows, _) in (
        (known("digits"), digits_data),
        (known("breast_cancer"), breast_cancer_data),
        (known("diabetes"), diabetes_data),
    ):
        assert inputs(javascript, data, rows.tolist()) == to_inputs(rows, data).tolist()
