"""Deals of digits, in a folder that a test may change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloister_dealer.settings import Settings

MakeSettings = Callable[..., Settings]


@pytest.fixture
def dealer_settings(tmp_path: Path) -> MakeSettings:
    """Settings of three shards of digits under ``tmp_path``, with changes."""

    def make(**changes: Any) -> Settings:
        folders = {"shards_dir": tmp_path / "shards", "held_out_dir": tmp_path / "held-out"}
        return Settings(**({"shards": 3} | folders | changes))

    return make
