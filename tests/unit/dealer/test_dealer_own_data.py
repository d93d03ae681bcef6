"""Rows of a user's own, dealt as those of a dataset known by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from cloister_client.data.shard import read_shard
from cloister_dealer.deal import deal
from cloister_dealer.settings import Settings
from cloister_keyholder.evaluating.samples import read_held_out
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.schema import Category, DatasetSchema, Feature

MakeSettings = Callable[..., Settings]
DATA = DatasetSchema(
    dataset="patients",
    features=(
        Feature(name="age", low=0, high=100, missing=40),
        Category(name="sex", categories=("female", "male"), unknown="ignore"),
    ),
    label="outcome",
    classes=("bad", "good"),
)


@pytest.fixture
def table() -> dict[str, list[Any]]:
    generator = np.random.default_rng(3)
    return {
        "age": [None, *generator.uniform(0, 100, 99).tolist()],
        "sex": generator.choice(["female", "male"], 100).tolist(),
        "outcome": generator.choice(["bad", "good"], 100).tolist(),
        "id": list(range(100)),
    }


@pytest.fixture
def own(
    tmp_path: Path, dealer_settings: MakeSettings, table: dict[str, list[Any]]
) -> Callable[..., Settings]:
    """Settings that deal the table, with changes."""
    (tmp_path / "patients.json").write_text(DATA.model_dump_json())
    pa_parquet.write_table(pa.table(table), tmp_path / "rows")

    def make(**changes: Any) -> Settings:
        given = {
            "schema_path": tmp_path / "patients.json",
            "data_path": tmp_path / "rows",
            "ignored_columns": ("id",),
        }
        return dealer_settings(**(given | changes))

    return make


def test_every_row_of_the_file_is_dealt_once_and_reads_as_it_was(
    own: MakeSettings, table: dict[str, list[Any]], tmp_path: Path
) -> None:
    settings = own()
    dealt = deal(settings)
    assert dealt.data == DATA
    held_out = read_held_out(settings.held_out_dir)
    found = [
        (*row, DATA.classes[answer])
        for row, answer in zip(held_out.rows, held_out.answers, strict=True)
    ]
    assert len(found) == 20
    for index in range(3):
        with np.load(dealt.shard_path(settings.shards_dir, index)) as arrays:
            found += [(*row, label) for row, label in zip(arrays["X"], arrays["y"], strict=True)]
    expected = [
        ("" if age is None else repr(age), sex, outcome)
        for age, sex, outcome in zip(table["age"], table["sex"], table["outcome"], strict=True)
    ]
    assert sorted(tuple(map(str, row)) for row in found) == sorted(expected)

    site = tmp_path / "site"
    site.mkdir()
    (site / "schema.json").write_text(DATA.model_dump_json())
    (site / "shard.npz").write_bytes(dealt.shard_path(settings.shards_dir, 0).read_bytes())
    shard = read_shard(site, "refuse")
    assert shard.train.features.shape[1] == 3
    assert set(np.unique(shard.train.features[:, 1:])) == {0.0, 1.0}


def test_another_file_or_schema_is_another_deal(own: MakeSettings, tmp_path: Path) -> None:
    first = deal(own())
    assert deal(own()) == first
    content = {"age": [1.0] * 40, "sex": ["male"] * 40, "outcome": ["bad", "good"] * 20}
    pa_parquet.write_table(pa.table(content), tmp_path / "rows")
    second = deal(own())
    assert second.digest != first.digest
    other = DATA.model_copy(update={"dataset": "others"})
    (tmp_path / "patients.json").write_text(other.model_dump_json())
    assert deal(own()).digest != second.digest


def test_what_does_not_fit_is_told_and_nothing_is_dealt(own: MakeSettings, tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match="the columns 'id' are neither features nor the label"):
        deal(own(ignored_columns=()))
    with pytest.raises(CloisterError, match="column of labels 'label' is missing"):
        deal(own(label_column="label"))
    with pytest.raises(CloisterError, match=r"absent cannot be read \(No such file"):
        deal(own(data_path=tmp_path / "absent"))
    with pytest.raises(CloisterError, match=r"absent is missing: it must hold the schema"):
        deal(own(schema_path=tmp_path / "absent"))
    with pytest.raises(
        CloisterError, match=r"rows of digits do not fit .*: set CLOISTER_DATA_PATH"
    ):
        deal(own(data_path=None))
    assert not (tmp_path / "held-out").exists()


def test_values_outside_their_bounds_are_dealt_where_they_are_clipped(
    own: MakeSettings, tmp_path: Path
) -> None:
    content = {"age": [1.0, 300] * 30, "sex": ["male"] * 60, "outcome": ["bad", "bad", "good"] * 20}
    pa_parquet.write_table(pa.table(content), tmp_path / "rows")
    with pytest.raises(CloisterError, match="outside its declared bounds"):
        deal(own())
    settings = own(out_of_bounds="clip")
    deal(settings)
    assert "300.0" in read_held_out(settings.held_out_dir).rows[:, 0]


def test_a_dataset_known_by_name_can_be_dealt_in_another_schema(
    dealer_settings: MakeSettings, tmp_path: Path
) -> None:
    pooled = DatasetSchema.model_validate(schema("digits").model_dump() | {"pool": 2})
    (tmp_path / "pooled.json").write_text(pooled.model_dump_json())
    dealt = deal(dealer_settings(schema_path=tmp_path / "pooled.json"))
    assert dealt.data.n_inputs == 16
