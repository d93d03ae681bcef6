"""Plots as SVG: the geometry of a line over counted steps."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from cloister_keyholder.reporting.parts import Chart, Point, Tick

WIDTH, HEIGHT = 360, 220
"""Of the whole plot, in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 52, 348, 12, 176
"""Edges of what the axes enclose."""
MOST_POINTS = 60
"""Above which the line alone is drawn."""
MOST_TICKS = 6
LARGEST = 1e100
"""Above which a value is left out: no axis makes sense of it."""

Value = float | None


def chart(
    title: str,
    values: Sequence[Value],
    *,
    across: str,
    first: int = 1,
    from_zero: bool = False,
) -> Chart | None:
    """Lay out values over the steps ``first``, ``first + 1``, ...

    Args:
        title: what the values are.
        values: finite; the line has a gap where one is None.
        across: what is counted.
        first: number of the first step.
        from_zero: whether the vertical axis begins at 0.

    Returns:
        None where there are no two values to draw.
    """
    drawn = [None if value is None or abs(value) > LARGEST else value for value in values]
    known = [value for value in drawn if value is not None]
    if len(known) < 2:
        return None
    lines = _ticks(0.0 if from_zero else min(known), max(known))
    low, high = lines[0], lines[-1]

    def x(index: int) -> float:
        return round(LEFT + (RIGHT - LEFT) * index / (len(values) - 1), 1)

    def y(value: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low), 1)

    placed = [None if value is None else Point(x(i), y(value)) for i, value in enumerate(drawn)]
    points = [point for point in placed if point]
    last = first + len(values) - 1
    return Chart(
        title=title,
        described=f"{title} over {across}, {first} to {last}: from {known[0]:.4g} to "
        f"{known[-1]:.4g}, the lowest {min(known):.4g}, the highest {max(known):.4g}.",
        across=across,
        columns=[Tick(x(step - first), str(step)) for step in _steps(first, last)],
        lines=[Tick(y(value), _text(value, lines)) for value in lines],
        path=_path(placed),
        points=points if len(points) <= MOST_POINTS else (),
    )


def _path(placed: Sequence[Point | None]) -> Markup:
    parts, drawing = [], False
    for point in placed:
        if point:
            parts.append(f"{'L' if drawing else 'M'}{point.x:g} {point.y:g}")
        drawing = point is not None
    return Markup("").join(parts)


def _steps(first: int, last: int) -> list[int]:
    """Return the first step and, evenly spaced, at most ``MOST_TICKS`` round ones after it."""
    apart = next(
        size * 10**power
        for power in range(20)
        for size in (1, 2, 5)
        if (last - first) // (size * 10**power) < MOST_TICKS
    )
    return [first, *range(first - first % apart + apart, last + 1, apart)]


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, evenly spaced, of which the first and the last enclose a range."""
    largest = max(abs(low), abs(high))
    if largest < 1e-12:
        return [0.0, 1.0]
    if high - low < 1e-9 * largest:
        # All are one: it is shown in the middle.
        low, high = low - largest / 20, high + largest / 20
    apart = _round_up((high - low) / (MOST_TICKS - 2))
    below, above = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return [step * apart for step in range(below, above + 1)]


def _round_up(value: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(value))
    return power * next(size for size in (1, 2, 5, 10) if size * power >= value * (1 - 1e-9))


def _text(value: float, lines: Sequence[float]) -> str:
    apart = lines[1] - lines[0]
    if max(abs(lines[0]), abs(lines[-1])) >= 1e6 or apart < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.{max(0, -math.floor(math.log10(apart) + 1e-9))}f}"
