"""Raw rows to inputs in [0, 1]."""

import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cloister_shared.errors import CloisterError
from cloister_shared.preprocessing import (
    Misfit,
    OutOfBounds,
    decode,
    encode,
    inputs_of,
    misfits,
    to_inputs,
)
from cloister_shared.schema import Category, DatasetSchema, Feature

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


@st.composite
def schemas(draw: st.DrawFn) -> DatasetSchema:
    bounds = draw(
        st.lists(
            st.tuples(finite, finite).filter(lambda pair: pair[0] != pair[1]).map(sorted),
            min_size=1,
            max_size=4,
        )
    )
    features = [Feature(name=f"f{i}", low=low, high=high) for i, (low, high) in enumerate(bounds)]
    return DatasetSchema(dataset="drawn", features=tuple(features), classes=(0, 1))


@st.composite
def schemas_and_rows(draw: st.DrawFn) -> tuple[DatasetSchema, np.ndarray[Any, Any]]:
    """A schema and raw rows within its bounds, shape (n, n_features)."""
    drawn = draw(schemas())
    columns = [
        draw(arrays(np.float64, 3, elements=st.floats(low, high)))
        for low, high in zip(drawn.bounds.lows, drawn.bounds.highs, strict=True)
    ]
    return drawn, np.stack(columns, axis=1)


SCHEMA = DatasetSchema(
    dataset="two",
    features=(Feature(name="width", low=-1, high=3), Feature(name="height", low=0, high=10)),
    classes=("a", "b"),
)


@given(schemas())
def test_bounds_become_exactly_0_and_1(drawn: DatasetSchema) -> None:
    unit = to_inputs([drawn.bounds.lows, drawn.bounds.highs], drawn)
    np.testing.assert_array_equal(unit[0], 0.0)
    np.testing.assert_array_equal(unit[1], 1.0)


@given(schemas_and_rows())
def test_values_within_bounds_keep_their_order_and_stay_in_the_unit_interval(
    drawn: tuple[DatasetSchema, np.ndarray[Any, Any]],
) -> None:
    schema, rows = drawn
    unit = to_inputs(np.sort(rows, axis=0), schema)
    assert ((unit >= 0) & (unit <= 1)).all()
    assert (np.diff(unit, axis=0) >= 0).all()


def test_the_map_is_affine() -> None:
    np.testing.assert_array_equal(
        to_inputs(np.array([[0, 2.5], [2, 5]]), SCHEMA), np.array([[0.25, 0.25], [0.75, 0.5]])
    )


@given(
    row=st.integers(0, 2),
    column=st.integers(0, 1),
    beyond=st.floats(1e-9, 1e300),
    below=st.booleans(),
)
def test_a_value_outside_is_refused_by_row_and_feature_or_clipped(
    row: int, column: int, beyond: float, below: bool
) -> None:
    rows = np.tile((SCHEMA.bounds.lows + SCHEMA.bounds.highs) / 2, (3, 1))
    value = SCHEMA.bounds.lows[column] - beyond if below else SCHEMA.bounds.highs[column] + beyond
    assume(value not in (SCHEMA.bounds.lows[column], SCHEMA.bounds.highs[column]))
    rows[row, column] = value
    name = SCHEMA.features[column].name
    with pytest.raises(CloisterError, match=f"row {row}, feature {name}: .*outside") as refusal:
        to_inputs(rows, SCHEMA)
    assert str(value) not in str(refusal.value), "the message gives away the value"

    clipped = to_inputs(rows, SCHEMA, "clip")
    assert clipped[row, column] == (0.0 if below else 1.0)
    clipped[row, column] = 0.5
    np.testing.assert_array_equal(clipped, 0.5)


