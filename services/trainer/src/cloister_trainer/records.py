"""Weights as Flower's records."""

import numpy as np
from flwr.app import Array, ArrayRecord

from cloister_shared import flower
from cloister_shared.weights import LinearWeights


def to_record(weights: LinearWeights) -> ArrayRecord:
    """Return the record that carries these weights."""
    return ArrayRecord(
        {flower.COEF: Array(weights.coef), flower.INTERCEPT: Array(weights.intercept)}
    )


def to_weights(record: ArrayRecord) -> LinearWeights:
    """Return the weights that a record carries.

    Raises:
        KeyError: an array is missing.
        TypeError: an array holds something else than real numbers.
        ValueError: an array's bytes are damaged.
    """
    return LinearWeights(
        record[flower.COEF].numpy().astype(np.float64, casting="same_kind"),
        record[flower.INTERCEPT].numpy().astype(np.float64, casting="same_kind"),
    )
