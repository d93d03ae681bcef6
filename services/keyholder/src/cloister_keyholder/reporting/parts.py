"""What a report consists of, as plain values that its template lays out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

Fact = tuple[str, str]
"""What is told, and its name before it."""


@dataclass(frozen=True)
class Note:
    """A sentence that must not be missed."""

    kind: Literal["good", "bad", "plain"]
    text: str


@dataclass(frozen=True)
class Figure:
    """A number that sums up, for the head of the report."""

    name: str
    value: str
    remark: str = ""


@dataclass(frozen=True)
class Table:
    """Cells in rows; the first of each row names it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    remark: str = ""
    folded: bool = False
    """Whether it is long, and shown when asked for."""


@dataclass(frozen=True)
class Cell:
    """One cell of a matrix."""

    samples: int
    right: bool
    """Whether it is on the diagonal."""
    shade: int
    """Share of its row, in steps from 0 for none to 8 for all."""


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix."""

    title: str
    expected: str
    """What rows are of."""
    heads: Sequence[str]
    """Of the columns, short."""
    rows: Sequence[tuple[str, Sequence[Cell], int]]
    """Name, cells and sum of each."""
    remark: str
    large: bool
    """Whether it needs the whole width."""
    upright: bool
    """Whether its heads are too long to lie."""


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Point:
    """A point of a chart, in pixels."""

    x: float
    y: float


@dataclass(frozen=True)
class Chart:
    """A plot, laid out in pixels with the origin at the upper left."""

    title: str
    described: str
    """What it shows, for whoever does not see it."""
    across: str
    """Name of the horizontal axis."""
    columns: Sequence[Tick]
    lines: Sequence[Tick]
    path: Markup
    """SVG path data of the line: numbers and commands alone, of any length."""
    points: Sequence[Point]
