"""One deal on disk: written whole or not at all, and not written twice."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_dealer import deal as deal_module
from cloister_dealer.deal import Deal, deal
from cloister_dealer.settings import Settings
from cloister_dealer.sources import load_source
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically
from cloister_shared.schema import DatasetSchema, read_schema

MakeSettings = Callable[..., Settings]


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The datasets that were loaded: a deal that does no work loads none."""
    names: list[str] = []

    def load(settings: Settings, data: DatasetSchema) -> Any:
        names.append(data.dataset)
        return load_source(settings, data)

    monkeypatch.setattr(deal_module, "load_source", load)
    return names


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_in(path: Path) -> list[bytes]:
    with np.load(path) as arrays:
        return [x.tobytes() + bytes([y]) for x, y in zip(arrays["X"], arrays["y"], strict=True)]


def all_rows(settings: Settings, dealt: Deal) -> list[bytes]:
    """Rows of all shards and of what is held out."""
    paths = [dealt.shard_path(settings.shards_dir, i) for i in range(len(dealt.shards))]
    paths.append(settings.held_out_dir / "held_out.npz")
    return [row for path in paths for row in rows_in(path)]


@pytest.fixture
def digits_rows(digits_data: tuple[Any, Any]) -> list[bytes]:
    return sorted(
        x.tobytes() + bytes([y]) for x, y in zip(digits_data[0], digits_data[1], strict=True)
    )


def test_shards_and_held_out_rows_make_up_the_dataset(
    dealer_settings: MakeSettings, digits_rows: list[bytes]
) -> None:
    settings = dealer_settings()
    dealt = deal(settings)
    assert sorted(all_rows(settings, dealt)) == digits_rows
    assert [shard.rows for shard in dealt.shards] == [479, 479, 479]
    assert dealt.data == read_schema(settings.held_out_dir / "schema.json") == schema("digits")


def test_a_second_deal_of_equal_settings_does_no_work(
    dealer_settings: MakeSettings, loaded: list[str]
) -> None:
    settings = dealer_settings()
    first = deal(settings)
    assert deal(settings) == first
    assert deal(dealer_settings(port=9000, lease_seconds=1, dirichlet_alpha=9)) == first
    assert loaded == ["digits"]


@pytest.mark.parametrize(
    "changes",
    [
        {"shards": 4},
        {"seed": 1},
        {"partition": "dirichlet"},
        {"held_out_fraction": 0.3},
        {"dataset": "breast_cancer"},
        {"dataset": "diabetes"},
    ],
)
def test_other_settings_deal_other_shards_and_remove_the_old(
    dealer_settings: MakeSettings, changes: dict[str, Any]
) -> None:
    settings = dealer_settings()
    first = deal(settings)
    second = deal(dealer_settings(**changes))
    assert second.digest != first.digest
    assert {shard.sha256 for shard in second.shards}.isdisjoint(s.sha256 for s in first.shards)
    folders = [path.name for path in settings.shards_dir.iterdir() if path.is_dir()]
    assert folders == [second.digest]
    assert second.is_whole(settings.shards_dir, settings.held_out_dir)


def test_another_alpha_deals_anew_where_it_is_used(dealer_settings: MakeSettings) -> None:
    first = deal(dealer_settings(partition="dirichlet"))
    assert deal(dealer_settings(partition="dirichlet", dirichlet_alpha=1)).digest != first.digest


def test_a_regression_has_no_classes_to_skew(dealer_settings: MakeSettings) -> None:
    with pytest.raises(CloisterError, match="CLOISTER_PARTITION=dirichlet skews classes"):
        deal(dealer_settings(dataset="diabetes", partition="dirichlet"))


def test_folders_that_are_no_deals_are_left_alone(dealer_settings: MakeSettings) -> None:
    settings = dealer_settings()
    (settings.shards_dir / "lost+found").mkdir(parents=True)
    deal(settings)
    deal(dealer_settings(seed=1))
    assert (settings.shards_dir / "lost+found").is_dir()


def damage_shard(settings: Settings, dealt: Deal) -> None:
    with dealt.shard_path(settings.shards_dir, 1).open("ab") as stream:
        stream.write(b"\0")


def lose_shard(settings: Settings, dealt: Deal) -> None:
    dealt.shard_path(settings.shards_dir, 2).unlink()


def damage_record(settings: Settings, _dealt: Deal) -> None:
    (settings.shards_dir / "deal.json").write_text('{"digest": "')


def lose_held_out(settings: Settings, _dealt: Deal) -> None:
    shutil.rmtree(settings.held_out_dir)


def damage_schema(settings: Settings, _dealt: Deal) -> None:
    (settings.held_out_dir / "schema.json").write_text("{}")


@pytest.mark.parametrize(
    "damage", [damage_shard, lose_shard, damage_record, lose_held_out, damage_schema]
)
def test_what_is_damaged_or_lost_is_dealt_again(
    dealer_settings: MakeSettings,
    loaded: list[str],
    damage: Callable[[Settings, Deal], None],
    tmp_path: Path,
) -> None:
    settings = dealer_settings()
    first = deal(settings)
    before = files(tmp_path)
    damage(settings, first)
    assert deal(settings) == first
    assert files(tmp_path) == before
    assert loaded == ["digits", "digits"]


class Killed(BaseException):
    """Stands for the process's end at any point."""


@pytest.mark.parametrize("writes", range(6))
@pytest.mark.parametrize("back", [True, False])
def test_an_interrupted_deal_is_dealt_again_whichever_is_asked_for_next(
    dealer_settings: MakeSettings,
    monkeypatch: pytest.MonkeyPatch,
    digits_rows: list[bytes],
    writes: int,
    back: bool,
) -> None:
    first, second = dealer_settings(), dealer_settings(held_out_fraction=0.3, seed=1)
    deal(first)
    left = writes

    def write_or_die(path: Path, content: bytes) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        write_atomically(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(deal_module, "write_atomically", write_or_die)
        with pytest.raises(Killed):
            deal(second)

    wanted = first if back else second
    # A row that is held out and in a shard as well would flatter the model's accuracy.
    assert sorted(all_rows(wanted, deal(wanted))) == digits_rows


def test_equal_settings_give_equal_bytes_in_another_folder(
    dealer_settings: MakeSettings, tmp_path: Path
) -> None:
    for partition in ("iid", "dirichlet"):
        deal(dealer_settings(partition=partition))
        other = tmp_path / f"other-{partition}"
        deal(
            dealer_settings(
                partition=partition, shards_dir=other / "shards", held_out_dir=other / "held-out"
            )
        )
        for folder in ("shards", "held-out"):
            assert files(tmp_path / folder) == files(other / folder)


def test_there_are_at_least_as_many_shards_as_sites(dealer_settings: MakeSettings) -> None:
    assert len(deal(dealer_settings(shards=3, clients=5)).shards) == 5
    assert len(deal(dealer_settings(shards=6, clients=5)).shards) == 6
