"""Rows from Parquet files."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pa_compute
import pyarrow.parquet as pa_parquet

from cloister_shared.rows.checking import (
    InvalidRows,
    Reading,
    RowChecker,
    Rows,
    block_rows,
    find_columns,
)
from cloister_shared.rows.csv_arrow import labels_of
from cloister_shared.schema import Category


def read_parquet(path: Path, reading: Reading) -> Rows:
    """Read a Parquet file, its columns by their names.

    Args:
        path: the file.
        reading: the schema, and what the owner says of the table.

    Raises:
        InvalidRows: the file is damaged or does not fit; problems name the row, counted from 0 as
            data frames do, and the column.
        OSError: the file cannot be read.
    """
    with open_parquet(path) as file:
        return _read(path, file, reading)


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Give the open ``pyarrow.parquet.ParquetFile``, and tell what is damaged wherever it shows.

    Raises:
        InvalidRows: the file is damaged, encrypted or no Parquet: as it is opened, or as it is
            read inside.
        OSError: the file cannot be read.
    """
    try:
        with pa_parquet.ParquetFile(path) as file:
            yield file
    except OSError as error:
        # pyarrow has this kind of error for damaged content too, then without a number.
        if error.errno is not None:
            raise
        raise _unreadable(path) from None
    except (pa.ArrowException, UnicodeDecodeError):
        raise _unreadable(path) from None


def _unreadable(path: Path) -> InvalidRows:
    # What pyarrow says can quote what it has read.
    return InvalidRows(
        path, ["it cannot be read as Parquet: it is damaged, encrypted or of another kind"]
    )


def _read(path: Path, file: Any, reading: Reading) -> Rows:
    schema, data = file.schema_arrow, reading.data
    positions = find_columns(path, schema.names, reading)
    *features, label = (schema.names[position] for position in positions)
    types = [schema.field(position).type for position in positions]
    problems = []
    for name, kind, feature in zip(features, types, data.features, strict=False):
        if isinstance(feature, Category):
            if not _is_label(_values_of(kind)):
                problems.append(
                    f"the column {name!r} holds {kind}; store its categories as text or whole "
                    "numbers"
                )
        elif not _is_number(_values_of(kind)):
            problems.append(f"the column {name!r} holds {kind}, not numbers; store it as numbers")
    if not _is_label(_values_of(types[-1])):
        problems.append(
            f"the column of labels {label!r} holds {types[-1]}; store it as text or whole numbers"
        )
    if problems:
        raise InvalidRows(path, problems)
    checker = RowChecker(path, reading, place="row", capacity=file.metadata.num_rows)
    start = 0
    # One thread, as a process that serves one site has one core.
    for batch in file.iter_batches(block_rows(data), columns=[*features, label], use_threads=False):
        encoded = np.empty((batch.num_rows, data.n_features))
        for position, (name, feature) in enumerate(zip(features, data.features, strict=True)):
            column = batch.column(name)
            encoded[:, position] = (
                labels_of(column, feature) if isinstance(feature, Category) else _floats(column)
            )
        labels = batch.column(label).to_pylist()
        checker.add(encoded, labels, range(start, start + batch.num_rows))
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
