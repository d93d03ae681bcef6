"""The sums over a site's rows, and what cannot be any."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cloister_shared.errors import CloisterError
from cloister_shared.schema import DatasetSchema, Feature, Target
from cloister_shared.standardising import Moments, Standardisation
from cloister_shared.sums import Sums

Floats = np.ndarray[Any, np.dtype[np.float64]]

TARGET = Target(low=-10, high=30)
DATA = DatasetSchema(
    dataset="drawn",
    task="regression",
    features=tuple(Feature(name=name, low=0, high=1) for name in "abc"),
    target=TARGET,
)
unit = st.floats(0, 1)


@given(st.data())
def test_the_sums_of_sites_add_up_to_those_of_all_rows(data: st.DataObject) -> None:
    rows = data.draw(st.integers(2, 8))
    inputs = data.draw(arrays(np.float64, (rows, 3), elements=unit))
    targets = data.draw(arrays(np.float64, rows, elements=st.floats(-10, 30)))
    cut = data.draw(st.integers(1, rows - 1))
    parts = [
        Sums.of(inputs[part], targets[part], TARGET) for part in (slice(cut), slice(cut, None))
    ]
    whole = Sums.of(inputs, targets, TARGET)
    for one in (*parts, whole):
        one.check(DATA)
    assert whole.rows == rows
    np.testing.assert_allclose(sum(one.gram for one in parts), whole.gram, atol=1e-12)
    columns = np.column_stack([np.ones(rows), inputs, (targets + 10) / 40])
    np.testing.assert_allclose(whole.gram, columns.T @ columns, atol=1e-12)


def test_standardised_they_are_the_sums_of_standardised_rows() -> None:
    generator = np.random.default_rng(2)
    inputs = generator.random((20, 3)) * [1.0, 0.01, 0.0] + [0.0, 0.7, 0.2]
    targets = generator.uniform(-10, 30, 20)
    standardisation = Standardisation.of(Moments.of(inputs))
    found = Sums.of(inputs, targets, TARGET).standardised(standardisation)
    expected = Sums.of(standardisation.standardise(inputs), targets, TARGET)
    np.testing.assert_allclose(found.gram, expected.gram, rtol=0, atol=1e-9)


def sums() -> Sums:
    generator = np.random.default_rng(1)
    return Sums.of(generator.random((20, 3)), generator.uniform(-10, 30, 20), TARGET)


def with_entry(row: int, column: int, value: float) -> Callable[[], Floats]:
    def change() -> Floats:
        gram = sums().gram.copy()
        gram[row, column] = gram[column, row] = value
        return gram

    return change


def one_sided() -> Floats:
    gram = sums().gram.copy()
    gram[1, 2] += 1e-3
    return gram


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda: sums().gram[:-1, :-1], r"shape \(4, 4\), not \(5, 5\)"),
        (lambda: sums().gram[0], r"shape \(5,\)"),
        (with_entry(1, 1, np.nan), "not finite"),
        (with_entry(1, 1, np.inf), "not finite"),
        (lambda: np.zeros((5, 5)), "of no rows"),
        (lambda: -sums().gram, "of no rows"),
        (one_sided, "not symmetric"),
        (with_entry(1, 2, -0.001), r"not those of values in \[0, 1\]"),
        (with_entry(3, 3, 1e6), r"not those of values in \[0, 1\]"),
        (with_entry(0, 3, 20.5), r"not those of values in \[0, 1\]"),
    ],
)
def test_what_cannot_be_sums_is_refused(change: Callable[[], Floats], told: str) -> None:
    with pytest.raises(CloisterError, match=told):
        Sums(change()).check(DATA)
