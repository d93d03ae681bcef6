"""Features from their declared bounds to [0, 1], identically at sites and at the key holder."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.schema import DatasetSchema

OutOfBounds = Literal["refuse", "clip"]
"""What happens to a value outside its feature's declared bounds."""


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
    _refuse_where(~np.isfinite(values), schema, "is missing or not finite; it must be in")
    clipped = np.clip(values, schema.lows, schema.highs)
    if out_of_bounds == "refuse":
        _refuse_where(clipped != values, schema, "is outside its declared bounds")
    # Rounding is monotone: within the bounds, neither 0 nor 1 can be passed.
    unit: npt.NDArray[np.float64] = (clipped - schema.lows) / (schema.highs - schema.lows)
    return unit


def _refuse_where(bad: npt.NDArray[np.bool_], schema: DatasetSchema, why: str) -> None:
    # The value itself stays out of the message: a site logs it.
    if bad.any():
        row, column = (int(i) for i in np.argwhere(bad)[0])
        feature = schema.features[column]
        raise CloisterError(
            f"row {row}, feature {feature.name}: the value {why} [{feature.low}, {feature.high}]"
        )
