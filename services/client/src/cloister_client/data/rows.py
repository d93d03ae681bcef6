"""A site's own rows, whatever kind of file they come in, checked against the schema."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cloister_client.data.labels import Answers, LabelPositions, Targets
from cloister_shared.errors import CloisterError
from cloister_shared.scaling import OutOfBounds, misfits, to_unit
from cloister_shared.schema import DatasetSchema

PROBLEMS_SHOWN = 20
"""Reading ends when so many problems are found."""
BLOCK_VALUES = 1 << 19
"""Values that are checked at a time, so that checking needs little memory beside the rows."""
_NAMES_SHOWN = 10
_NUMBER_LIKE = re.compile(r"^[^A-Za-z]*[0-9]")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """What a site says of its table, beside the schema.

    Attributes:
        label: name of the column with the labels.
        ignored: names of columns that may be there and are not read.
    """

    label: str = "label"
    ignored: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Rows:
    """Rows of inputs in [0, 1], shape (n, n_inputs), and what they are to be predicted as."""

    features: Floats
    answers: Answers


def block_rows(data: DatasetSchema) -> int:
    """Return how many rows are read and checked at a time."""
    return max(1, BLOCK_VALUES // data.n_features)


class InvalidRows(CloisterError):  # noqa: N818 - named for what is wrong, as the key holder's
    """Rows that do not fit the schema.

    Attributes:
        path: the file.
        problems: what is wrong with it, in the file's order; row and column, and never a value.
        more: there may be further problems, which were not looked for.
    """

    def __init__(self, path: Path, problems: Sequence[str], *, more: bool = False) -> None:
        self.path = path
        self.problems = tuple(problems)
        self.more = more
        others = ""
        if len(problems) > 1:
            others = (
                f" (and {len(problems) - 1}{' or more' * more} other problems: `python -m "
                f"cloister_client check {path.parent}` lists them)"
            )
        super().__init__(f"{path}: {problems[0]}{others}")


class RowChecker:
    """Takes a file's rows block by block, and keeps them mapped to [0, 1] or what is wrong.

    Of a file with a problem no rows are kept.
    """

    def __init__(
        self,
        path: Path,
        data: DatasetSchema,
        out_of_bounds: OutOfBounds,
        *,
        place: Literal["line", "row"],
        capacity: int,
        limit: int = PROBLEMS_SHOWN,
    ) -> None:
        """Begin with no rows.

        Args:
            path: the file, for the messages.
            data: the schema.
            out_of_bounds: what happens to a value outside its bounds.
            place: what the numbers of rows are: lines of a text file, counted from 1, or rows,
                counted from 0.
            capacity: no fewer than the file's rows; memory is taken for those that come.
            limit: problems after which ``InvalidRows`` is raised at once.
        """
        self._path = path
        self._data = data
        self._out_of_bounds = out_of_bounds
        self._place = place
        self._limit = limit
        self._labels: LabelPositions | Targets
        self._answers: Answers
        if data.task == "regression":
            self._labels, self._answers = Targets(data), np.empty(capacity)
        else:
            self._labels = LabelPositions(data)
            self._answers = np.empty(capacity, dtype=np.int64)
        self._features = np.empty((capacity, data.n_features))
        self._count = 0
        self._problems: list[tuple[int, str]] = []

    def add(
        self,
        features: Floats,
        labels: Sequence[object],
        numbers: Sequence[int],
        reasons: Mapping[tuple[int, int], str] | None = None,
    ) -> None:
        """Take the next rows.

        Args:
            features: raw values, NaN where there is none, shape (n, n_features).
            labels: one a row, None where there is none.
            numbers: of each row, as users count them.
            reasons: by position in ``features``, why a value is NaN where the reader knows better
                than that it is missing.

        Raises:
            InvalidRows: there are as many problems as are looked for.
        """
        for misfit in misfits(features, self._data, self._out_of_bounds, self._limit):
            feature = self._data.features[misfit.column]
            why = (reasons or {}).get((misfit.row, misfit.column))
            self.refuse(
                numbers[misfit.row],
                f"the value {misfit.why}"
                if why is None
                else f"{why}; it must be a number in [{feature.low}, {feature.high}]",
                column=feature.name,
            )
        answers = self._labels.of(labels)
        for row in np.flatnonzero(self._labels.refused(answers))[: self._limit]:
            self.refuse(numbers[row], self._labels.why(labels[row]))
        end = self._count + len(answers)
        if not self._problems:
            if end > len(self._answers):
                raise InvalidRows(self._path, ["it changed while it was read; read it again"])
            self._features[self._count : end] = to_unit(features, self._data, self._out_of_bounds)
            self._answers[self._count : end] = answers
        self._count = end

    def refuse(self, number: int, what: str, column: str | None = None) -> None:
        """Note a problem with the row of this number.

        Raises:
            InvalidRows: there are as many problems as are looked for.
        """
        counted = " (counted from 0)" if self._place == "row" else ""
        where = f"{self._place} {number}{counted}" + (f", column {column!r}" if column else "")
        self._problems.append((number, f"{where}: {what}"))
        if len(self._problems) >= self._limit:
            self._raise(more=True)

    def rows(self) -> Rows:
        """Return all rows.

        Raises:
            InvalidRows: there are problems, or fewer than the two rows that a site needs.
        """
        if self._problems:
            self._raise(more=False)
        if self._count < 2:
            raise InvalidRows(
                self._path, [f"it holds {self._count} rows; a site needs at least two"]
            )
        return Rows(self._features[: self._count], self._answers[: self._count])

    def _raise(self, *, more: bool) -> None:
        problems = [text for _, text in sorted(self._problems, key=lambda problem: problem[0])]
        raise InvalidRows(self._path, problems, more=more)


def find_columns(
    path: Path, found: Sequence[str], data: DatasetSchema, columns: Columns
) -> list[int]:
    """Return the positions of the features, in the schema's order, and last that of the label.

    Args:
        path: the file, for the messages.
        found: names of the file's columns.
        data: the schema.
        columns: what the site says of its table.

    Raises:
        InvalidRows: columns are missing, there twice, or neither known nor ignored.
        CloisterError: ``columns`` contradicts the schema.
    """
    features = [feature.name for feature in data.features]
    if columns.label in features:
        raise CloisterError(
            f"CLOISTER_LABEL_COLUMN is {columns.label!r}, which is a feature of {data.dataset}: "
            "name the column with the labels"
        )
    needed = [*features, columns.label]
    if wrong := sorted(columns.ignored.intersection(needed)):
        raise CloisterError(
            f"CLOISTER_IGNORED_COLUMNS names columns that are needed: {_list(wrong)}"
        )
    there = set(found)
    if there.isdisjoint(needed):
        # Without a line of names these are values, which are not shown.
        raise InvalidRows(
            path,
            [
                f"no column has the name of a feature of {data.dataset}: a table needs the names "
                f"of its columns, {_list(features[:3])} and so on, a CSV file in its first line, "
                "separated by commas or semicolons"
            ],
        )
    problems = []
    if lacking := [name for name in features if name not in there]:
        problems.append(
            f"the columns {_list(lacking)} are missing: the schema has these features, and names "
            "must be equal in every letter"
        )
    if columns.label not in there:
        problems.append(
            f"the column of labels {columns.label!r} is missing: set CLOISTER_LABEL_COLUMN to the "
            "name it has"
        )
    known = columns.ignored.union(needed)
    if unknown := [position for position, name in enumerate(found) if name not in known]:
        problems.append(
            f"the columns {_list_found(unknown, found)} are neither features nor the label: remove "
            "them, or list those to leave unread in CLOISTER_IGNORED_COLUMNS"
        )
    if repeated := [name for name in needed if found.count(name) > 1]:
        problems.append(f"the columns {_list(repeated)} are there more than once: keep one of each")
    if problems:
        raise InvalidRows(path, problems)
    return [found.index(name) for name in needed]


def _list(names: Sequence[str]) -> str:
    return _enumerate([repr(name) for name in names])


def _list_found(positions: Sequence[int], found: Sequence[str]) -> str:
    # What looks like a number may be a value, of a table whose names are numbers too.
    return _enumerate(
        [
            f"number {position + 1}"
            if _NUMBER_LIKE.match(found[position])
            else repr(found[position])
            for position in positions
        ]
    )


def _enumerate(names: Sequence[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
