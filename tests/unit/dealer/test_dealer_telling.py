"""What the trainer is told of a deal."""

import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_dealer.deal import deal
from cloister_dealer.settings import Settings
from cloister_dealer.telling import tell
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError

MakeSettings = Callable[..., Settings]
Told = Callable[..., str]


@pytest.fixture
def told(dealer_settings: MakeSettings, tmp_path: Path) -> Told:
    """Deal with changed settings, and return what is told of it."""

    def deal_and_tell(key: str = "deal.key", **changes: Any) -> str:
        tell(deal(dealer_settings(**changes)), tmp_path / "deal", tmp_path / key)
        return (tmp_path / "deal").read_text()

    return deal_and_tell


def write_rows(path: Path, rows: Any, labels: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    np.savez(path, X=rows, y=labels)
    return path


def test_equal_deals_are_told_alike_wherever_they_are(told: Told, tmp_path: Path) -> None:
    one = told()
    assert re.fullmatch(r"[0-9a-f]{64}\n", one)
    assert told() == one
    assert told(shards_dir=tmp_path / "others", held_out_dir=tmp_path / "others") == one
    assert told(port=9000, dirichlet_alpha=9) == one


@pytest.mark.parametrize(
    "change",
    [{"shards": 4}, {"seed": 1}, {"held_out_fraction": 0.3}, {"partition": "dirichlet"}],
)
def test_another_deal_is_told_as_another(told: Told, change: dict[str, Any]) -> None:
    one = told()
    assert told(**change) != one
    assert told() == one


def test_one_other_value_in_a_file_of_rows_is_told(
    told: Told, tmp_path: Path, digits_data: tuple[Any, Any]
) -> None:
    rows, labels = digits_data[0].copy(), digits_data[1]
    assert schema("digits").n_features == rows.shape[1]
    one = told(data_path=write_rows(tmp_path / "rows.npz", rows, labels))
    again = write_rows(tmp_path / "elsewhere" / "rows.npz", rows, labels)
    assert told(data_path=again) == one
    rows[0, 0] = 1 - rows[0, 0]
    assert told(data_path=write_rows(tmp_path / "rows.npz", rows, labels)) != one


def test_without_the_key_nothing_can_be_compared(told: Told, tmp_path: Path) -> None:
    one = told()
    key = tmp_path / "deal.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert told("other.key") != one
    assert (tmp_path / "other.key").read_bytes() != key.read_bytes()
    assert told() == one


def test_what_is_no_key_is_refused(told: Told, tmp_path: Path) -> None:
    (tmp_path / "deal.key").write_bytes(b"")
    with pytest.raises(CloisterError, match="is no key of 32 bytes: remove it"):
        told()
