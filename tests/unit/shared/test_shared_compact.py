"""How far messages may be rounded, and what rounding does to a phase."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_shared.compact import (
    FAILURE,
    Compact,
    choose_compact,
    failure_probability,
    packed_bytes,
)
from cloister_shared.linear import LinearCircuit

MNIST_STD = 2.0 ** (26.15 - 64)
"""At 8 bits: dimension 1577, width 23."""


def circuit(
    weights: np.ndarray[tuple[int, int], np.dtype[np.int64]], dimension: int, width: int
) -> LinearCircuit:
    bias = np.zeros(weights.shape[1], dtype=np.int64)
    return LinearCircuit(weights, bias, dimension, width)


def mnist() -> LinearCircuit:
    # Of about the norm that puts half a unit at 10 deviations of the noise.
    weights = np.random.default_rng(0).integers(-128, 128, (784, 10))
    norm = 2.0 ** (62 - 23 - 26.15) / 10
    scale = norm / np.linalg.norm(weights, axis=0).max()
    return circuit((weights * scale).astype(np.int64), 1577, 23)


def test_mnist_takes_the_bytes_that_were_aimed_at() -> None:
    compact = choose_compact(mnist(), MNIST_STD)
    assert compact is not None
    assert compact.input_bytes(784) <= 4 << 10
    assert compact.result_bytes(10, 1577) <= 62_000


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 12)),
    limit=st.integers(1, 256),
    dimension=st.integers(500, 3000),
    width=st.integers(2, 40),
    log2_std=st.floats(-60, -10),
)
def test_what_is_chosen_fails_seldom_enough_and_less_would_not(
    shape: tuple[int, int], limit: int, dimension: int, width: int, log2_std: float
) -> None:
    weights = np.random.default_rng(limit).integers(-limit, limit + 1, shape)
    made, std = circuit(weights, dimension, width), 2.0**log2_std
    compact = choose_compact(made, std)
    if compact is None:
        finest = Compact(body_bits=56, word_bits=56)
        coarse = min(math.ceil(-log2_std) + 4, 56)
        near = Compact(body_bits=max(coarse, 8), word_bits=56)
        assert (
            failure_probability(made, std, finest) >= FAILURE
            or failure_probability(made, std, near) >= FAILURE
            or not 4 <= round(-log2_std) <= 56
        )
        return
    assert failure_probability(made, std, compact) < FAILURE
    if compact.word_bits > 8:
        fewer = compact.model_copy(update={"word_bits": compact.word_bits - 1})
        assert failure_probability(made, std, fewer) >= FAILURE


def test_a_circuit_without_room_stays_as_it_is() -> None:
    weights = np.full((784, 10), 1 << 20, dtype=np.int64)
    assert choose_compact(circuit(weights, 1577, 23), MNIST_STD) is None


@pytest.mark.parametrize("outputs", [1, 10, 100])
def test_every_output_counts(outputs: int) -> None:
    weights = np.full((50, 1), 7, dtype=np.int64)
    compact = Compact(body_bits=38, word_bits=31)
    one = failure_probability(circuit(weights, 1577, 36), MNIST_STD, compact)
    all_ = failure_probability(
        circuit(np.repeat(weights, outputs, axis=1), 1577, 36), MNIST_STD, compact
    )
    assert all_ == pytest.approx(outputs * one)


def test_the_error_of_a_phase_has_the_variance_that_is_reckoned_with() -> None:
    """The service's rounding, in real arithmetic: 4,000 results of a made-up circuit."""
    rng = np.random.default_rng(0)
    n, weights, std, body_bits, word_bits = 600, rng.integers(-9, 10, 30), 2.0**-20, 21, 18
    errors = []
    for _ in range(4000):
        key = rng.integers(0, 2, n)
        noise = rng.normal(0, std, len(weights)) + rng.uniform(-1, 1, len(weights)) * 2.0 ** (
            -body_bits - 1
        )
        added = rng.uniform(-1, 1, n) * 2.0 ** (-word_bits - 1)
        body = rng.uniform(-1, 1) * 2.0 ** (-word_bits - 1)
        errors.append(weights @ noise + added.sum() / 2 + body - key @ added)
    compact = Compact(body_bits=body_bits, word_bits=word_bits)
    made = circuit(weights[:, None], n, 8)
    # Of the probability the deviation follows, through the inverse of its own formula.
    z = 2.0 ** (62 - 8 - 64) / np.std(errors)
    wide = circuit(weights[:, None], n, int(8 + math.log2(z) - 1))
    reckoned = failure_probability(wide, std, compact)
    observed = math.erfc(2.0 ** (62 - wide.width - 64) / np.std(errors) / math.sqrt(2))
    assert reckoned == pytest.approx(observed, rel=0.5)
    assert failure_probability(made, std, compact) < reckoned


@given(count=st.integers(0, 10_000), bits=st.integers(1, 64))
def test_packed_words_take_whole_bytes(count: int, bits: int) -> None:
    assert 0 <= 8 * packed_bytes(count, bits) - count * bits < 8
