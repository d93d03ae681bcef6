"""Compact messages of linear circuits: less of a query and of a result, with the same integers.

A query is a master seed of 16 bytes, from which AES-128 makes every input's seed (the encryption of
the input's index, a little-endian block), and the inputs' bodies, rounded to their upper
``body_bits`` bits. A result is every word of its ciphertexts, rounded to its upper ``word_bits``
bits. Either is packed without gaps, lowest bits first.

Why the integers stay the same. Let a circuit of weights w add up ciphertexts of noise sigma
at LWE dimension n, in units of 2^-64. An integer is decoded wrongly where the error of its phase
reaches half a unit, 2^(62 - width).

- Noise and the rounding of bodies to t bits, an error that is uniform over 2^(64 - t), are added up
  by the weights: (sigma^2 + 2^(2 (64 - t)) / 12) |w|^2.
- Rounding a mask word to b bits leaves it wrong by r_k, uniform over 2^(64 - b), and the phase by
  s_k r_k where the key's bit s_k is 0 or 1. The service does not know s but adds sum r_k / 2 to the
  body before it rounds that: what is left, (s_k - 1/2) r_k, has a variance of 2^(2 (64 - b)) / 48
  whatever s_k is. The body's own rounding adds 2^(2 (64 - b)) / 12.

The sum is close to a Gaussian, of variance sd^2, and with z = 2^(62 - width) / sd the probability
that any of m outputs is wrong is at most m erfc(z / sqrt(2)).
"""

import math

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cloister_shared.linear import CIPHERTEXT_BITS, LinearCircuit

SMALLEST_BITS, LARGEST_BITS = 8, 56
MASTER_SEED_BYTES = 16
FINER = 4
"""Bits of a body beyond the noise's deviation that are tried: with these, rounding makes the
noise's variance a fiftieth of a percent larger."""
FAILURE = 2.0**-40
"""The largest probability that a result has a wrong integer."""


class Compact(BaseModel):
    """How far the messages of a circuit are rounded."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    body_bits: int = Field(ge=SMALLEST_BITS, le=LARGEST_BITS)
    """Of an input's body."""
    word_bits: int = Field(ge=SMALLEST_BITS, le=LARGEST_BITS)
    """Of a result's word."""

    def input_bytes(self, n_features: int) -> int:
        """Length of a query with so many inputs."""
        return MASTER_SEED_BYTES + packed_bytes(n_features, self.body_bits)

    def result_bytes(self, n_outputs: int, lwe_dimension: int) -> int:
        """Length of a result with so many ciphertexts."""
        return packed_bytes(n_outputs * (lwe_dimension + 1), self.word_bits)


def packed_bytes(count: int, bits: int) -> int:
    """Length of so many words of so many bits without gaps."""
    return -(-count * bits // 8)


def failure_probability(circuit: LinearCircuit, std: float, compact: Compact) -> float:
    """Return the largest probability that a result has a wrong integer; see the module.

    Args:
        circuit: whose messages are compact.
        std: of the noise of inputs, relative to 2^64.
        compact: how far they are rounded.
    """
    norm2 = float((circuit.weights.astype(np.float64) ** 2).sum(axis=0).max())
    # Everything relative to 2^64, where all of it is far from the ends of a float.
    body2, word2 = 2.0 ** (-2 * compact.body_bits), 2.0 ** (-2 * compact.word_bits)
    variance = (std**2 + body2 / 12) * norm2 + word2 * (circuit.lwe_dimension / 48 + 1 / 12)
    z = 2.0 ** (62 - circuit.width - CIPHERTEXT_BITS) / math.sqrt(variance)
    return circuit.weights.shape[1] * math.erfc(z / math.sqrt(2))


def choose_compact(circuit: LinearCircuit, std: float) -> Compact | None:
    """Return the fewest bits that keep the probability of a wrong result below ``FAILURE``.

    Bodies are rounded to about the noise's deviation or a little below, and words as far as that
    leaves room for.

    Args:
        circuit: whose messages are to be compact.
        std: of the noise of inputs, relative to 2^64.

    Returns:
        None where no rounding is small enough, and messages stay as they are.
    """
    n_features, n_outputs = circuit.weights.shape
    finest = round(-math.log2(std))
    fitting = (
        _fewest_word_bits(circuit, std, body_bits)
        for body_bits in range(max(finest, SMALLEST_BITS), min(finest + FINER, LARGEST_BITS) + 1)
    )
    return min(
        (compact for compact in fitting if compact),
        key=lambda compact: (
            compact.input_bytes(n_features) + compact.result_bytes(n_outputs, circuit.lwe_dimension)
        ),
        default=None,
    )


def _fewest_word_bits(circuit: LinearCircuit, std: float, body_bits: int) -> Compact | None:
    for word_bits in range(SMALLEST_BITS, LARGEST_BITS + 1):
        compact = Compact(body_bits=body_bits, word_bits=word_bits)
        if failure_probability(circuit, std, compact) < FAILURE:
            return compact
    return None
