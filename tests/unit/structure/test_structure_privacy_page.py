"""The page on privacy names tests; they must be there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/privacy.md").read_text()
NAMES = sorted(set(re.findall(r"`(test_\w+)(?:\[\w+\])?`", PAGE)))


TESTS = "".join(path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py")))


@pytest.mark.parametrize("name", NAMES)
def test_it_is_there(name: str) -> None:
    assert f"def {name}(" in TESTS


def test_every_mode_and_party_has_a_row_with_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if re.match(r"\| (server|other|key|observer)", line)]
    assert len(rows) == 26
    assert all("test" in row or "as in plain mode" in row for row in rows)
