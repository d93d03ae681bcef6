"""Features without weight are left out, and no score changes."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister_compiler.quantisation import (
    Bits,
    QuantisedModel,
    drop_features,
    quantise,
)
from cloister_shared.calibration import calibration_rows
from cloister_shared.card import ModelCard
from cloister_shared.reference import Reference, needed_features
from cloister_shared.weights import LinearWeights

Floats = np.ndarray[Any, Any]
MakeCard = Callable[..., ModelCard]
DRAWN = np.random.default_rng(4).normal(size=(4, 6))


def quantised_twice(
    make_card: MakeCard, coef: Floats, bits: Bits, rows: Floats | None = None
) -> tuple[QuantisedModel, QuantisedModel]:
    """The model on all features, and on those it needs."""
    weights = LinearWeights(coef, np.linspace(-1, 2, len(coef)))
    calibration = calibration_rows(coef) if rows is None else rows
    full = quantise(make_card(coef), weights, bits, calibration)
    return full, drop_features(make_card(coef), weights, full, calibration)


def assert_same_scores(full: Reference, dropped: Reference) -> None:
    """Of random rows, and of the extreme inputs: in integers and as floats."""
    rows = np.vstack(
        [np.random.default_rng(0).random((50, full.coef.shape[1])), calibration_rows(full.coef)]
    )
    expected = full.integer_scores(full.quantise(rows))
    found = dropped.integer_scores(dropped.quantise(rows))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(dropped.dequantise(found), full.dequantise(expected))
    for one, other in zip(full.integer_bounds(), dropped.integer_bounds(), strict=True):
        np.testing.assert_array_equal(one, other)


@settings(max_examples=40)
@given(data=st.data())
def test_dropped_features_change_no_score(make_card: MakeCard, data: st.DataObject) -> None:
    n_outputs, n_features = data.draw(st.sampled_from([1, 3, 4])), data.draw(st.integers(1, 8))
    seed = data.draw(st.integers(0, 2**32 - 1))
    # Weights that are 0, that are small enough to become 0, and that count.
    scales = data.draw(
        st.lists(st.sampled_from([0.0, 1e-6, 0.02, 1.0]), min_size=n_features, max_size=n_features)
    )
    # Weights of one sign have a zero point outside of what they reach.
    offset = data.draw(st.sampled_from([0.0, 0.0, 1.0, -1.0]))
    coef = (np.random.default_rng(seed).normal(size=(n_outputs, n_features)) + offset) * scales
    # Weights below a threshold of Concrete ML's become 0 altogether, which is refused.
    coef[0, 0] += 1.0
    bits = Bits(data.draw(st.integers(2, 8)), data.draw(st.integers(2, 8)))
    full, dropped = quantised_twice(make_card, coef, bits)
    assert_same_scores(full.reference, dropped.reference)
    kept = dropped.reference.features
    left_out = np.setdiff1d(np.arange(n_features), kept)
    assert not full.reference.weights[left_out].any()
    # Besides those with a weight, at most the holders of the smallest and the largest are kept.
    assert len(kept) <= full.reference.weights.any(axis=1).sum() + 2
    np.testing.assert_array_equal(kept, needed_features(full.reference))


@pytest.mark.parametrize(
    ("coef", "kept"),
    [
        pytest.param(DRAWN, [0, 1, 2, 3, 4, 5], id="all have weight"),
        pytest.param(DRAWN * [1, 0, 1, 0, 0, 1], [0, 2, 5], id="half have none"),
        pytest.param(DRAWN[:1] * [1, 0, 1, 0, 0, 1], [0, 2, 5], id="two classes"),
        pytest.param(DRAWN * [1, 1e-9, 1, 1, 1, 1], [0, 2, 3, 4, 5], id="a weight too small"),
        pytest.param(DRAWN * [[0, 0, 0, 1, 0, 0], *[[0] * 6] * 3] * 9, [3], id="all zero but one"),
        pytest.param(
            np.abs(DRAWN[:1]) * [0, 0, 1, 0, 1, 1], [0, 2, 4, 5], id="zero is the smallest weight"
        ),
        pytest.param(
            -np.abs(DRAWN[:1]) * [1, 1, 1, 0, 0, 1], [0, 1, 2, 3, 5], id="zero is the largest"
        ),
        pytest.param(np.zeros((4, 6)), [0], id="all zero"),
        pytest.param(np.zeros((1, 6)), [0], id="all zero, two classes"),
        pytest.param(np.full((4, 6), -0.3), [0, 1, 2, 3, 4, 5], id="all equal"),
        pytest.param(DRAWN[:, :1], [0], id="one feature"),
    ],
)
def test_the_features_that_are_kept(make_card: MakeCard, coef: Floats, kept: list[int]) -> None:
    # Where a weight of 0 is the smallest or the largest, one feature that holds it sets the scale.
    full, dropped = quantised_twice(make_card, coef, Bits(8, 8))
    assert dropped.reference.features.tolist() == kept
    assert (dropped is full) == (len(kept) == coef.shape[1])
    assert_same_scores(full.reference, dropped.reference)


def test_where_dropping_would_change_scores_all_are_kept_and_it_says_why(
    make_card: MakeCard, caplog: pytest.LogCaptureFixture
) -> None:
    coef = DRAWN * [1, 1, 0, 1, 1, 1]
    # Only the feature without weight reaches the upper bound, which sets the scale of inputs.
    rows = calibration_rows(coef) * [0.5, 0.5, 1, 0.5, 0.5, 0.5]
    with caplog.at_level(logging.WARNING):
        full, dropped = quantised_twice(make_card, coef, Bits(8, 8), rows)
    assert dropped is full
    assert "keeping all 6 features, 1 of them without weight" in caplog.text
    assert "input_scale" in caplog.text


def test_inputs_and_weights_have_bits_of_their_own(make_card: MakeCard) -> None:
    full, _ = quantised_twice(make_card, DRAWN, Bits(inputs=3, weights=6))
    assert int(full.reference.input_high) - int(full.reference.input_low) == 2**3 - 1
    assert np.ptp(full.raw_weights) == 2**6 - 1
    np.testing.assert_array_equal(full.raw_weights - full.weight_zero_point, full.reference.weights)
    assert str(full.bits) == "3 bits for inputs and 6 for weights"
    assert str(Bits(8, 8)) == "8 bits"
