"""Well-formed CSV files, read fast by pyarrow, which does not know lines."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv as pa_csv

from cloister_shared.preprocessing import encode_labels
from cloister_shared.rows.checking import InvalidRows, RowChecker
from cloister_shared.rows.csv_form import BLOCK_BYTES, Form
from cloister_shared.schema import Category, DatasetSchema


def read_fast(path: Path, form: Form, data: DatasetSchema, checker: RowChecker) -> bool:
    """Give a file's rows to ``checker``; return whether all were taken.

    Where they were not, the file is to be read by lines, so that a problem is told with its line.
    """
    try:
        _read(path, form, data, checker)
    except (pa.ArrowInvalid, InvalidRows):
        # What pyarrow says of a file that it does not take has values in it.
        return False
    return True


def _read(path: Path, form: Form, data: DatasetSchema, checker: RowChecker) -> None:
    # Columns go by their position, as names can be written in ways that pyarrow does not strip.
    *features, label = map(str, form.positions)
    types = {
        name: pa.string() if isinstance(feature, Category) else pa.float64()
        for name, feature in zip(features, data.features, strict=True)
    }
    reader = pa_csv.open_csv(
        path,
        read_options=pa_csv.ReadOptions(
            # A process that serves one site has one core.
            use_threads=False,
            block_size=BLOCK_BYTES,
            skip_rows=form.header_lines,
            column_names=[str(position) for position in range(form.width)],
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=form.delimiter,
            # Slower, and only in columns of text can a cell have several lines.
            newlines_in_values=form.width > len(form.positions) or data.has_categories,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types={**types, label: pa.string()},
            include_columns=[*features, label],
            null_values=[""],
        ),
    )
    with reader:
        for batch in reader:
            encoded = np.empty((batch.num_rows, len(features)))
            for position, (name, feature) in enumerate(zip(features, data.features, strict=True)):
                column = batch.column(name)
                if isinstance(feature, Category):
                    encoded[:, position] = labels_of(column, feature)
                else:
                    encoded[:, position] = column.to_numpy(zero_copy_only=False)
            # Lines are not known here: a problem is found again with its line.
            checker.add(encoded, batch.column(label).to_pylist(), range(batch.num_rows))


def labels_of(column: Any, feature: Category) -> npt.NDArray[np.float64]:
    """Return the encoded labels of a column of Arrow, each different one looked up once."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    # The place after the last is of those that are missing.
    known = np.append(encode_labels(column.dictionary.to_pylist(), feature), np.nan)
    indices = column.indices.fill_null(len(known) - 1)
    encoded: npt.NDArray[np.float64] = known[indices.to_numpy(zero_copy_only=False)]
    return encoded
