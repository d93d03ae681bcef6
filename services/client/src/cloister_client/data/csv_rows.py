"""Rows from CSV files.

A file is read twice only where something is wrong with it: first by pyarrow, which is fast but does
not know lines, then by Python's csv, which finds every problem and its line. What Python's csv can
read is read, whatever pyarrow says of it.
"""

import csv
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from cloister_client.data.rows import (
    PROBLEMS_SHOWN,
    Columns,
    InvalidRows,
    RowChecker,
    Rows,
    block_rows,
    find_columns,
)
from cloister_shared.scaling import OutOfBounds
from cloister_shared.schema import DatasetSchema

DELIMITERS = ",;\t"
"""A comma, or what is written where the comma is the decimal sign; the first of equals is taken."""
BLOCK_BYTES = 1 << 20
"""That are parsed at a time."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_UNDECODED = re.compile("[\udc80-\udcff]")
"""What Python makes of bytes that are not UTF-8, with ``surrogateescape``."""
_REASONS = (
    (re.compile(""), "it is empty"),
    (
        re.compile(r"[-\u2013.?]+|#?n/?a|-?nan|null|none|missing|#value!|#div/0!", re.IGNORECASE),
        "the value is missing",
    ),
    (re.compile(r"[+-]?inf(inity)?", re.IGNORECASE), "the value is not finite"),
    (
        re.compile(r"[+-]?[0-9.,'\u2019\s]*[0-9][0-9.,'\u2019\s]*([eE][+-]?[0-9]+)?"),
        "the number has a decimal comma or separators of thousands (write decimals with a point, "
        "and no thousands)",
    ),
)
"""Why a cell is no number, by what it is."""


@dataclass(frozen=True)
class _Form:
    """How one file is written: what is known from its header."""

    delimiter: str
    header_lines: int
    width: int
    """Cells in a line."""
    positions: list[int]
    """Of the features in the schema's order, and last of the label."""


def read_csv(path: Path, data: DatasetSchema, out_of_bounds: OutOfBounds, columns: Columns) -> Rows:
    """Read a CSV file whose first line names its columns.

    UTF-8 with or without a byte order mark, any line ends, cells separated by commas, semicolons
    or tabs, quoted or not; numbers with a decimal point. Empty lines are skipped.

    Args:
        path: the file.
        data: the schema.
        out_of_bounds: what happens to a value outside its bounds.
        columns: name of the label's column, and of those that are not read.

    Raises:
        InvalidRows: the file does not fit; problems name the line, counted from 1 as editors do,
            and the column.
        OSError: the file cannot be read.
    """
    form = _form(path, data, columns)
    capacity = _most_rows(path, data)
    fast = RowChecker(path, data, out_of_bounds, place="line", capacity=capacity, limit=1)
    # What pyarrow says of a file that it does not take has values in it, and no lines.
    with suppress(pa.ArrowInvalid, InvalidRows):
        _read_fast(path, form, fast)
        return fast.rows()
    del fast
    checker = RowChecker(path, data, out_of_bounds, place="line", capacity=capacity)
    _read_with_lines(path, form, data, checker)
    return checker.rows()


def _form(path: Path, data: DatasetSchema, columns: Columns) -> _Form:
    with path.open("rb") as stream:
        start = stream.read(BLOCK_BYTES)
    if not start.strip(b"\xef\xbb\xbf\r\n\t ,;"):
        raise InvalidRows(path, ["it is empty: the first line must name the columns"])
    if b"\0" in start or start.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise InvalidRows(
            path,
            ["it is not text in UTF-8: export it as CSV with the encoding UTF-8, not compressed"],
        )
    needed = {feature.name for feature in data.features} | {columns.label}
    headers = {delimiter: _header(path, delimiter, needed) for delimiter in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda one: len(needed.intersection(headers[one][0])))
    names, lines = headers[delimiter]
    if any(map(_UNDECODED.search, names)):
        raise InvalidRows(
            path, ["the names of its columns are not UTF-8: export it with the encoding UTF-8"]
        )
    return _Form(delimiter, lines, len(names), find_columns(path, names, data, columns))


