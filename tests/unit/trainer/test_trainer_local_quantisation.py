"""Integers made without the compiler, beside those that the compiler makes."""

from dataclasses import fields
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cloister_compiler.quantisation import Bits, quantise
from cloister_shared.calibration import calibration_rows
from cloister_shared.card import ModelCard
from cloister_shared.errors import CloisterError
from cloister_shared.reference import Reference
from cloister_shared.schema import DatasetSchema, Feature, Target
from cloister_shared.weights import LinearWeights
from cloister_trainer.local.quantisation import quantised, quantised_scores

N_CLASSES = st.sampled_from([0, 2, 3, 5])
"""0: a regression."""


def card_of(n_inputs: int, n_classes: int) -> ModelCard:
    features = tuple(Feature(name=f"f{i}", low=0, high=1) for i in range(n_inputs))
    if n_classes:
        estimator = "LogisticRegression"
        data = DatasetSchema(dataset="d", features=features, classes=tuple(range(n_classes)))
    else:
        estimator = "LinearRegression"
        target = Target(low=0, high=1)
        data = DatasetSchema(dataset="d", task="regression", features=features, target=target)
    return ModelCard(
        name="model",
        estimator=estimator,
        parameters={},
        data=data,
        rounds=(),
        libraries={},
        created=datetime(2025, 1, 1, tzinfo=UTC),
    )


@hypothesis_settings(max_examples=40)
@given(
    n_classes=N_CLASSES,
    n_inputs=st.integers(1, 9),
    bits=st.integers(2, 8),
    scale=st.floats(1e-4, 1e4),
    constant=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_they_are_the_compilers(
    n_classes: int, n_inputs: int, bits: int, scale: float, constant: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    n_outputs = n_classes if n_classes > 2 else 1
    coef = scale * generator.normal(size=(n_outputs, n_inputs))
    if constant:
        coef[:] = coef[0, 0]
    weights = LinearWeights(coef, scale * generator.normal(size=n_outputs))
    made = quantised(weights, bits)
    compiled = quantise(
        card_of(n_inputs, n_classes), weights, Bits(bits, bits), calibration_rows(coef)
    ).reference
    for field in fields(Reference):
        np.testing.assert_array_equal(
            getattr(made, field.name), getattr(compiled, field.name), field.name
        )
    made.check()


def test_scores_come_near_those_in_floating_point() -> None:
    generator = np.random.default_rng(0)
    weights = LinearWeights(generator.normal(size=(3, 8)), generator.normal(size=3))
    inputs = generator.random((100, 8))
    exact = inputs @ weights.coef.T + weights.intercept
    errors = [np.abs(quantised_scores(weights, bits, inputs) - exact).max() for bits in (2, 5, 8)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.05


def test_an_intercept_that_no_integer_holds_is_refused() -> None:
    with pytest.raises(CloisterError, match="the intercepts are too large"):
        quantised(LinearWeights(np.array([[1e-3, 0.0]]), np.array([1e15])), 8)
