"""A table's cell to a number, or to why it is none."""

import re
from decimal import Decimal

import numpy as np

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_MISSING = re.compile(
    r"[-\u2013.?]+|#?n/?a|<na>|-?nan|nat|null|none|missing|#value!|#div/0!", re.IGNORECASE
)
_REASONS = (
    (re.compile(r"[+-]?inf(inity)?", re.IGNORECASE), "the value is not finite"),
    (
        re.compile(r"[+-]?[0-9.,'\u2019\s]*[0-9][0-9.,'\u2019\s]*([eE][+-]?[0-9]+)?"),
        "the number has a decimal comma or separators of thousands (write decimals with a point, "
        "and no thousands)",
    ),
)
"""Why a cell is no number, by what it is."""


def is_number(cell: str) -> bool:
    """Whether a cell without space around it is a number with a decimal point."""
    return _NUMBER.fullmatch(cell) is not None


def why_missing(cell: str) -> str:
    """Return why a cell without space around it holds no value, or nothing if it holds one."""
    if not cell:
        return "it is empty"
    return "the value is missing" if _MISSING.fullmatch(cell) else ""


def number(cell: str) -> tuple[float, str]:
    """Return the value of a cell without space around it, and why it is none.

    Returns:
        The value and an empty reason; NaN and the reason where a value is missing; infinity and
        the reason where something else is there.
    """
    if is_number(cell):
        return float(cell), ""
    if reason := why_missing(cell):
        return np.nan, reason
    for pattern, reason in _REASONS:
        if pattern.fullmatch(cell):
            return np.inf, reason
    return np.inf, "it is not a number"


def is_missing(value: object) -> bool:
    """Whether a cell of any type holds no value."""
    if isinstance(value, str):
        return bool(why_missing(value.strip()))
    # pandas' NA is equal to nothing, and does not say so in a way that Python takes for false.
    return value is None or type(value).__name__ == "NAType" or bool(value != value)  # noqa: PLR0124


def to_number(value: object) -> float:
    """Return what any cell is: NaN where it is missing, infinity where it is no number."""
    if isinstance(value, str):
        return number(value.strip())[0]
    try:
        if isinstance(value, int | float | Decimal):
            return float(value)
    except OverflowError:
        return float("inf")
    return float("nan") if is_missing(value) else float("inf")
