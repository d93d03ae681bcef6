"""A shard that is kept: the same as one that is read, for as long as its files are."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_client.data import kept
from cloister_client.data.kept import KeptShard
from cloister_client.data.shard import Shard, read_shard
from cloister_shared.errors import CloisterError
from cloister_shared.rows.checking import Columns

WriteSite = Callable[..., Path]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were read, one after the other."""
    found: list[Path] = []

    def counted(folder: Path, *arguments: Any) -> Shard:
        found.append(folder)
        return read_shard(folder, *arguments)

    monkeypatch.setattr(kept, "read_shard", counted)
    return found


def write(write_site: WriteSite, seed: int) -> Path:
    random = np.random.default_rng(seed)
    return write_site(random.integers(0, 17, (40, 64)), random.integers(0, 10, 40))


@pytest.mark.parametrize("out_of_bounds", ["refuse", "clip"])
def test_it_is_read_once_and_equals_what_is_read(
    write_site: WriteSite, reads: list[Path], out_of_bounds: Any
) -> None:
    folder, shard = write(write_site, 0), KeptShard()
    for _ in range(3):
        shard.keep(folder, Columns())
        found = shard.get(folder, out_of_bounds, Columns())
    assert reads == [folder]
    expected = read_shard(folder, out_of_bounds)
    assert np.array_equal(found.train.features, expected.train.features)
    assert np.array_equal(found.validation.answers, expected.validation.answers)


def test_without_being_kept_it_is_read_every_time(write_site: WriteSite, reads: list[Path]) -> None:
    folder, shard = write(write_site, 0), KeptShard()
    for _ in range(2):
        shard.get(folder, "refuse", Columns())
    assert reads == [folder, folder]


def test_other_rows_in_the_same_place_are_read_anew(
    write_site: WriteSite, reads: list[Path]
) -> None:
    folder, shard = write(write_site, 0), KeptShard()
    shard.keep(folder, Columns())
    before = (folder / "shard.npz").stat()
    assert write(write_site, 1) == folder
    # As a copy that keeps times would have it.
    os.utime(folder / "shard.npz", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    found = shard.get(folder, "refuse", Columns())
    assert np.array_equal(found.train.features, read_shard(folder, "refuse").train.features)
    assert reads == [folder, folder]


def test_another_description_of_the_table_is_read_anew(
    write_site: WriteSite, reads: list[Path]
) -> None:
    folder, shard = write(write_site, 0), KeptShard()
    shard.keep(folder, Columns())
    shard.get(folder, "refuse", Columns(label="diagnosis"))
    assert reads == [folder, folder]


def test_rows_out_of_bounds_are_not_kept_and_treated_as_asked(
    write_site: WriteSite, reads: list[Path]
) -> None:
    rows = np.zeros((20, 64))
    rows[3, 5] = 99
    folder, shard = write_site(rows, np.arange(20) % 10), KeptShard()
    for _ in range(2):
        shard.keep(folder, Columns())
    # What cannot be kept is not tried again.
    assert reads == [folder]
    with pytest.raises(CloisterError, match="outside its declared bounds"):
        shard.get(folder, "refuse", Columns())
    assert len(shard.get(folder, "clip", Columns()).train.answers) == 18


def test_a_site_without_rows_is_told_when_they_are_asked_for(tmp_path: Path) -> None:
    shard = KeptShard()
    shard.keep(tmp_path, Columns())
    with pytest.raises(CloisterError, match=r"schema\.json is missing"):
        shard.get(tmp_path, "refuse", Columns())


def test_what_is_kept_is_given_up_for_another_before_that_is_read(
    write_site: WriteSite, reads: list[Path], tmp_path: Path
) -> None:
    folder, shard = write(write_site, 0), KeptShard()
    shard.keep(folder, Columns())
    shard.forget_unless_same(folder, Columns())
    shard.get(folder, "refuse", Columns())
    assert reads == [folder]
    shard.forget_unless_same(tmp_path / "nowhere", Columns())
    shard.get(folder, "refuse", Columns())
    assert reads == [folder, folder]


def test_a_kept_one_whose_files_are_gone_is_told_as_a_missing_one(write_site: WriteSite) -> None:
    folder, shard = write(write_site, 0), KeptShard()
    shard.keep(folder, Columns())
    (folder / "schema.json").unlink()
    with pytest.raises(CloisterError, match=r"schema\.json is missing"):
        shard.get(folder, "refuse", Columns())
