"""Lines of a file that somebody else is writing."""

import os
from dataclasses import dataclass
from pathlib import Path

LINE_BYTES = 1 << 20
"""A line may have this many bytes, ten times that of a thousand sites; a longer one is skipped."""


@dataclass(frozen=True)
class Chunk:
    """What of a file was read at a time."""

    lines: list[bytes]
    """Complete lines, without their ends."""
    offset: int
    """In bytes, where to go on."""
    skipped: int
    """Lines that were too long."""
    more: bool
    """Whether there may be complete lines from ``offset`` on."""


def read_lines(path: Path, offset: int, limit: int) -> Chunk:
    """Return complete lines from an offset on; one that is just being written is left for later.

    Args:
        path: of a file whose lines end in a newline.
        offset: in bytes, at the beginning of a line.
        limit: bytes to read at a time, not less than a line is likely to have.

    Raises:
        OSError: it cannot be read; FileNotFoundError where there is none.
    """
    with path.open("rb") as stream:
        stream.seek(offset)
        content = stream.read(limit)
        if b"\n" not in content and len(content) == limit:
            content += stream.read(max(LINE_BYTES + 1 - limit, 0))
            if b"\n" not in content and len(content) > LINE_BYTES:
                return _after_long_line(path, offset + len(content))
        size = os.fstat(stream.fileno()).st_size
    end = content.rfind(b"\n") + 1
    return Chunk(
        lines=content[:end].split(b"\n")[:-1],
        offset=offset + end,
        skipped=0,
        more=end > 0 and size > offset + end,
    )


def _after_long_line(path: Path, offset: int) -> Chunk:
    """Skip to the end of a line, as far as it is written."""
    with path.open("rb") as stream:
        stream.seek(offset)
        while content := stream.read(LINE_BYTES):
            at = content.find(b"\n")
            if at >= 0:
                return Chunk([], offset + at + 1, skipped=1, more=True)
            offset += len(content)
    # The rest of it will look like a line, which is no event.
    return Chunk([], offset, skipped=0, more=False)
