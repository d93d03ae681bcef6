"""The noise: its distribution, and its function's own accuracy.

Under a key without a set bit the body of a ciphertext of zero is its noise.
"""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from test_lwe_core import scheme, smallest_std

from cloister_lwe import Key

Floats = npt.NDArray[np.float64]

DIMENSION = 450
STD = smallest_std(DIMENSION)
SAMPLES = 1 << 20
FALSE_ALARM = 1e-9
"""Of every statistic's test: seldom enough for a test that draws anew each time."""


def drawn(std: float) -> Floats:
    """Noise in units of its standard deviation, shape (SAMPLES,)."""
    used = scheme(DIMENSION, std=std)
    key = Key.from_bits(bytes(DIMENSION))
    ciphertexts = used.encrypt(key, np.zeros(SAMPLES, dtype=np.int64))
    words = np.frombuffer(ciphertexts, dtype="<i8").reshape(SAMPLES, 3)
    units: Floats = words[:, 2] / (std * 2.0**64)
    return units


@pytest.fixture(scope="module")
def noise() -> Floats:
    return drawn(STD)


def test_mean_and_variance_are_those_of_a_gaussian(noise: Floats) -> None:
    limit = stats.norm.isf(FALSE_ALARM / 2)
    assert abs(noise.mean()) < limit / math.sqrt(SAMPLES)
    assert abs(noise.var() - 1) < limit * math.sqrt(2 / SAMPLES)
    assert abs(stats.skew(noise)) < limit * math.sqrt(6 / SAMPLES)
    assert abs(stats.kurtosis(noise)) < limit * math.sqrt(24 / SAMPLES)


def test_the_distribution_is_a_gaussian(noise: Floats) -> None:
    assert stats.kstest(noise, "norm").pvalue > FALSE_ALARM


@pytest.mark.parametrize("beyond", [2.0, 3.0, 4.0, 4.5])
def test_there_is_as_much_in_the_tails(noise: Floats, beyond: float) -> None:
    expected = 2 * stats.norm.sf(beyond)
    found = int((abs(noise) > beyond).sum())
    assert stats.binomtest(found, SAMPLES, expected).pvalue > FALSE_ALARM


def test_the_tail_ends(noise: Floats) -> None:
    assert abs(noise).max() < math.sqrt(2 * 53 * math.log(2))


def test_one_noise_tells_nothing_of_the_next(noise: Floats) -> None:
    # Both of a pair come from the same bits, and so do their squares.
    first, second = noise[::2], noise[1::2]
    for one, other in [
        (first, second),
        (first**2, second**2),
        (abs(first), second),
        (first[:-1], second[1:]),
    ]:
        assert stats.pearsonr(one, other).pvalue > FALSE_ALARM


def test_an_odd_count_leaves_no_body_without_noise() -> None:
    used = scheme(DIMENSION)
    key = Key.from_bits(bytes(DIMENSION))
    for count in (1, 3, 7):
        ciphertexts = used.encrypt(key, np.zeros(count, dtype=np.int64))
        assert np.frombuffer(ciphertexts, dtype="<u8").reshape(count, 3)[:, 2].all()


def test_the_largest_deviation_is_kept() -> None:
    limit = stats.norm.isf(FALSE_ALARM / 2) * math.sqrt(2 / SAMPLES)
    assert abs(drawn(2.0**-6).var() - 1) < limit
