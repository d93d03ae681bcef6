"""A linear model in integers as the compiler will make it, without the compiler.

Uniform quantisation as Concrete ML 1.9 does it: inputs and weights each have one scale and one
zero point, set by their smallest and their largest value. Of the inputs those are 0 and 1, the
bounds that the compiler calibrates from.
"""

import numpy as np

from cloister_shared.errors import CloisterError
from cloister_shared.links import Floats
from cloister_shared.reference import Quantiser, Reference
from cloister_shared.weights import LinearWeights

ONE_VALUE = 1e-6
"""Weights that lie within this of each other count as one value."""


def _quantiser(low: float, high: float, bits: int) -> Quantiser:
    steps = 2**bits - 1
    if high - low < ONE_VALUE:
        # One value alone becomes 1, or 0 where it is none.
        return Quantiser(1.0 if abs(high) < ONE_VALUE else high, 0, 0, steps)
    offset = 2 ** (bits - 1)
    zero = np.round((-offset * high - (steps - offset) * low) / (high - low))
    return Quantiser((high - low) / steps, int(zero), -offset, steps - offset)


def weight_quantiser(coef: Floats, bits: int) -> Quantiser:
    """Return the quantiser of weights of shape (n_outputs, n_inputs)."""
    return _quantiser(float(coef.min()), float(coef.max()), bits)


def quantised(weights: LinearWeights, bits: int, bits_weights: int | None = None) -> Reference:
    """Quantise inputs and weights.

    Args:
        weights: finite.
        bits: of the inputs, 2 to 8.
        bits_weights: of the weights, likewise; by default as many.

    Returns:
        The circuit on all inputs; its integer scores are those of what the compiler publishes.

    Raises:
        CloisterError: the intercepts are too large for the scale that the weights give.
    """
    coef = weights.coef
    inputs = _quantiser(0.0, 1.0, bits)
    scaled = weight_quantiser(coef, bits if bits_weights is None else bits_weights)
    integers = (scaled.quantise(coef) - scaled.zero_point).T
    scale = inputs.scale * scaled.scale
    zero_point = inputs.zero_point * integers.sum(axis=0)
    bias: Floats = np.rint(weights.intercept / scale + zero_point)
    if not (np.abs(bias) < 2.0**62).all():
        raise CloisterError(
            f"the intercepts are too large to be quantised beside weights up to "
            f"{np.abs(coef).max():.1e}: regularise more"
        )
    return Reference(
        coef=coef,
        intercept=weights.intercept,
        features=np.arange(coef.shape[1]),
        weights=np.ascontiguousarray(integers),
        bias=bias.astype(np.int64),
        input_scale=np.array(inputs.scale),
        input_zero_point=np.array(inputs.zero_point),
        input_low=np.array(inputs.low),
        input_high=np.array(inputs.high),
        output_scale=np.array(scale),
        output_zero_point=2 * zero_point,
    )


def quantised_scores(weights: LinearWeights, bits: int, inputs: Floats) -> Floats:
    """Return the scores of the quantised model, shape (n, n_outputs).

    Args:
        weights: finite.
        bits: 2 to 8.
        inputs: in [0, 1], shape (n, n_inputs).

    Raises:
        CloisterError: as ``quantised``.
    """
    circuit = quantised(weights, bits)
    return circuit.dequantise(circuit.integer_scores(circuit.quantise(inputs)))
