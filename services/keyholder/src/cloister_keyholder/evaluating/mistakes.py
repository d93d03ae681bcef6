"""Where encrypted predictions were wrong: as counts and deciles, from which no row can be told."""

import math
from collections import Counter
from typing import Annotated, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cloister_keyholder.evaluating.parts import Part

FEWEST_FOR_DECILES = 20
"""Samples: deciles of fewer are nearly the errors of single rows."""

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Deciles = Annotated[tuple[float | None, ...], Field(min_length=9, max_length=9)]
"""From the first, below which a tenth of the samples lies, to the ninth; None is more than a float
holds."""


class Pair(Part):
    """How many samples were expected to be of one class and predicted to be of another, or it."""

    expected: int = Field(ge=0)
    """Position among the card's classes, as ``predicted`` is."""
    predicted: int = Field(ge=0)
    """By encrypted execution."""
    samples: int = Field(ge=1)


class Confusion(Part):
    """The confusion matrices of a classification, as the pairs that occurred, in their order."""

    labels: tuple[Pair, ...]
    """Expected is a sample's label."""
    clear_quantised: tuple[Pair, ...] | None
    """Expected is what the quantised integers give in the clear; None without a reference."""

    @classmethod
    def of(cls, encrypted: Integers, labels: Integers, clear: Integers | None) -> Self:
        """Count positions of classes, each of shape (n,)."""
        return cls(
            labels=_pairs(labels, encrypted),
            clear_quantised=None if clear is None else _pairs(clear, encrypted),
        )


class ErrorDeciles(Part):
    """Deciles of a regression's absolute errors, in the unit of its target."""

    float_model: Deciles | None
    """This and ``clear_quantised`` are None without a reference."""
    clear_quantised: Deciles | None
    encrypted: Deciles


def deciles(predicted: Floats | Integers, answers: Floats | Integers) -> Deciles:
    """Return the nine deciles of absolute errors; both are of shape (n,)."""
    # Beside an error that is more than a float holds, there is no number between two of them.
    with np.errstate(invalid="ignore"):
        tenths = np.percentile(np.abs(answers - predicted), range(10, 100, 10))
    return tuple(one if math.isfinite(one) else None for one in tenths.tolist())


def _pairs(expected: Integers, predicted: Integers) -> tuple[Pair, ...]:
    counted = Counter(zip(expected.tolist(), predicted.tolist(), strict=True))
    return tuple(
        Pair(expected=one, predicted=other, samples=samples)
        for (one, other), samples in sorted(counted.items())
    )
