"""Reading lines while they are written: none is lost, torn or told twice."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloister_console.lines import LINE_BYTES, read_lines

MANY = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b" ")), max_size=20)


def read_all(path: Path, offset: int, limit: int) -> tuple[list[bytes], int]:
    lines, more = [], True
    while more:
        chunk = read_lines(path, offset, limit)
        assert chunk.offset >= offset
        lines += chunk.lines
        offset, more = chunk.offset, chunk.more
    return lines, offset


@MANY
@given(lines=LINES, cuts=st.lists(st.integers(0, 900), max_size=8), limit=st.integers(1, 60))
def test_whenever_it_is_read_every_line_is_told_once_and_whole(
    tmp_path: Path, lines: list[bytes], cuts: list[int], limit: int
) -> None:
    path = tmp_path / "lines"
    content = b"".join(line + b"\n" for line in lines)
    path.write_bytes(b"")
    told: list[bytes] = []
    offset = 0
    ends = [*sorted(min(cut, len(content)) for cut in cuts), len(content)]
    for begin, end in zip([0, *ends], ends, strict=False):
        with path.open("ab") as stream:
            stream.write(content[begin:end])
        new, offset = read_all(path, offset, limit)
        told += new
        assert told == content[:end].split(b"\n")[:-1]
    assert told == lines
    assert offset == len(content)


@pytest.mark.parametrize("limit", [16, LINE_BYTES // 2, 4 * LINE_BYTES])
def test_a_line_beyond_bounds_is_skipped_and_the_next_one_is_not(
    tmp_path: Path, limit: int
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"first\n" + b"x" * (2 * LINE_BYTES) + b"\nlast\n")
    lines, offset = read_all(path, 0, limit)
    assert [line for line in lines if len(line) < LINE_BYTES] == [b"first", b"last"]
    assert offset == path.stat().st_size


def test_a_long_line_that_is_being_written_does_not_hold_it_up(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"x" * (LINE_BYTES + 5))
    lines, offset = read_all(path, 0, 16)
    assert (lines, offset) == ([], LINE_BYTES + 5)
    with path.open("ab") as stream:
        stream.write(b"y\nnext\n")
    assert read_all(path, offset, 16)[0] == [b"y", b"next"]


def test_there_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_lines(tmp_path / "lines", 0, 16)
