"""Rows that reach the exact extremes of every score."""

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cloister_compiler.circuit import compile_model
from cloister_compiler.quantisation import Bits, quantise
from cloister_shared import calibration
from cloister_shared.card import ModelCard
from cloister_shared.weights import LinearWeights

Floats = np.ndarray[Any, Any]
# Down to a ten thousandth: weights that all but vanish quantise to 0 and are refused.
values = st.floats(-10, 10).map(lambda value: round(value, 4))
coefficients = st.tuples(st.sampled_from([1, 3, 4]), st.integers(1, 5)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=values)
)


@given(coefficients)
def test_extreme_rows_reach_the_extremes_of_the_float_scores(coef: Floats) -> None:
    rows = calibration.extreme_rows(coef)
    assert rows.shape == (2 * len(coef), coef.shape[1])
    scores = rows @ coef.T
    outputs = np.arange(len(coef))
    largest, smallest = np.maximum(coef, 0).sum(axis=1), np.minimum(coef, 0).sum(axis=1)
    np.testing.assert_allclose(scores[outputs, outputs], largest, atol=1e-12)
    np.testing.assert_allclose(scores[len(coef) + outputs, outputs], smallest, atol=1e-12)


@settings(max_examples=25)
@given(coef=coefficients, offset=st.sampled_from([0.0, 0.0, 25.0, -25.0]), bits=st.integers(2, 8))
def test_calibration_reaches_the_exact_integer_bounds_of_the_circuit(
    make_card: Callable[..., ModelCard], coef: Floats, offset: float, bits: int
) -> None:
    # An offset gives weights of one sign only, whose quantiser has a zero point far outside.
    weights = LinearWeights(coef + offset, np.linspace(-3, 3, len(coef)))
    rows = calibration.calibration_rows(weights.coef)
    assert rows.min() == 0
    assert rows.max() == 1
    card = make_card(weights.coef)
    quantised = quantise(card, weights, Bits(bits, bits), rows)
    reference = compile_model(card, quantised, rows).reference
    scores = reference.integer_scores(reference.quantise(rows))
    lowest, highest = reference.integer_bounds()
    np.testing.assert_array_equal(scores.min(axis=0), lowest)
    np.testing.assert_array_equal(scores.max(axis=0), highest)


def test_boundary_rows_are_low_high_and_half_way() -> None:
    np.testing.assert_array_equal(
        calibration.boundary_rows(2), np.array([[0, 0], [1, 1], [0.5, 0.5]])
    )


def test_random_rows_repeat_for_a_seed() -> None:
    rows = calibration.random_rows(50, 3, seed=1)
    assert rows.shape == (50, 3)
    assert ((rows >= 0) & (rows < 1)).all()
    np.testing.assert_array_equal(rows, calibration.random_rows(50, 3, seed=1))
    assert not np.array_equal(rows, calibration.random_rows(50, 3, seed=2))
