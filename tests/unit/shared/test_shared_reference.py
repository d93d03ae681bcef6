"""The integer circuit in the clear."""

from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_shared.errors import CloisterError
from cloister_shared.reference import Quantiser, Reference


@st.composite
def references(draw: st.DrawFn) -> Reference:
    """References of circuits small enough to try every input."""
    n_features, n_outputs = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    taken = st.lists(st.integers(0, n_features - 1), min_size=1, max_size=3, unique=True)
    features = np.array(sorted(draw(taken)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    low = draw(st.integers(-4, 3))
    return Reference(
        coef=generator.normal(size=(n_outputs, n_features)),
        intercept=generator.normal(size=n_outputs),
        features=features,
        weights=generator.integers(-9, 9, (len(features), n_outputs)),
        bias=generator.integers(-99, 99, n_outputs),
        input_scale=np.array(draw(st.floats(0.01, 1))),
        input_zero_point=np.array(draw(st.integers(-4, 4))),
        input_low=np.array(low),
        input_high=np.array(low + draw(st.integers(1, 4))),
        output_scale=np.array(draw(st.sampled_from([-0.3, 0.01, 2.0]))),
        output_zero_point=generator.integers(-99, 99, n_outputs),
    )


SMALL = Reference(
    coef=np.array([[0.5, 0.001, -0.25]]),
    intercept=np.array([0.125]),
    features=np.array([0, 2]),
    weights=np.array([[2], [-1]]),
    bias=np.array([3]),
    input_scale=np.array(0.25),
    input_zero_point=np.array(-2),
    input_low=np.array(-2),
    input_high=np.array(2),
    output_scale=np.array(0.0625),
    output_zero_point=np.array([1]),
)


@given(references())
def test_integer_bounds_are_the_extremes_over_all_inputs(reference: Reference) -> None:
    levels = range(int(reference.input_low), int(reference.input_high) + 1)
    every = np.array(list(product(levels, repeat=len(reference.features))))
    scores = reference.integer_scores(every)
    lowest, highest = reference.integer_bounds()
    np.testing.assert_array_equal(lowest, scores.min(axis=0))
    np.testing.assert_array_equal(highest, scores.max(axis=0))


@given(references())
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, reference: Reference
) -> None:
    path = tmp_path_factory.getbasetemp() / "reference.npz"
    reference.write(path)
    read = Reference.read(path)
    for field in fields(Reference):
        one, other = getattr(reference, field.name), getattr(read, field.name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_scores_of_a_small_circuit_by_hand() -> None:
    unit = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.5]])
    quantised = SMALL.quantise(unit)
    np.testing.assert_array_equal(quantised, [[-2, 2], [2, 0]])
    scores = SMALL.integer_scores(quantised)
    np.testing.assert_array_equal(scores, [[-3], [7]])
    np.testing.assert_array_equal(SMALL.dequantise(scores), [[-0.25], [0.375]])
    np.testing.assert_array_equal(SMALL.float_scores(unit), [[-0.124], [0.5]])


@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=20),
    st.floats(0.001, 1),
    st.integers(-128, 127),
)
def test_the_quantiser_is_monotone_bounded_and_off_by_half_a_step_at_most(
    values: list[float], scale: float, zero_point: int
) -> None:
    quantiser = Quantiser(scale, zero_point, -128, 127)
    unit = np.sort(values)
    quantised = quantiser.quantise(unit)
    assert quantised.dtype == np.int64
    assert ((quantised >= -128) & (quantised <= 127)).all()
    assert (np.diff(quantised) >= 0).all()
    inside = (quantised > -128) & (quantised < 127)
    error = np.abs(scale * (quantised - zero_point) - unit)[inside]
    assert (error <= scale / 2 + 1e-9).all()


def test_quantised_rows_are_contiguous_for_the_encryption() -> None:
    rows = np.asfortranarray(np.random.default_rng(0).random((3, 3)))
    assert SMALL.quantise(rows).flags.c_contiguous


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("coef", np.array([0.5, 0.001, -0.25])),
        ("coef", np.zeros((0, 0))),
        ("coef", np.array([[np.nan, 1.0, 1.0]])),
        ("coef", np.array([[1, 2, 3]])),
        ("coef", np.array([[0.5, -0.25]])),
        ("intercept", np.array([[0.125]])),
        ("features", np.array([], dtype=np.int64)),
        ("features", np.array([0.0, 2.0])),
        ("features", np.array([[0, 2]])),
        ("features", np.array([0, 2], dtype=np.int32)),
        ("features", np.array([-1, 2])),
        ("features", np.array([0, 3])),
        ("features", np.array([2, 0])),
        ("features", np.array([1, 1])),
        ("features", np.array([0, 1, 2])),
        ("weights", np.array([[2, -1]])),
        ("weights", np.array([[2.0], [-1.0]])),
        ("weights", np.array([["2"], ["-1"]])),
        ("bias", np.array([3, 3])),
        ("bias", np.array([3], dtype=np.int32)),
        ("input_scale", np.array(0.0)),
        ("input_scale", np.array(-1.0)),
        ("input_scale", np.array(np.inf)),
        ("input_scale", np.array([0.25])),
        ("input_zero_point", np.array(0.5)),
        ("input_low", np.array(2)),
        ("output_scale", np.array(0.0)),
        ("output_scale", np.array(1j)),
        ("output_zero_point", np.array(1)),
    ],
)
def test_arrays_that_make_no_reference_are_refused_by_name(
    tmp_path: Path, name: str, value: np.ndarray[Any, Any]
) -> None:
    path = tmp_path / "reference.npz"
    replace(SMALL, **{name: value}).write(path)
    # Where coef or features is wrong, others may no longer fit it.
    with pytest.raises(CloisterError, match="reference" if name in ("coef", "features") else name):
        Reference.read(path)


@pytest.mark.parametrize("missing", [field.name for field in fields(Reference)])
def test_a_missing_array_is_named(tmp_path: Path, missing: str) -> None:
    present = {
        field.name: getattr(SMALL, field.name)
        for field in fields(Reference)
        if field.name != missing
    }
    np.savez(tmp_path / "reference.npz", **present)
    with pytest.raises(CloisterError, match=rf"reference\.npz cannot be read.*{missing}"):
        Reference.read(tmp_path / "reference.npz")
