"""Rows from CSV files.

A file is read twice only where something is wrong with it: first by pyarrow, which is fast but does
not know lines, then by Python's csv, which finds every problem and its line. What Python's csv can
read is read, whatever pyarrow says of it, and without pyarrow too.
"""

import csv
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from cloister_shared.cells import number
from cloister_shared.preprocessing import encode_labels
from cloister_shared.rows.checking import (
    PROBLEMS_SHOWN,
    InvalidRows,
    Reading,
    RowChecker,
    Rows,
    block_rows,
    find_columns,
)
from cloister_shared.rows.csv_form import BLOCK_BYTES, Form
from cloister_shared.schema import Category, DatasetSchema

DELIMITERS = ",;\t"
"""A comma, or what is written where the comma is the decimal sign; the first of equals is taken."""
_UNDECODED = re.compile("[\udc80-\udcff]")
"""What Python makes of bytes that are not UTF-8, with ``surrogateescape``."""


def read_csv(path: Path, reading: Reading) -> Rows:
    """Read a CSV file whose first line names its columns.

    UTF-8 with or without a byte order mark, any line ends, cells separated by commas, semicolons
    or tabs, quoted or not; numbers with a decimal point. Empty lines are skipped.

    Args:
        path: the file.
        reading: the schema, and what the owner says of the table.

    Raises:
        InvalidRows: the file does not fit; problems name the line, counted from 1 as editors do,
            and the column.
        OSError: the file cannot be read.
    """
    form = _form(path, reading)
    capacity = _most_rows(path, reading.data)
    fast = RowChecker(path, reading, place="line", capacity=capacity, limit=1)
    if _read_fast(path, form, reading.data, fast):
        return fast.rows()
    del fast
    checker = RowChecker(path, reading, place="line", capacity=capacity)
    _read_with_lines(path, form, reading.data, checker)
    return checker.rows()


def _form(path: Path, reading: Reading) -> Form:
    with path.open("rb") as stream:
        start = stream.read(BLOCK_BYTES)
    if not start.strip(b"\xef\xbb\xbf\r\n\t ,;"):
        raise InvalidRows(path, ["it is empty: the first line must name the columns"])
    if b"\0" in start or start.startswith((b"\x1f\x8b", b"PK\x03\x04")):
        raise InvalidRows(
            path,
            ["it is not text in UTF-8: export it as CSV with the encoding UTF-8, not compressed"],
        )
    needed = {feature.name for feature in reading.data.features} | {reading.label}
    headers = {delimiter: _header(path, delimiter, needed) for delimiter in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda one: len(needed.intersection(headers[one][0])))
    names, lines = headers[delimiter]
    if any(map(_UNDECODED.search, names)):
        raise InvalidRows(
            path, ["the names of its columns are not UTF-8: export it with the encoding UTF-8"]
        )
    return Form(delimiter, lines, len(names), find_columns(path, names, reading))


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


def _read_fast(path: Path, form: Form, data: DatasetSchema, checker: RowChecker) -> bool:
    """Read with pyarrow, where it is installed; return whether all rows are read and right."""
    try:
        # It is large, and a program that has no other use for it can do without.
        import cloister_shared.rows.csv_arrow as arrow  # noqa: PLC0415
    except ModuleNotFoundError:
        return False
    return arrow.read_fast(path, form, data, checker)


def _read_with_lines(path: Path, form: Form, data: DatasetSchema, checker: RowChecker) -> None:
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

    def __init__(self, data: DatasetSchema, form: Form, checker: RowChecker) -> None:
        self._features = data.features
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
        for column, (cell, feature) in enumerate(zip(features, self._features, strict=True)):
            if isinstance(feature, Category):
                value, reason = float(encode_labels([cell], feature)[0]), ""
            else:
                value, reason = number(cell)
            self._values.append(value)
            if reason:
                self._reasons[row, column] = reason
        self._labels.append(label)
        self._lines.append(line)
        if len(self._reasons) >= PROBLEMS_SHOWN or len(self._lines) >= self._most:
            self.flush()

    def flush(self) -> None:
        values = np.array(self._values, dtype=np.float64).reshape(-1, len(self._features))
        labels, lines, reasons = self._labels, self._lines, self._reasons
        self._clear()
        self._checker.add(values, labels, lines, reasons)
