"""Masks, and how finely values are quantised, in secure aggregation."""

import hashlib

import numpy as np
import pytest
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from hypothesis import given
from hypothesis import strategies as st

from cloister_shared.datasets import DatasetName, schema
from cloister_shared.errors import CloisterError
from cloister_shared.secure_aggregation import (
    LOSS_LIMIT,
    MAX_QUANTISATION,
    MAX_SITES,
    MIN_QUANTISATION,
    MODULUS,
    mask,
    pack_sums,
    pack_tail,
    quantisation_range,
    strengthen,
    sum_error,
    unpack_metrics,
    unpack_sums,
)


@given(sites=st.integers(3, MAX_SITES))
def test_no_sum_over_all_sites_passes_the_modulus_and_no_finer_one_would_fit(sites: int) -> None:
    steps = quantisation_range(sites)
    assert MIN_QUANTISATION <= steps <= MAX_QUANTISATION
    assert steps & (steps - 1) == 0
    assert sites * steps < MODULUS
    assert steps == MAX_QUANTISATION or 2 * sites * steps >= MODULUS


@pytest.mark.parametrize("sites", [0, 1, 2, MAX_SITES + 1])
def test_too_few_and_too_many_sites_are_refused(sites: int) -> None:
    with pytest.raises(CloisterError, match=f"3 to 1023 sites, and these are {sites}"):
        quantisation_range(sites)


def test_a_mask_is_the_stream_of_shake_256() -> None:
    """Fixes the bytes: sites of one version must agree with those of the next."""
    stream = hashlib.shake_256(b"cloister secure aggregation mask 1\0seed").digest(4 * 7)
    first, second = mask(b"seed", MODULUS, [(1,), (2, 3)])
    words = np.frombuffer(stream, "<u4")
    assert first.dtype == second.dtype == np.int64
    assert np.array_equal(first, words[:1])
    assert np.array_equal(second, words[1:].reshape(2, 3))


def test_a_mask_is_uniform_over_the_modulus() -> None:
    (values,) = mask(b"seed", MODULUS, [(1 << 16,)])
    for shift in (0, 8, 16, 24):
        counts = np.bincount(values >> shift & 255, minlength=256)
        # Chi-square with 255 degrees of freedom has mean 255 and standard deviation 22.6.
        chi_square = np.sum((counts - 256) ** 2 / 256)
        assert 150 < chi_square < 360


def test_all_of_the_seed_counts_which_it_does_not_in_flowers_own() -> None:
    """Flower folds a seed to 32 bits, which can all be tried."""
    seed = bytes(range(32))
    other = seed[4:8] + seed[:4] + seed[8:]
    shapes: list[tuple[int, ...]] = [(100,)]
    assert np.array_equal(
        pseudo_rand_gen(seed, MODULUS, shapes)[0], pseudo_rand_gen(other, MODULUS, shapes)[0]
    )
    assert not np.array_equal(mask(seed, MODULUS, shapes)[0], mask(other, MODULUS, shapes)[0])


def test_another_modulus_is_refused() -> None:
    with pytest.raises(CloisterError, match="modulo 4294967296, not 256"):
        mask(b"seed", 256, [(1,)])


def test_a_version_of_flower_that_makes_masks_elsewhere_is_refused() -> None:
    with pytest.raises(CloisterError, match=r"than 1\.41"):
        strengthen(hashlib.sha256)


@given(
    accuracy=st.floats(0, 1),
    loss=st.floats(0, LOSS_LIMIT),
    clipping_range=st.floats(1e-3, 1e3),
)
def test_a_tail_is_within_the_range_and_can_be_read(
    accuracy: float, loss: float, clipping_range: float
) -> None:
    data = schema("digits")
    tail = pack_tail(clipping_range, (accuracy, loss), data)
    assert (np.abs(tail) <= clipping_range).all()
    assert tail[0] == clipping_range
    assert unpack_metrics(tail, clipping_range, data) == pytest.approx((accuracy, loss))


@given(error=st.floats(0, 359), square=st.floats(0, 359**2), clipping_range=st.floats(1e-3, 1e3))
def test_a_regressions_errors_are_packed_by_the_width_of_its_target(
    error: float, square: float, clipping_range: float
) -> None:
    data = schema("diabetes")
    tail = pack_tail(clipping_range, (error, square), data)
    assert (np.abs(tail) <= clipping_range).all()
    assert unpack_metrics(tail, clipping_range, data) == pytest.approx((error, square))


@pytest.mark.parametrize(
    ("dataset", "beyond", "told"),
    [("diabetes", (400.0, 1e9), (359.0, 359.0**2)), ("digits", (1.0, 41.0), (1.0, LOSS_LIMIT))],
)
def test_what_is_beyond_the_tail_counts_as_its_end(
    dataset: DatasetName, beyond: tuple[float, float], told: tuple[float, float]
) -> None:
    data = schema(dataset)
    assert unpack_metrics(pack_tail(8.0, beyond, data), 8.0, data) == pytest.approx(told)


def test_nothing_but_the_constant_is_packed_where_nothing_is_told() -> None:
    assert pack_tail(8.0, None, schema("digits")).tolist() == [8.0]


def test_metrics_that_rounding_carried_past_their_ends_are_moved_back() -> None:
    assert unpack_metrics(np.array([8.0, 8.0001, -0.0001]), 8.0, schema("digits")) == (1.0, 0.0)


@given(
    sites=st.sampled_from([3, 4, 10, 100, MAX_SITES]),
    most=st.integers(1, MIN_QUANTISATION),
    clipping_range=st.floats(1e-3, 1e3),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_total_is_off_by_less_than_its_bound(
    sites: int, most: int, clipping_range: float, seed: int
) -> None:
    """As Flower rounds, which one number for each sum would not bear."""
    generator = np.random.default_rng(seed)
    sums = generator.random((sites, 5)) * most * 10.0 ** generator.integers(-6, 1, (sites, 5))
    sums[0] = [0, most, most / 2, 1, most / 3]
    steps = quantisation_range(sites)
    packed = [pack_sums(one, most, clipping_range) for one in sums]
    assert all((one >= 0).all() and (one <= clipping_range).all() for one in packed)
    quantised = np.array([quantize([one], clipping_range, steps)[0] for one in packed])
    (mean,) = dequantize([quantised.sum(axis=0) / sites], clipping_range, steps)
    total = unpack_sums(mean, sites, most, clipping_range)
    assert total.shape == (5,)
    # Beside what is rounded where numbers of the size of the total are added up.
    rounding = 1e-15 * most * sites
    assert np.abs(total - sums.sum(axis=0)).max() < sum_error(sites, most) + rounding


def test_the_number_of_rows_is_exact() -> None:
    packed = [pack_sums(np.array([float(rows)]), 100_000, 8.0) for rows in range(430, 440)]
    quantised = [quantize([one], 8.0, 1 << 28)[0] for one in packed]
    (mean,) = dequantize([np.mean(quantised, axis=0)], 8.0, 1 << 28)
    assert unpack_sums(mean, 10, 100_000, 8.0)[0] == pytest.approx(4345, abs=1e-8)
    assert sum_error(10, 100_000) < 1e-8
