"""A table whose schema is not known yet: its columns, as far as a guess needs them."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from cloister_shared.errors import CloisterError
from cloister_shared.npz import read_labelled
from cloister_shared.rows.csv_rows import DELIMITERS
from cloister_shared.rows.files import CSV, NPZ, kind_by_content, readable
from cloister_shared.samples import LABELS

SAMPLE_ROWS = 100_000
"""That are looked at, from the first on."""

Table = dict[str, list[Any]]
"""Cells of every column, by its name: text, numbers, booleans, or None."""


def read_sample(path: Path) -> Table:
    """Read the first rows of a CSV, Parquet or .npz file.

    Columns of an .npz file, which has no names, are called ``x0``, ``x1`` and so on, and ``y``.

    Raises:
        CloisterError: the file cannot be read, is empty, or names a column twice or not at all.
    """
    kind = kind_by_content(path)
    with readable(path):
        if kind == CSV:
            table = _csv(path)
        elif kind == NPZ:
            features, labels = read_labelled(path, text=True)
            if features.ndim != 2 or labels.shape != (len(features),):
                raise CloisterError(f"{path}: X must have the shape (n, n_features), and y (n,)")
            sample = features[:SAMPLE_ROWS]
            table = {f"x{column}": sample[:, column].tolist() for column in range(sample.shape[1])}
            table[LABELS] = labels[:SAMPLE_ROWS].tolist()
        else:
            table = _parquet(path)
    if not table or not next(iter(table.values())):
        raise CloisterError(f"{path} has no rows to guess a schema from")
    return table


def _csv(path: Path) -> Table:
    headers = [(delimiter, next(_lines(path, delimiter), [])) for delimiter in DELIMITERS]
    # The first of equals: a file of one column has no delimiter.
    delimiter, header = max(headers, key=lambda found: len(found[1]))
    names = [name.strip() for name in header]
    if not all(names) or len(set(names)) != len(names):
        raise CloisterError(
            f"{path}: the first line must name every column, and no two of them alike"
        )
    rows = list(islice(_lines(path, delimiter), 1, SAMPLE_ROWS + 1))
    for row in rows:
        if len(row) != len(names):
            raise CloisterError(
                f"{path}: a line has {len(row)} cells, and the line of names has {len(names)}"
            )
    return {name: [row[at] for row in rows] for at, name in enumerate(names)}


def _lines(path: Path, delimiter: str) -> Iterator[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream, suppress(csv.Error):
            yield from (cells for cells in csv.reader(stream, delimiter=delimiter) if cells)
    except UnicodeDecodeError:
        raise CloisterError(
            f"{path} is not text in UTF-8: export it as CSV with the encoding UTF-8"
        ) from None


def _parquet(path: Path) -> Table:
    # pyarrow is large, and needed for such a file alone.
    from cloister_shared.rows.parquet_rows import open_parquet  # noqa: PLC0415

    with open_parquet(path) as file:
        names = file.schema_arrow.names
        if len(set(names)) != len(names):
            raise CloisterError(f"{path}: two columns have the same name")
        batch = next(file.iter_batches(SAMPLE_ROWS), None)
        return {} if batch is None else batch.to_pydict()
