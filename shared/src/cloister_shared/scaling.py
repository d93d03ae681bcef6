"""Features from their declared bounds to [0, 1], identically at sites and at the key holder."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.schema import DatasetSchema, Feature

OutOfBounds = Literal["refuse", "clip"]
"""What happens to a value outside its feature's declared bounds."""


@dataclass(frozen=True)
class Misfit:
    """A value that cannot be mapped; it says where and why, and never the value."""

    row: int
    """Position among the rows, from 0."""
    column: int
    """Position in the schema's features."""
    why: str
    """Follows the words "the value"."""


def misfits(
    values: npt.NDArray[np.float64], schema: DatasetSchema, out_of_bounds: OutOfBounds, limit: int
) -> list[Misfit]:
    """Return the values that :func:`to_unit` refuses, the first ``limit`` of them by row.

    Args:
        values: raw values, shape (n, n_features).
        schema: the bounds.
        out_of_bounds: ``clip`` allows values outside their bounds.
        limit: how many to name.
    """
    bad = ~np.isfinite(values)
    if out_of_bounds == "refuse":
        # Written so that what is not a number is outside too.
        bad |= ~((values >= schema.lows) & (values <= schema.highs))
    if not bad.any():
        return []
    return [
        Misfit(int(row), int(column), _why(values[row, column], schema.features[column]))
        for row, column in np.argwhere(bad)[:limit]
    ]


def _why(value: np.float64, feature: Feature) -> str:
    bounds = f"[{feature.low}, {feature.high}]"
    if np.isfinite(value):
        return f"is outside its declared bounds {bounds}"
    return f"is missing or not finite; it must be in {bounds}"


def to_unit(
    rows: npt.ArrayLike, schema: DatasetSchema, out_of_bounds: OutOfBounds = "refuse"
) -> npt.NDArray[np.float64]:
    """Map each feature affinely so that its low becomes 0 and its high becomes 1.

    One quantiser serves all features of a circuit; bringing every feature to the same range is
    what lets it spend its bits on each of them equally.

    Args:
        rows: raw values, shape (n, n_features).
        schema: the bounds.
        out_of_bounds: ``refuse`` raises for a value outside its bounds, ``clip`` moves it to the
            nearer bound.

    Returns:
        C-contiguous array of shape (n, n_features) with values in [0, 1].

    Raises:
        CloisterError: wrong shape, a value that is not a finite number, or, under ``refuse``, a
            value outside its bounds. The message names row and feature, and never the value.
    """
    try:
        values = np.ascontiguousarray(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise CloisterError(
            "features must be a table of numbers with rows of equal length; encode text columns "
            "first"
        ) from None
    if values.ndim != 2 or values.shape[1] != schema.n_features:
        raise CloisterError(
            f"features have shape {values.shape}; {schema.dataset} needs (n, {schema.n_features})"
        )
    for misfit in misfits(values, schema, out_of_bounds, limit=1):
        # The value itself stays out of the message: a site logs it.
        name = schema.features[misfit.column].name
        raise CloisterError(f"row {misfit.row}, feature {name}: the value {misfit.why}")
    clipped = np.clip(values, schema.lows, schema.highs)
    # Rounding is monotone: within the bounds, neither 0 nor 1 can be passed.
    unit: npt.NDArray[np.float64] = (clipped - schema.lows) / (schema.highs - schema.lows)
    return unit
