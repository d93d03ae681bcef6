"""Means and deviations of all sites' rows from sums, and weights that are rewritten by them."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import StandardScaler

from cloister_shared.errors import CloisterError
from cloister_shared.schema import DatasetSchema, Feature
from cloister_shared.standardising import Moments, Standardisation
from cloister_shared.weights import LinearWeights

Floats = np.ndarray[Any, np.dtype[np.float64]]

DATA = DatasetSchema(
    dataset="drawn",
    features=tuple(Feature(name=name, low=0, high=1) for name in "abc"),
    classes=("no", "yes"),
)
# A thousandth apart, so that what is not constant has a variance that is none of rounding.
thousandths = st.integers(0, 1000).map(lambda number: number / 1000)


@given(st.data())
def test_what_sites_sum_comes_to_means_and_deviations_of_all_rows(data: st.DataObject) -> None:
    rows = data.draw(st.integers(3, 12))
    inputs = data.draw(arrays(np.float64, (rows, 3), elements=thousandths))
    cuts = sorted(data.draw(st.lists(st.integers(1, rows - 1), max_size=3, unique=True)))
    each = [Moments.of(part) for part in np.split(inputs, cuts)]
    total = Moments(np.sum([one.values for one in each], axis=0))
    for one in (*each, total):
        one.check(DATA)
    assert total.rows == rows
    found = Standardisation.of(total)
    found.check(DATA)
    pooled = StandardScaler().fit(inputs)
    np.testing.assert_allclose(found.means, pooled.mean_, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.deviations, pooled.scale_, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.standardise(inputs), pooled.transform(inputs), atol=1e-5)


def rows() -> Floats:
    generator = np.random.default_rng(3)
    inputs = generator.random((50, 3)) * [1.0, 1e-3, 0.0] + [0.0, 0.4, 1 / 3]
    return np.asarray(inputs)


def test_folded_weights_score_as_those_for_standardised_inputs_do() -> None:
    generator = np.random.default_rng(4)
    weights = LinearWeights(generator.normal(size=(4, 3)), generator.normal(size=4))
    standardisation = Standardisation.of(Moments.of(rows()))
    folded = standardisation.fold(weights)
    expected = weights.scores(standardisation.standardise(rows()))
    np.testing.assert_allclose(folded.scores(rows()), expected, rtol=0, atol=1e-10)


def test_an_input_that_is_constant_is_divided_by_1() -> None:
    standardisation = Standardisation.of(Moments.of(rows()))
    assert standardisation.deviations[2] == 1.0
    assert standardisation.deviations[1] == pytest.approx(rows()[:, 1].std(), rel=1e-6)
    assert np.abs(standardisation.standardise(rows())[:, 2]).max() < 1e-9
    weights = LinearWeights(np.array([[1.0, 2.0, 3.0]]), np.array([0.5]))
    assert standardisation.fold(weights).coef[0, 2] == 3.0


def test_the_ends_of_the_range_are_means_that_can_be() -> None:
    """Of a third, say, the sum of 3 divided by 3 may be off by rounding, and so may 1 be."""
    moments = Moments(np.array([3.0, 3.0 + 1e-9, -1e-9, 1.0, 3.0, 0.0, 1.0]))
    moments.check(DATA)
    assert Standardisation.of(moments).means[:2] == (1.0, 0.0)


def test_it_comes_back_from_json_to_the_last_bit() -> None:
    standardisation = Standardisation.of(Moments.of(rows()))
    assert Standardisation.parse(standardisation.model_dump_json()) == standardisation


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"means": [0.5]}',
        '{"means": [1.5], "deviations": [0.1]}',
        '{"means": [0.5], "deviations": [0.0]}',
        '{"means": [0.5], "deviations": [-0.1]}',
        '{"means": [NaN], "deviations": [0.1]}',
        '{"means": [0.5], "deviations": [0.1], "more": 1}',
    ],
)
def test_what_is_no_standardisation_is_refused(text: str) -> None:
    with pytest.raises(CloisterError, match="this is no standardisation"):
        Standardisation.parse(text)


@pytest.mark.parametrize("counts", [(2, 2), (3, 2), (4, 3)])
def test_one_of_other_inputs_is_refused(counts: tuple[int, int]) -> None:
    means, deviations = ((0.5,) * count for count in counts)
    with pytest.raises(CloisterError, match="inputs, and drawn has 3"):
        Standardisation(means=means, deviations=deviations).check(DATA)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([2.0, 1.0, 1.0, 1.0], r"shape \(4,\), not \(7,\)"),
        ([2.0, np.nan, 1.0, 1.0, 1.0, 1.0, 1.0], "not finite"),
        ([np.inf, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "not finite"),
        ([0.0] * 7, "of no rows"),
        ([-2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "of no rows"),
        ([2.0, 2.1, 1.0, 1.0, 2.0, 1.0, 1.0], "not those of values in"),
        ([2.0, -0.1, 1.0, 1.0, 0.1, 1.0, 1.0], "not those of values in"),
        ([2.0, 1.0, 1.0, 1.0, 1.1, 1.0, 1.0], "not those of values in"),
        ([2.0, 1.0, 1.0, 1.0, 0.4, 1.0, 1.0], "not those of values in"),
    ],
)
def test_what_cannot_be_moments_is_refused(values: list[float], told: str) -> None:
    with pytest.raises(CloisterError, match=told):
        Moments(np.array(values)).check(DATA)


def test_sums_that_may_be_off_are_taken_within_that() -> None:
    moments = Moments(np.array([2.0, 1.0, 1.0, 1.0, 1.0 + 1e-5, 1.0, 1.0]))
    with pytest.raises(CloisterError, match="not those of values in"):
        moments.check(DATA)
    moments.check(DATA, error=2e-5)
