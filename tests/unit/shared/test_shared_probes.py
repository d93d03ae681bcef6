"""Synthetic rows that lie where classes meet."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cloister_shared.card import ModelCard
from cloister_shared.datasets import schema
from cloister_shared.links import class_indices
from cloister_shared.probes import (
    PROBES,
    REGRESSION_MARGIN,
    measure_agreement,
    synthetic_rows,
)
from cloister_shared.reference import Reference

Floats = np.ndarray[Any, Any]
values = st.floats(-10, 10)
coefficients = st.tuples(st.sampled_from([1, 3, 4]), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=values)
)


@given(coefficients)
def test_rows_are_within_the_declared_bounds_and_the_same_every_time(coef: Floats) -> None:
    rows = synthetic_rows(coef, 40)
    assert rows.shape == (40, coef.shape[1])
    assert ((rows >= 0) & (rows <= 1)).all()
    np.testing.assert_array_equal(rows, synthetic_rows(coef, 40))


@pytest.mark.parametrize("n_outputs", [1, 10])
def test_rows_reach_every_class_and_come_near_every_boundary(n_outputs: int) -> None:
    coef = np.random.default_rng(2).normal(size=(n_outputs, 50))
    rows = synthetic_rows(coef)
    assert len(rows) == PROBES
    scores = rows @ coef.T
    assert len(np.unique(class_indices(scores))) == max(n_outputs, 2)
    if n_outputs == 1:
        margins = np.abs(scores[:, 0])
    else:
        ordered = np.sort(scores, axis=1)
        margins = ordered[:, -1] - ordered[:, -2]
    # Neither all at a boundary nor all far from one, in each of the four kinds.
    for kind in np.split(margins, 4):
        assert np.quantile(kind, 0.1) < 0.3 * np.median(kind)
        assert np.quantile(kind, 0.9) > 1.5 * np.median(kind)


def test_differing_predictions_are_counted(make_card: Callable[..., ModelCard]) -> None:
    exact = Reference(
        coef=np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
        intercept=np.array([0.0, 0.0, 0.1]),
        features=np.array([0, 1]),
        weights=np.array([[10, 0, 0], [0, 10, 0]]),
        bias=np.array([0, 0, 10]),
        input_scale=np.array(0.1),
        input_zero_point=np.array(0),
        input_low=np.array(0),
        input_high=np.array(10),
        output_scale=np.array(0.01),
        output_zero_point=np.zeros(3, dtype=np.int64),
    )
    rows = np.array([[0.9, 0.1], [0.1, 0.9], [0.0, 0.0], [0.0, 0.6]])
    assert measure_agreement(exact, rows, make_card(exact.coef)).model_dump() == {
        "probes": 4,
        "differing": 0,
        "share": 0.0,
    }
    # The second output now loses against the first at [0.1, 0.9], and against the third elsewhere.
    wrong = replace(exact, weights=np.array([[10, 0, 0], [0, 1, 0]]))
    found = measure_agreement(wrong, rows, make_card(wrong.coef))
    assert (found.probes, found.differing, found.share) == (4, 2, 0.5)


@pytest.mark.parametrize(
    ("name", "values", "off", "differing"),
    [
        # Off in shares of the margin.
        ("Ridge", [100.0, 150.0, 200.0, 250.0], [0.0, 0.9, 1.1, -1.1], 2),
        ("PoissonRegressor", [100.0, 150.0, 200.0, 250.0], [0.0, 0.9, 1.1, -1.1], 2),
        # Beyond the declared bounds, 1 to 360, all are at the bound.
        ("Ridge", [500.0, 500.0, -400.0, 355.0], [5.0, -5.0, -20.0, 50.0], 0),
    ],
)
def test_values_of_a_regression_differ_by_a_share_of_the_targets_width(
    make_card: Callable[..., ModelCard],
    name: str,
    values: list[float],
    off: list[float],
    differing: int,
) -> None:
    margin = REGRESSION_MARGIN * 359
    expected = np.array(values)
    predicted = expected + np.array(off) * margin
    if name == "PoissonRegressor":
        expected, predicted = np.log(expected), np.log(predicted)
    # Row i has input i alone; integer scores are thousandths.
    reference = Reference(
        coef=expected[None, :],
        intercept=np.zeros(1),
        features=np.arange(4),
        weights=np.rint(1000 * predicted).astype(np.int64)[:, None],
        bias=np.zeros(1, dtype=np.int64),
        input_scale=np.array(1.0),
        input_zero_point=np.array(0),
        input_low=np.array(0),
        input_high=np.array(1),
        output_scale=np.array(0.001),
        output_zero_point=np.zeros(1, dtype=np.int64),
    )
    data = schema("diabetes")
    card = make_card(reference.coef, estimator=name, data=data, parameters={}, final=None)
    assert measure_agreement(reference, np.eye(4), card).differing == differing
