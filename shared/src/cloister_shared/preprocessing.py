"""Raw rows to a model's inputs in [0, 1], identically at sites and at the key holder.

A row is *encoded* first: one number a feature, which is the value itself, or a label's position
among its feature's categories. Missing values are NaN, and unknown labels ``UNKNOWN``. What is
encoded is checked, and becomes inputs by the schema alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt

from cloister_shared.cells import is_missing, to_number
from cloister_shared.errors import CloisterError
from cloister_shared.labels import UNKNOWN
from cloister_shared.schema import Category, DatasetSchema, Feature

OutOfBounds = Literal["refuse", "clip"]
"""What happens to a value outside its feature's declared bounds."""

Floats = npt.NDArray[np.float64]


class Frame(Protocol):
    """A data frame, such as pandas': columns by their names."""

    @property
    def columns(self) -> Iterable[Any]:
        """Names."""

    def __getitem__(self, name: Any, /) -> Any:
        """Return the values of a column."""


Table = npt.ArrayLike | Sequence["Row"] | Frame
"""Raw rows: numbers, and labels where features are categories."""
Row = npt.ArrayLike | Sequence[object]
"""One of them."""


@dataclass(frozen=True)
class Misfit:
    """A value that cannot be mapped; it says where and why, and never the value."""

    row: int
    """Position among the rows, from 0."""
    column: int
    """Position in the schema's features."""
    why: str
    """Follows the words "the value"."""


