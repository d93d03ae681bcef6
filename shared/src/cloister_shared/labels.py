"""Labels as people write them, to positions among the labels that are known."""

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

import numpy as np
import numpy.typing as npt

UNKNOWN = -1
"""Position of what is none of the known labels, and of a label that is missing."""
_WHOLE = re.compile(r"(-?(?:0|[1-9][0-9]*))\.0*")
_BOOLEANS = {True: ("True", "true", "TRUE", "1"), False: ("False", "false", "FALSE", "0")}
"""How a boolean can be called in a schema, which has no booleans of its own."""


class Positions:
    """Finds the label that a value means, whatever kind of column it comes from.

    Labels are compared as text: 7, 7.0, "7", "7.0" and " 7 " are one label. True and False, as
    booleans or as text, are labels of that name, else 1 and 0.
    """

    def __init__(self, labels: Sequence[int | str]) -> None:
        """Take the known labels, which differ as text."""
        self._known = {str(label): index for index, label in enumerate(labels)}
        self._met: dict[tuple[type, object], int] = {}

    def of(self, values: Sequence[object]) -> npt.NDArray[np.int64]:
        """Return the position of each value's label, or ``UNKNOWN``, shape (n,)."""
        return np.fromiter(map(self._position, values), dtype=np.int64, count=len(values))

    def _position(self, value: object) -> int:
        try:
            position = self._met.get((type(value), value))
        except TypeError:
            # A list or the like, which cannot be looked up, is no label.
            return UNKNOWN
        if position is None:
            position = next(
                (self._known[name] for name in _names(value) if name in self._known), UNKNOWN
            )
            if position != UNKNOWN:
                # Those that are no label could be as many as the rows.
                self._met[type(value), value] = position
        return position


def _names(value: object) -> Iterator[str]:
    """Yield what a label that this value means can be called, the likeliest first."""
    match value:
        case bool():
            yield from _BOOLEANS[value]
        case int():
            yield str(value)
        case float() | Decimal():
            # A column of whole numbers with a gap is read as floats by pandas.
            whole = (
                value == value.to_integral_value()
                if isinstance(value, Decimal)
                else (value.is_integer())
            )
            yield str(int(value)) if whole else str(value)
        case str():
            text = value.strip()
            yield text
            if whole_number := _WHOLE.fullmatch(text):
                yield whole_number[1]
            if text.lower() in ("true", "false"):
                yield from _BOOLEANS[text.lower() == "true"]
        case np.generic():
            yield from _names(value.item())
