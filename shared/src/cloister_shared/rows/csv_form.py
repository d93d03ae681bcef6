"""How one CSV file is written."""

from dataclasses import dataclass

BLOCK_BYTES = 1 << 20
"""That are parsed at a time."""


@dataclass(frozen=True)
class Form:
    """What is known of a file from its header.

    Attributes:
        delimiter: between cells.
        header_lines: up to the end of the line of names.
        width: cells in a line.
        positions: of the features in the schema's order, and last of the label.
    """

    delimiter: str
    header_lines: int
    width: int
    positions: list[int]
