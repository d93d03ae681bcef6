"""Rows of a file, whatever kind it is, checked against the schema."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from cloister_shared.cells import is_number
from cloister_shared.errors import CloisterError
from cloister_shared.labels import UNKNOWN, Positions
from cloister_shared.preprocessing import OutOfBounds, inputs_of, misfits
from cloister_shared.schema import Answers, DatasetSchema, Target

PROBLEMS_SHOWN = 20
"""Reading ends when so many problems are found."""
BLOCK_VALUES = 1 << 19
"""Values that are checked at a time, so that checking needs little memory beside the rows."""
_NAMES_SHOWN = 10
_NUMBER_LIKE = re.compile(r"^[^A-Za-z]*[0-9]")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Columns:
    """What the owner of a table says of it, beside the schema.

    Attributes:
        label: name of the column with the labels; by default the schema's.
        ignored: names of columns that may be there and are not read.
    """

    label: str | None = None
    ignored: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Rows:
    """Rows of inputs in [0, 1], shape (n, n_inputs), and what they are to be predicted as.

    Where rows are asked for encoded, they have the shape (n, n_features).
    """

    features: Floats
    answers: Answers


@dataclass(frozen=True)
class Reading:
    """How a file is read.

    Attributes:
        data: the schema that its rows are to fit.
        out_of_bounds: what happens to a value outside its bounds.
        columns: what the owner says of the table.
        encoded: leave rows encoded, as ``preprocessing.encode`` has them, and make no inputs.
    """

    data: DatasetSchema
    out_of_bounds: OutOfBounds = "refuse"
    columns: Columns = Columns()
    encoded: bool = False

    @property
    def label(self) -> str:
        """Name of the column with the labels."""
        return self.columns.label or self.data.label


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

    def __init__(
        self, path: Path, problems: Sequence[str], *, more: bool = False, hint: str = ""
    ) -> None:
        """Take what is wrong; ``hint`` says how to have all problems listed."""
        self.path = path
        self.problems = tuple(problems)
        self.more = more
        others = ""
        if len(problems) > 1:
            listed = f": {hint}" if hint else ""
            others = f" (and {len(problems) - 1}{' or more' * more} other problems{listed})"
        super().__init__(f"{path}: {problems[0]}{others}")


class RowChecker:
    """Takes a file's rows block by block, and keeps them as inputs or what is wrong with them.

    Of a file with a problem no rows are kept.
    """

    def __init__(
        self,
        path: Path,
        reading: Reading,
        *,
        place: Literal["line", "row"],
        capacity: int,
        limit: int = PROBLEMS_SHOWN,
    ) -> None:
        """Begin with no rows.

        Args:
            path: the file, for the messages.
            reading: what rows are to fit, and what they become.
            place: what the numbers of rows are: lines of a text file, counted from 1, or rows,
                counted from 0.
            capacity: no fewer than the file's rows; memory is taken for those that come.
            limit: problems after which ``InvalidRows`` is raised at once.
        """
        self._path = path
        self._data = reading.data
        self._out_of_bounds = reading.out_of_bounds
        self._encoded = reading.encoded
        self._place = place
        self._limit = limit
        self._labels: _Classes | _Targets
        self._answers: Answers
        if reading.data.target:
            self._labels, self._answers = _Targets(reading.data.target), np.empty(capacity)
        else:
            self._labels = _Classes(reading.data)
            self._answers = np.empty(capacity, dtype=np.int64)
        self._features = np.empty(
            (capacity, reading.data.n_features if reading.encoded else reading.data.n_inputs)
        )
        self._count = 0
        self._problems: list[tuple[int, str]] = []

    def add(
        self,
        encoded: Floats,
        labels: Sequence[object],
        numbers: Sequence[int],
        reasons: Mapping[tuple[int, int], str] | None = None,
    ) -> None:
        """Take the next rows.

        Args:
            encoded: as ``preprocessing.encode`` has them, shape (n, n_features).
            labels: one a row, None where there is none.
            numbers: of each row, as users count them.
            reasons: by position in ``encoded``, why a value is none where the reader knows better
                than that it is missing or not finite.

        Raises:
            InvalidRows: there are as many problems as are looked for.
        """
        for misfit in misfits(encoded, self._data, self._out_of_bounds, self._limit):
            feature = self._data.features[misfit.column]
            why = (reasons or {}).get((misfit.row, misfit.column))
            self.refuse(
                numbers[misfit.row],
                f"the value {misfit.why}" if why is None else f"{why}; {feature.described}",
                column=feature.name,
            )
        answers = self._labels.of(labels)
        for row in np.flatnonzero(self._labels.refused(answers))[: self._limit]:
            self.refuse(numbers[row], self._labels.why(labels[row]))
        end = self._count + len(answers)
        if not self._problems:
            if end > len(self._answers):
                raise InvalidRows(self._path, ["it changed while it was read; read it again"])
            self._features[self._count : end] = (
                encoded if self._encoded else inputs_of(encoded, self._data)
            )
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
            raise InvalidRows(self._path, [f"it holds {self._count} rows; at least two are needed"])
        return Rows(self._features[: self._count], self._answers[: self._count])

    def _raise(self, *, more: bool) -> None:
        problems = [text for _, text in sorted(self._problems, key=lambda problem: problem[0])]
        raise InvalidRows(self._path, problems, more=more)


class _Classes:
    """Reads the labels of a classification."""

    def __init__(self, data: DatasetSchema) -> None:
        self._classes = ", ".join(map(str, data.classes))
        self._positions = Positions(data.classes)

    def of(self, labels: Sequence[object]) -> Answers:
        """Return the position of each label's class, or ``UNKNOWN``, shape (n,)."""
        return self._positions.of(labels)

    def refused(self, answers: Answers) -> npt.NDArray[np.bool_]:
        """Return which of these are no classes, shape (n,)."""
        return np.equal(answers, UNKNOWN)

    def why(self, label: object) -> str:
        """Return why a label is refused."""
        what = "is missing" if label in (None, "") else "is not a class"
        return f"the label {what}; the classes are {self._classes}"


