"""Rows from Parquet files."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pa_compute
import pyarrow.parquet as pa_parquet

from cloister_client.data.rows import (
    Columns,
    InvalidRows,
    RowChecker,
    Rows,
    block_rows,
    find_columns,
)
from cloister_shared.scaling import OutOfBounds
from cloister_shared.schema import DatasetSchema


def read_parquet(
    path: Path, data: DatasetSchema, out_of_bounds: OutOfBounds, columns: Columns
) -> Rows:
    """Read a Parquet file, its columns by their names.

    Args:
        path: the file.
        data: the schema.
        out_of_bounds: what happens to a value outside its bounds.
        columns: name of the label's column, and of those that are not read.

    Raises:
        InvalidRows: the file is damaged or does not fit; problems name the row, counted from 0 as
            data frames do, and the column.
        OSError: the file cannot be read.
    """
    try:
        with pa_parquet.ParquetFile(path) as file:
            return _read(path, file, data, out_of_bounds, columns)
    except OSError as error:
        # pyarrow has this kind of error for damaged content too, then without a number.
        if error.errno is not None:
            raise
        raise _unreadable(path) from None
    except pa.ArrowException:
        raise _unreadable(path) from None


def _unreadable(path: Path) -> InvalidRows:
    # What pyarrow says can quote what it has read.
    return InvalidRows(
        path, ["it cannot be read as Parquet: it is damaged, encrypted or of another kind"]
    )


def _read(
    path: Path,
    file: Any,
    data: DatasetSchema,
    out_of_bounds: OutOfBounds,
    columns: Columns,
) -> Rows:
    schema = file.schema_arrow
    positions = find_columns(path, schema.names, data, columns)
    *features, label = (schema.names[position] for position in positions)
    types = [schema.field(position).type for position in positions]
    problems = [
        f"the column {name!r} holds {kind}, not numbers; store it as numbers"
        for name, kind in zip(features, types, strict=False)
        if not _is_number(_values_of(kind))
    ]
    if not _is_label(_values_of(types[-1])):
        problems.append(
            f"the column of labels {label!r} holds {types[-1]}; store it as text or whole numbers"
        )
    if problems:
        raise InvalidRows(path, problems)
    checker = RowChecker(path, data, out_of_bounds, place="row", capacity=file.metadata.num_rows)
    start = 0
    # One thread, as a process that serves one site has one core.
    for batch in file.iter_batches(block_rows(data), columns=[*features, label], use_threads=False):
        values = np.empty((batch.num_rows, data.n_features))
        for column, name in enumerate(features):
            values[:, column] = _floats(batch.column(name))
        labels = batch.column(label).to_pylist()
        checker.add(values, labels, range(start, start + batch.num_rows))
        start += batch.num_rows
    return checker.rows()


def _values_of(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_number(kind: Any) -> bool:
    types = pa.types
    return any(
        is_one(kind)
        for is_one in (
            types.is_integer,
            types.is_floating,
            types.is_decimal,
            types.is_boolean,
            types.is_null,
        )
    )


def _is_label(kind: Any) -> bool:
    types = pa.types
    return _is_number(kind) or any(
        is_one(kind) for is_one in (types.is_string, types.is_large_string, types.is_string_view)
    )


def _floats(column: Any) -> Any:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    # Unsafe: whole numbers beyond 2^53 are rounded, as everywhere else.
    return pa_compute.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
