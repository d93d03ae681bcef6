"""Labels as sites write them, to positions among the schema's classes; and targets to numbers."""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from cloister_shared.schema import DatasetSchema

Answers = npt.NDArray[np.int64] | npt.NDArray[np.float64]
"""Positions of classes, or the targets of a regression, shape (n,)."""
UNKNOWN = -1
"""Position of what is no class, and of a label that is missing."""
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0*")
_BOOLEANS = {True: ("True", "true", "TRUE", "1"), False: ("False", "false", "FALSE", "0")}
"""How a boolean can be called in a schema, which has no booleans of its own."""


class LabelPositions:
    """Finds the class that a label means, whatever kind of column it comes from.

    Labels are compared as text: 7, 7.0, "7", "7.0" and " 7 " are one class. True and False, as
    booleans or as text, are classes of that name, else 1 and 0.
    """

    def __init__(self, data: DatasetSchema) -> None:
        self._classes = ", ".join(map(str, data.classes))
        self._known = {str(label): index for index, label in enumerate(data.classes)}
        self._met: dict[tuple[type, object], int] = {}

    def of(self, labels: Sequence[object]) -> npt.NDArray[np.int64]:
        """Return the position of each label, or ``UNKNOWN``, shape (n,)."""
        return np.fromiter(map(self._position, labels), dtype=np.int64, count=len(labels))

    def refused(self, answers: Answers) -> npt.NDArray[np.bool_]:
        """Return which of these are no classes, shape (n,)."""
        return np.equal(answers, UNKNOWN)

    def why(self, label: object) -> str:
        """Return why a label is refused."""
        what = "is missing" if label in (None, "") else "is not a class"
        return f"the label {what}; the classes are {self._classes}"

    def _position(self, label: object) -> int:
        key = (type(label), label)
        position = self._met.get(key)
        if position is None:
            position = next(
                (self._known[name] for name in _names(label) if name in self._known), UNKNOWN
            )
            if position != UNKNOWN:
                # Those that are no class could be as many as the rows.
                self._met[key] = position
        return position


class Targets:
    """Reads the targets of a regression, from whatever kind of column they come."""

    def __init__(self, data: DatasetSchema) -> None:
        if data.target is None:
            raise ValueError(f"{data.dataset} has no target")
        self._target = data.target

    def of(self, labels: Sequence[object]) -> npt.NDArray[np.float64]:
        """Return the number that each label is, NaN where it is none, shape (n,)."""
        return np.fromiter(map(_number, labels), dtype=np.float64, count=len(labels))

    def refused(self, answers: Answers) -> npt.NDArray[np.bool_]:
        """Return which of these are outside the declared bounds or no numbers, shape (n,)."""
        return ~((answers >= self._target.low) & (answers <= self._target.high))

    def why(self, label: object) -> str:
        """Return why a label is refused."""
        if label in (None, ""):
            what = "is missing"
        else:
            what = "is not a number" if np.isnan(_number(label)) else "is outside its bounds"
        return f"the target {what}; it must be in [{self._target.low}, {self._target.high}]"


def _number(label: object) -> float:
    try:
        return float(label)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return float("nan")


def _names(label: object) -> Iterator[str]:
    """Yield what a class that this label means can be called, the likeliest first."""
    match label:
        case bool():
            yield from _BOOLEANS[label]
        case int():
            yield str(label)
        case float() | Decimal():
            # A column of whole numbers with a gap is read as floats by pandas.
            whole = (
                label == label.to_integral_value()
                if isinstance(label, Decimal)
                else (label.is_integer())
            )
            yield str(int(label)) if whole else str(label)
        case str():
            text = label.strip()
            yield text
            if whole_number := _WHOLE.fullmatch(text):
                yield whole_number[1]
            if text.lower() in ("true", "false"):
                yield from _BOOLEANS[text.lower() == "true"]
