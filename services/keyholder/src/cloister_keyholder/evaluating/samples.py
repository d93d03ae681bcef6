"""The key holder's own samples: a held-out set with labels, or a CSV file of rows."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister_keyholder.errors import InvalidSamples
from cloister_shared.cells import is_number, number
from cloister_shared.errors import CloisterError
from cloister_shared.labels import UNKNOWN
from cloister_shared.npz import read_labelled
from cloister_shared.preprocessing import encode_labels
from cloister_shared.samples import HELD_OUT, SCHEMA
from cloister_shared.schema import Answers, Category, DatasetSchema, Feature, read_schema


@dataclass(frozen=True)
class HeldOut:
    """Labelled samples that no site trained with."""

    schema: DatasetSchema
    rows: npt.NDArray[Any]
    """Raw values, shape (n, n_features): numbers, or texts where features are categories."""
    answers: Answers
    """Position of each row's label in ``schema.classes``, or its target, shape (n,)."""

    def check_fits(self, schema: DatasetSchema) -> None:
        """Raise unless these samples have the columns that a model was trained with.

        Raises:
            InvalidSamples: features, bounds or classes differ.
        """
        if self.schema.digest != schema.digest:
            raise InvalidSamples(
                f"the held-out samples are of {self.schema.dataset} with "
                f"{self.schema.n_features} features (schema {self.schema.digest[:12]}); the model "
                f"was trained on {schema.dataset} with {schema.n_features} (schema "
                f"{schema.digest[:12]}): use the samples that belong to it"
            )


def read_held_out(folder: Path) -> HeldOut:
    """Read held_out.npz (arrays ``X`` and ``y``) and schema.json.

    Raises:
        CloisterError: a file is missing or malformed, or a label is none of the schema's.
    """
    schema = read_schema(folder / SCHEMA)
    path = folder / HELD_OUT
    if not path.is_file():
        raise InvalidSamples(
            f"{path} is missing: give the folder of the held-out samples in CLOISTER_HELD_OUT_DIR"
        )
    try:
        features, labels = read_labelled(path, text=schema.has_categories)
    except CloisterError as error:
        raise InvalidSamples(str(error)) from None
    rows = features if schema.has_categories else features.astype(np.float64)
    if rows.ndim != 2 or rows.shape[1] != schema.n_features:
        raise InvalidSamples(f"{path}: X has shape {rows.shape}, not (n, {schema.n_features})")
    if labels.shape != (len(rows),) or not len(rows):
        raise InvalidSamples(f"{path}: y has shape {labels.shape} for {len(rows)} rows of X")
    return HeldOut(schema, rows, schema.answers(labels))


def read_csv(path: Path, schema: DatasetSchema) -> npt.NDArray[Any]:
    """Read rows of raw values from a CSV file in UTF-8.

    The first line names the features, in any order; or there is no such line, and every row has
    the values in the schema's order. A first line of nothing but numbers is a row, unless these
    are the features' names. Empty lines are skipped.

    Returns:
        Shape (n, n_features), columns in the schema's order: numbers, NaN where one is missing and
        the schema has a policy for it, and labels where features are categories.

    Raises:
        InvalidSamples: the file cannot be read, names unknown features or lacks known ones, or a
            value is not a number, or missing or unknown without a policy. The message names row
            (counted from 0, without the header), line and column, and never the value.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if cells]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidSamples(f"{path} cannot be read as CSV: {error}") from None
    names = [feature.name for feature in schema.features]
    columns = list(range(len(names)))
    if lines and _is_header(lines[0][1], set(names)):
        columns = _columns([cell.strip() for cell in lines.pop(0)[1]], names, path)
    if not lines:
        raise InvalidSamples(f"{path} holds no rows")
    rows = [
        _values(cells, columns, schema.features, f"{path}, row {row} (line {line})")
        for row, (line, cells) in enumerate(lines)
    ]
    return np.array(rows, dtype=object if schema.has_categories else np.float64)


def _is_header(cells: Sequence[str], names: set[str]) -> bool:
    stripped = [cell.strip() for cell in cells]
    if set(stripped) == names:
        return True
    numbers = [is_number(cell) for cell in stripped]
    if all(numbers):
        return False
    return not any(numbers) or not names.isdisjoint(stripped)


def _columns(header: Sequence[str], names: Sequence[str], path: Path) -> list[int]:
    """Return the position in ``header`` of each name."""
    unknown = [name for name in header if name not in names]
    missing = [name for name in names if name not in header]
    repeated = sorted({name for name in header if header.count(name) > 1})
    for what, found in (
        ("has columns that are no features of the model", unknown),
        ("lacks the columns", missing),
        ("names columns twice", repeated),
    ):
        if found:
            shown = ", ".join(repr(name) for name in found[:10])
            more = f" and {len(found) - 10} more" if len(found) > 10 else ""
            raise InvalidSamples(f"{path} {what}: {shown}{more}")
    return [header.index(name) for name in names]


def _values(
    cells: Sequence[str],
    columns: Sequence[int],
    features: Sequence[Feature | Category],
    where: str,
) -> list[float | str]:
    if len(cells) != len(columns):
        raise InvalidSamples(f"{where} has {len(cells)} values; {len(columns)} are needed")
    values = []
    for feature, column in zip(features, columns, strict=True):
        value, problem = _value(cells[column].strip(), feature)
        if problem:
            raise InvalidSamples(f"{where}, column {feature.name!r}: {problem}")
        values.append(value)
    return values


def _value(cell: str, feature: Feature | Category) -> tuple[float | str, str]:
    """Return what a cell holds, and what is wrong with it."""
    if isinstance(feature, Category):
        (position,) = encode_labels([cell], feature)
        if np.isnan(position):
            problem = "the value is missing" if feature.missing is None else ""
        else:
            known = position != UNKNOWN or feature.unknown == "ignore"
            problem = "" if known else "the value is not among its categories"
        return cell, problem and f"{problem}; {feature.described}"
    value, problem = number(cell)
    if np.isnan(value) and feature.missing is not None:
        problem = ""
    return value, problem and f"{problem}; {feature.described}"