def _header(path: Path, delimiter: str, needed: set[str]) -> tuple[list[str], int]:
    """Return the names in the first line that is not empty, and the number of its last line."""
    with suppress(csv.Error):
        for _, last_line, cells in _lines(path, delimiter):
            return [cell if cell in needed else cell.strip() for cell in cells], last_line
    return [], 0


def _lines(path: Path, delimiter: str) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the first and the last line, counted from 1, and the cells of all that is not empty."""
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        first = 1
        for cells in reader:
            if cells:
                yield first, reader.line_num, cells
            first = reader.line_num + 1


def _most_rows(path: Path, data: DatasetSchema) -> int:
    """Return a number of rows that the file cannot exceed, unless it changes."""
    ends = size = 0
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            size += len(block)
            ends += block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n")
    # A row has a character for each number and for the label, and one after each of them.
    return min(ends, size // (2 * (data.n_features + 1))) + 1


def _read_fast(path: Path, form: _Form, checker: RowChecker) -> None:
    # Columns go by their position, as names can be written in ways that pyarrow does not strip.
    *features, label = map(str, form.positions)
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
            # Slower, and only in columns that are not read can a cell have several lines.
            newlines_in_values=form.width > len(form.positions),
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types={**dict.fromkeys(features, pa.float64()), label: pa.string()},
            include_columns=[*features, label],
            null_values=[""],
        ),
    )
    with reader:
        for batch in reader:
            values = np.empty((batch.num_rows, len(features)))
            for column, name in enumerate(features):
                values[:, column] = batch.column(name).to_numpy(zero_copy_only=False)
            # Lines are not known here: a problem is found again with its line.
            checker.add(values, batch.column(label).to_pylist(), range(batch.num_rows))


def _read_with_lines(path: Path, form: _Form, data: DatasetSchema, checker: RowChecker) -> None:
    block = _Block(data, form, checker)
    first = 0
    try:
        for first, last, cells in _lines(path, form.delimiter):
            if last <= form.header_lines:
                continue
            if len(cells) != form.width:
                block.flush()
                checker.refuse(
                    first,
                    f"it has {len(cells)} cells, and the line of names has {form.width}; a cell "
                    "that contains the separator must be in quotes",
                )
            else:
                block.add(first, cells)
    except csv.Error:
        block.flush()
        checker.refuse(
            first,
            "this line, or the next, has a quote that does not end or that is within a cell, or a "
            f"cell of more than {csv.field_size_limit()} characters",
        )
    block.flush()


class _Block:
    """Lines that are checked together."""

    def __init__(self, data: DatasetSchema, form: _Form, checker: RowChecker) -> None:
        self._n_features = data.n_features
        self._most = block_rows(data)
        self._positions = form.positions
        self._checker = checker
        self._clear()

    def _clear(self) -> None:
        self._values: list[float] = []
        self._labels: list[str] = []
        self._lines: list[int] = []
        self._reasons: dict[tuple[int, int], str] = {}

    def add(self, line: int, cells: list[str]) -> None:
        row = len(self._lines)
        *features, label = (cells[position].strip() for position in self._positions)
        for column, cell in enumerate(features):
            value, reason = _number(cell)
            self._values.append(value)
            if reason:
                self._reasons[row, column] = reason
        self._labels.append(label)
        self._lines.append(line)
        if len(self._reasons) >= PROBLEMS_SHOWN or len(self._lines) >= self._most:
            self.flush()

    def flush(self) -> None:
        values = np.array(self._values, dtype=np.float64).reshape(-1, self._n_features)
        labels, lines, reasons = self._labels, self._lines, self._reasons
        self._clear()
        self._checker.add(values, labels, lines, reasons)


def _number(cell: str) -> tuple[float, str]:
    """Return the value of a cell, or NaN and why it has none."""
    if _NUMBER.fullmatch(cell):
        return float(cell), ""
    for pattern, reason in _REASONS:
        if pattern.fullmatch(cell):
            return np.nan, reason
    return np.nan, "it is not a number"