@pytest.mark.parametrize("policy", ["refuse", "clip"])
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (np.nan, "is missing"),
        (None, "is missing"),
        ("", "is missing"),
        (" n/a", "is missing"),
        (np.inf, "is not finite"),
        (-np.inf, "is not finite"),
        (10**400, "is not finite"),
        ("red", "is not finite, or no number"),
        ("1,5", "is not finite, or no number"),
        ({}, "is not finite, or no number"),
    ],
)
def test_what_is_no_finite_number_is_refused_under_either_policy(
    policy: Any, value: Any, told: str
) -> None:
    with pytest.raises(CloisterError, match=rf"row 1, feature height: the value {told}"):
        to_inputs([[0, 0], [0, value]], SCHEMA, policy)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1, 2, 3]], r"shape \(1, 3\).*needs \(n, 2\)"),
        ([1, 2], r"shape \(2,\)"),
        (5, "shape"),
        ([[[1, 2]]], r"shape \(1, 1, 2\)"),
        ([[1, 2], [3]], "rows of equal length"),
    ],
)
def test_what_is_not_a_table_of_the_features_is_refused(rows: Any, message: str) -> None:
    with pytest.raises(CloisterError, match=message):
        to_inputs(rows, SCHEMA)


def test_the_result_is_a_new_contiguous_array() -> None:
    rows = np.asfortranarray([[0.0, 5.0], [3.0, 10.0]])
    unit = to_inputs(rows, SCHEMA)
    assert unit.flags.c_contiguous
    unit[:] = -1
    np.testing.assert_array_equal(rows, [[0.0, 5.0], [3.0, 10.0]])


def test_no_rows_are_no_rows() -> None:
    assert to_inputs(np.empty((0, 2)), SCHEMA).shape == (0, 2)


OUTSIDE = "is outside its declared bounds [-1.0, 3.0]"
MISSING = "is missing; it must be a number in [0.0, 10.0]"
NO_NUMBER = "is not finite, or no number; it must be a number in [0.0, 10.0]"


@pytest.mark.parametrize(
    ("out_of_bounds", "limit", "expected"),
    [
        ("refuse", 9, [Misfit(1, 0, OUTSIDE), Misfit(1, 1, MISSING), Misfit(2, 1, NO_NUMBER)]),
        ("refuse", 2, [Misfit(1, 0, OUTSIDE), Misfit(1, 1, MISSING)]),
        ("clip", 9, [Misfit(1, 1, MISSING), Misfit(2, 1, NO_NUMBER)]),
    ],
)
def test_misfits_are_listed_by_row_and_say_why(
    out_of_bounds: OutOfBounds, limit: int, expected: list[Misfit]
) -> None:
    values = np.array([[-1.0, 10.0], [4.5, np.nan], [3.0, np.inf]])
    assert misfits(values, SCHEMA, out_of_bounds, limit) == expected


@given(values=arrays(np.float64, (3, 2), elements=st.floats(-5, 15) | st.just(np.nan)))
@pytest.mark.parametrize("out_of_bounds", ["refuse", "clip"])
def test_there_are_misfits_exactly_where_rows_are_refused(
    out_of_bounds: OutOfBounds, values: np.ndarray[Any, Any]
) -> None:
    found = misfits(values, SCHEMA, out_of_bounds, 1)
    if found:
        told = re.escape(f"row {found[0].row}, ") + ".*" + re.escape(found[0].why)
        with pytest.raises(CloisterError, match=told):
            to_inputs(values, SCHEMA, out_of_bounds)
    else:
        to_inputs(values, SCHEMA, out_of_bounds)


MIXED = DatasetSchema(
    dataset="mixed",
    features=(
        Feature(name="age", low=0, high=100, missing=50),
        Category(name="sex", categories=("female", "male")),
        Category(name="ward", categories=(1, 2, 3), missing=2, unknown="ignore"),
    ),
    classes=("no", "yes"),
)


def test_a_category_becomes_one_input_a_label() -> None:
    expected = np.array([[0.25, 1, 0, 0, 0, 1], [1, 0, 1, 1, 0, 0]])
    rows: list[Any] = [[25, "female", 3], [100.0, " male ", "1.0"]]
    np.testing.assert_array_equal(to_inputs(rows, MIXED), expected)
    np.testing.assert_array_equal(to_inputs(np.array(rows, dtype=object), MIXED), expected)
    np.testing.assert_array_equal(to_inputs(np.array(rows).astype(str), MIXED), expected)