class _Targets:
    """Reads the targets of a regression."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def of(self, labels: Sequence[object]) -> Answers:
        """Return the number that each label is, NaN where it is none, shape (n,)."""
        return np.fromiter(map(_target, labels), dtype=np.float64, count=len(labels))

    def refused(self, answers: Answers) -> npt.NDArray[np.bool_]:
        """Return which of these are outside the declared bounds or no numbers, shape (n,)."""
        return ~((answers >= self._target.low) & (answers <= self._target.high))

    def why(self, label: object) -> str:
        """Return why a target is refused."""
        if label in (None, ""):
            what = "is missing"
        else:
            what = "is not a number" if np.isnan(_target(label)) else "is outside its bounds"
        return f"the target {what}; it must be in [{self._target.low}, {self._target.high}]"


def _target(label: object) -> float:
    if isinstance(label, str):
        # float() takes more than tables have: underscores, and digits of other scripts.
        text = label.strip()
        return float(text) if is_number(text) else float("nan")
    try:
        return float(label)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


def find_columns(path: Path, found: Sequence[str], reading: Reading) -> list[int]:
    """Return the positions of the features, in the schema's order, and last that of the label.

    Args:
        path: the file, for the messages.
        found: names of the file's columns.
        reading: the schema, and what the owner says of the table.

    Raises:
        InvalidRows: columns are missing, there twice, or neither known nor ignored.
        CloisterError: what the owner says contradicts the schema.
    """
    data, columns, named = reading.data, reading.columns, reading.label
    features = [feature.name for feature in data.features]
    if named in features:
        raise CloisterError(
            f"CLOISTER_LABEL_COLUMN is {named!r}, which is a feature of {data.dataset}: "
            "name the column with the labels"
        )
    needed = [*features, named]
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
    if named not in there:
        problems.append(
            f"the column of labels {named!r} is missing: set CLOISTER_LABEL_COLUMN to the "
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
