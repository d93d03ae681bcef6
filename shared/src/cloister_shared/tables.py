"""Results for people, as plain columns on standard output."""

import sys
from collections.abc import Sequence
from typing import Any

from cloister_shared.schema import DatasetSchema


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows of cells, each column as wide as its longest cell.

    Args:
        rows: at least one, all with as many cells.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def print_features(data: DatasetSchema) -> None:
    """Print the columns of data, each with what is declared of it."""
    features = data.model_dump(mode="json", exclude_none=True)["features"]
    rows = [(str(one.pop("name")), ", ".join(map(_declared, one.items()))) for one in features]
    print_table([("FEATURE", "DECLARED"), *rows])


def _declared(item: tuple[str, Any]) -> str:
    key, value = item
    if isinstance(value, list):
        return f"{key} {'|'.join(map(str, value))}"
    return f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}"