def encode(rows: Table, schema: DatasetSchema) -> Floats:
    """Return rows as one number a feature, shape (n, n_features).

    Args:
        rows: a table of numbers, and of labels where features are categories, shape
            (n, n_features), in the schema's order; or a data frame, by the names of its columns,
            of which others are not read.
        schema: the features.

    Raises:
        CloisterError: ``rows`` is no such table. Values are not checked.
    """
    if hasattr(rows, "columns"):
        return _encode_columns(_frame_columns(cast("Frame", rows), schema), schema)
    try:
        table = rows if isinstance(rows, np.ndarray) else _table(rows)
        if table.dtype.kind in "biuf" and not schema.has_categories:
            table = np.ascontiguousarray(table, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise CloisterError("features must be a table with rows of equal length") from None
    if table.ndim != 2 or table.shape[1] != schema.n_features:
        raise CloisterError(
            f"features have shape {table.shape}; {schema.dataset} needs (n, {schema.n_features})"
        )
    if table.dtype == np.float64 and not schema.has_categories:
        return table
    return _encode_columns(list(table.T), schema)


def _table(rows: Any) -> npt.NDArray[Any]:
    table: npt.NDArray[Any] = np.asarray(rows)
    # Of numbers and texts numpy would make texts.
    return table if table.dtype.kind in "biuf" else np.array(rows, dtype=object)


def _frame_columns(frame: Frame, schema: DatasetSchema) -> list[npt.NDArray[Any]]:
    there = [str(name) for name in frame.columns]
    names = [feature.name for feature in schema.features]
    if lacking := [name for name in names if there.count(name) != 1]:
        shown = ", ".join(map(repr, lacking[:10]))
        raise CloisterError(
            f"the columns {shown} of {schema.dataset} are missing, or there more than once"
        )
    return [np.asarray(frame[name]) for name in names]


def _encode_columns(columns: Sequence[npt.NDArray[Any]], schema: DatasetSchema) -> Floats:
    encoded = np.empty((len(columns[0]), schema.n_features))
    for position, (column, feature) in enumerate(zip(columns, schema.features, strict=True)):
        if isinstance(feature, Category):
            encoded[:, position] = encode_labels(column.tolist(), feature)
        elif column.dtype.kind in "biuf":
            encoded[:, position] = column
        else:
            encoded[:, position] = [to_number(value) for value in column.tolist()]
    return encoded


def encode_labels(labels: Sequence[object], feature: Category) -> Floats:
    """Return labels' positions among the categories, NaN where none is there, shape (n,)."""
    encoded = feature.positions.of(labels).astype(np.float64)
    for row in np.flatnonzero(encoded == UNKNOWN):
        if is_missing(labels[row]):
            encoded[row] = np.nan
    return encoded


def decode(encoded: Floats, schema: DatasetSchema) -> npt.NDArray[Any]:
    """Return what :func:`encode` gives these numbers for again, shape (n, n_features).

    Args:
        encoded: checked, so that no label is unknown.
        schema: the features.

    Returns:
        The numbers themselves where all features are numbers; else texts, empty where a value is
        missing.
    """
    if not schema.has_categories:
        return encoded
    table = np.empty(encoded.shape, dtype=object)
    for position, feature in enumerate(schema.features):
        table[:, position] = [_text(value, feature) for value in encoded[:, position].tolist()]
    return table.astype(str)


def _text(value: float, feature: Feature | Category) -> str:
    if np.isnan(value):
        return ""
    if isinstance(feature, Category):
        return "?" if value == UNKNOWN else str(feature.categories[int(value)])
    return repr(value)


def misfits(
    encoded: Floats, schema: DatasetSchema, out_of_bounds: OutOfBounds, limit: int
) -> list[Misfit]:
    """Return the values that :func:`to_inputs` refuses, the first ``limit`` of them by row.

    Args:
        encoded: by :func:`encode`, shape (n, n_features).
        schema: the bounds, categories and policies.
        out_of_bounds: ``clip`` allows values outside their bounds.
        limit: how many to name.
    """
    bounds = schema.bounds
    # Written so that what is not a number is outside too.
    bad = ~((encoded >= bounds.lows) & (encoded <= bounds.highs))
    if out_of_bounds == "clip":
        bad &= bounds.categories | ~np.isfinite(encoded)
    if not bad.any():
        return []
    bad &= ~(np.isfinite(bounds.missing) & np.isnan(encoded))
    bad &= ~(bounds.ignores_unknown & (encoded == UNKNOWN))
    return [
        Misfit(int(row), int(column), _why(encoded[row, column], schema.features[column]))
        for row, column in np.argwhere(bad)[:limit]
    ]


def _why(value: np.float64, feature: Feature | Category) -> str:
    if np.isnan(value):
        return f"is missing; {feature.described}"
    if isinstance(feature, Category):
        return f"is not among its categories; {feature.described}"
    if np.isfinite(value):
        return f"is outside its declared bounds [{feature.low}, {feature.high}]"
    return f"is not finite, or no number; {feature.described}"


def to_inputs(
    rows: Table, schema: DatasetSchema, out_of_bounds: OutOfBounds = "refuse"
) -> npt.NDArray[np.float64]:
    """Map raw rows to inputs: numbers affinely by their bounds, labels to one input a category.

    One quantiser serves all inputs of a circuit; bringing every feature to the same range is what
    lets it spend its bits on each of them equally. Whatever the rows, inputs are in [0, 1], so
    that no circuit calibrated for that range can overflow.

    Args:
        rows: see :func:`encode`.
        schema: the bounds, categories and policies.
        out_of_bounds: ``refuse`` raises for a value outside its bounds, ``clip`` moves it to the
            nearer bound.

    Returns:
        C-contiguous array of shape (n, n_inputs) with values in [0, 1].

    Raises:
        CloisterError: wrong shape, a value that is missing or not a finite number, an unknown
            label, each unless the schema has a policy for it, or, under ``refuse``, a value outside
            its bounds. The message names row and feature, and never the value.
    """
    encoded = encode(rows, schema)
    for misfit in misfits(encoded, schema, out_of_bounds, limit=1):
        # The value itself stays out of the message: a site logs it.
        name = schema.features[misfit.column].name
        raise CloisterError(f"row {misfit.row}, feature {name}: the value {misfit.why}")
    return inputs_of(encoded, schema)


def inputs_of(encoded: Floats, schema: DatasetSchema) -> Floats:
    """Return the inputs of encoded rows that have no misfits, shape (n, n_inputs), in [0, 1]."""
    bounds = schema.bounds
    filled = np.where(np.isnan(encoded), bounds.missing, encoded)
    clipped = np.clip(filled, bounds.lows, bounds.highs)
    # Rounding is monotone: within the bounds, neither 0 nor 1 can be passed.
    unit: Floats = (clipped - bounds.lows) / (bounds.highs - bounds.lows)
    if schema.has_categories:
        return _one_hot(filled, unit, schema)
    if schema.image_shape and schema.pool > 1:
        return _pooled(unit, schema.image_shape, schema.pool)
    return unit


def _one_hot(filled: Floats, unit: Floats, schema: DatasetSchema) -> Floats:
    inputs = np.zeros((len(unit), schema.n_inputs))
    start = 0
    for position, feature in enumerate(schema.features):
        if isinstance(feature, Category):
            # An ignored label's position is that of no category.
            known = np.arange(feature.n_inputs)
            inputs[:, start : start + feature.n_inputs] = filled[:, [position]] == known
        else:
            inputs[:, start] = unit[:, position]
        start += feature.n_inputs
    return inputs


def _pooled(unit: Floats, shape: tuple[int, int], pool: int) -> Floats:
    height, width = shape
    blocks = unit.reshape(len(unit), height // pool, pool, width // pool, pool)
    # The mean of numbers up to 1 can be rounded to above 1.
    means: Floats = np.minimum(blocks.mean(axis=(2, 4)), 1.0)
    return means.reshape(len(unit), -1)