def test_a_data_frame_is_read_by_the_names_of_its_columns() -> None:
    frame = pd.DataFrame(
        {
            "ward": pd.array([3, None, 7], dtype="Int64"),
            "note": ["a", "b", "c"],
            "age": [25, np.nan, 0],
            "sex": pd.Categorical(["female", "male", "male"]),
        }
    )
    np.testing.assert_array_equal(
        to_inputs(frame, MIXED),
        np.array([[0.25, 1, 0, 0, 0, 1], [0.5, 0, 1, 0, 1, 0], [0, 0, 1, 0, 0, 0]]),
    )
    with pytest.raises(CloisterError, match="columns 'sex' of mixed are missing, or there more"):
        to_inputs(frame.drop(columns="sex"), MIXED)
    with pytest.raises(CloisterError, match="row 0, feature sex: the value is not among its cat"):
        to_inputs(frame.assign(sex=[["male"], "male", "male"]), MIXED)
    doubled = pd.concat([frame, frame[["age"]]], axis=1)
    with pytest.raises(CloisterError, match="columns 'age' of mixed are missing, or there more"):
        to_inputs(doubled, MIXED)


@pytest.mark.parametrize("missing", [None, np.nan, "", "NA", pd.NA])
def test_what_is_missing_has_the_value_that_the_schema_says_or_is_refused(missing: Any) -> None:
    rows: list[Any] = [[missing, "female", missing]]
    np.testing.assert_array_equal(to_inputs(rows, MIXED), [[0.5, 1, 0, 0, 1, 0]])
    told = "row 0, feature sex: the value is missing; it must be one of female, male"
    with pytest.raises(CloisterError, match=told):
        to_inputs([[1, missing, 1]], MIXED, "clip")


@pytest.mark.parametrize("unknown", ["other", 7, "Female"])
def test_an_unknown_label_is_ignored_or_refused_as_the_schema_says(unknown: Any) -> None:
    np.testing.assert_array_equal(to_inputs([[0, "male", unknown]], MIXED), [[0, 0, 1, 0, 0, 0]])
    for policy in ("refuse", "clip"):
        told = "row 0, feature sex: the value is not among its categories; it must be one of femal"
        with pytest.raises(CloisterError, match=told) as refused:
            to_inputs([[0, unknown, 1]], MIXED, policy)
        assert str(unknown) not in str(refused.value)


def test_a_label_that_reads_as_missing_is_itself_where_it_is_declared() -> None:
    data = DatasetSchema(
        dataset="answers",
        features=(Category(name="answer", categories=("yes", "none", "-")),),
        classes=(0, 1),
    )
    np.testing.assert_array_equal(to_inputs([["none"], ["-"]], data), [[0, 1, 0], [0, 0, 1]])


def test_pixels_are_pooled_to_their_means() -> None:
    data = DatasetSchema(
        dataset="image",
        features=tuple(Feature(name=f"p{i}", low=0, high=10) for i in range(8)),
        image_shape=(2, 4),
        pool=2,
        classes=(0, 1),
    )
    np.testing.assert_allclose(to_inputs([[0, 10, 1, 2, 10, 0, 3, 4]], data), [[0.5, 0.25]])


cells = (
    st.sampled_from(["female", "male", "other", "", "NA", None, 1, 2.0, "3", 4, True])
    | st.floats()
    | st.integers()
    | st.text(max_size=3)
)


@given(st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=4), st.booleans())
def test_whatever_the_rows_inputs_are_in_the_unit_interval_or_refused(
    rows: list[Any], clip: bool
) -> None:
    try:
        inputs = to_inputs(rows, MIXED, "clip" if clip else "refuse")
    except CloisterError:
        return
    assert inputs.shape == (len(rows), MIXED.n_inputs)
    assert ((inputs >= 0) & (inputs <= 1)).all()


@given(
    st.lists(
        st.tuples(
            st.floats(0, 100) | st.just(np.nan),
            st.integers(0, 1),
            st.integers(0, 2) | st.just(np.nan),
        ),
        min_size=1,
    )
)
def test_what_is_decoded_is_encoded_to_the_same_numbers(rows: list[Any]) -> None:
    encoded = np.array(rows, dtype=np.float64)
    again = encode(decode(encoded, MIXED), MIXED)
    np.testing.assert_array_equal(again, encoded)
    np.testing.assert_array_equal(inputs_of(again, MIXED), to_inputs(decode(encoded, MIXED), MIXED))
