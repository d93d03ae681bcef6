"""What an encrypted prediction costs, before anything is compiled."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from cloister_shared.linear import SEEDED_LWE_BYTES
from cloister_shared.security import CURVE_BIAS, CURVE_SLOPE

Integers = npt.NDArray[np.int64]

SMALLEST_DIMENSION = 512
"""The smallest that its optimiser takes."""
ERROR_PROBABILITY = 2.0**-64
"""That one score is wrong, before messages are rounded. Concrete ML's default is 2^-40, which
leaves no room for that; this one takes a dimension that is 1 % larger, and compact results have a
bit or two less a word for it."""

ENCRYPTION_SECONDS_PER_WORD = 73e-9
"""One core with AVX-512: Concrete encrypted 784 inputs of dimension 1577 in 90 ms."""
WORD_BYTES = 8
EXPANSION_BYTES_PER_SECOND = 24.7e9
MULTIPLY_ADDS_PER_SECOND = 20.6e9
"""One core with AVX-512 and VAES: the masks of 784 inputs of dimension 1577 were expanded in
.40 ms, and expanded and multiplied with 10 outputs' weights in 1.0 ms."""


def lwe_dimension(weights: Integers, zero_point: int, bias: Integers, inputs: Integers) -> int:
    """Predict the LWE dimension of the circuit that Concrete compiles of a linear model.

    A levelled circuit's noise has the standard deviation of a fresh ciphertext times the 2-norm of
    its integer weights, and must stay below half a step of a score at the error probability:
    ``z * 2**(slope * n + bias) * norm <= 2**-(width + 2)``. The smallest such ``n`` is what
    Concrete's optimiser finds. Its circuit computes ``q @ w - zero_point * sum(q)``, so that the
    norm is that of ``w`` and of the zero point for every feature, and the width that of the widest
    of these terms.

    Args:
        weights: quantised, the zero point not subtracted, shape (n_features, n_outputs).
        zero_point: of the weights.
        bias: of the integer scores, shape (n_outputs,).
        inputs: quantised rows that the circuit is calibrated with, shape (n, n_features); they set
            the width.
    """
    product, total = inputs @ weights, inputs.sum(axis=1, keepdims=True)
    scores = product - zero_point * total
    terms = (inputs, product, total, zero_point * total, scores, scores + bias)
    width = max(_width(term) for term in terms)
    squares = (weights.astype(np.float64) ** 2).sum(axis=0).max()
    squares += len(weights) * float(zero_point) ** 2
    # Without any weight, the noise is still that of a fresh ciphertext.
    squares = max(squares, 1.0)
    # The lower one: 1 less so little is 1.
    quantile = -NormalDist().inv_cdf(ERROR_PROBABILITY / 2)
    log2_std = -(width + 2) - math.log2(quantile) - math.log2(squares) / 2
    return max(math.ceil((log2_std - CURVE_BIAS) / CURVE_SLOPE), SMALLEST_DIMENSION)


def floor_ms(n_features: int, n_outputs: int, dimension: int) -> float:
    """Return the milliseconds that evaluating a linear circuit takes at least, on one core.

    Every input's mask of ``dimension`` words is expanded from its seed by AES, and every word is
    multiplied with a weight and added for each output.
    """
    words = n_features * dimension
    seconds = (
        words * WORD_BYTES / EXPANSION_BYTES_PER_SECOND
        + words * n_outputs / MULTIPLY_ADDS_PER_SECOND
    )
    return 1000 * seconds


def client_ms(n_features: int, dimension: int) -> float:
    """Return about how many milliseconds Concrete's client takes to encrypt a row, on one core.

    The native client takes a hundredth to a two-hundredth of it, in proportion to the same words.
    """
    return 1000 * n_features * dimension * ENCRYPTION_SECONDS_PER_WORD


def bytes_up(n_features: int) -> int:
    """Return the bytes of an encrypted row, without an envelope of a few hundred."""
    return n_features * SEEDED_LWE_BYTES


def bytes_down(n_outputs: int, dimension: int) -> int:
    """Return the bytes of an encrypted result, likewise."""
    return n_outputs * (dimension + 1) * WORD_BYTES


def _width(term: Integers) -> int:
    """Bits that hold every value of ``term``, the sign included where one is negative."""
    low, high = int(term.min()), int(term.max())
    return max(high.bit_length() + (low < 0), (-low - 1).bit_length() + 1 if low < 0 else 0, 1)
