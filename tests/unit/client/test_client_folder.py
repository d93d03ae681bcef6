"""A site's folder: which file is read, and what a site with few classes or rows makes of it."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from measuring import metrics_of

from cloister_client.data.folder import data_file
from cloister_client.data.shard import Shard, read_shard
from cloister_client.training.fitting import fit
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator
from cloister_shared.schema import DatasetSchema
from cloister_shared.weights import LinearWeights

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@pytest.mark.parametrize("name", ["shard.npz", "rows.csv", "ROWS.CSV", "rows.parquet"])
def test_the_one_file_of_rows_is_found(name: str, tmp_path: Path) -> None:
    for other in (name, "schema.json", ".hidden.csv", "notes.txt", "old.csv.gz"):
        (tmp_path / other).touch()
    assert data_file(tmp_path) == tmp_path / name


def test_none_or_several_files_of_rows_are_listed(tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match=r"it holds nothing"):
        data_file(tmp_path)
    for name in ("schema.json", "other.npz", "rows.xlsx"):
        (tmp_path / name).touch()
    with pytest.raises(CloisterError, match=r"it holds other.npz, rows.xlsx, schema.json"):
        data_file(tmp_path)
    for name in ("b.parquet", "a.csv"):
        (tmp_path / name).touch()
    with pytest.raises(CloisterError, match=r"several files of rows, a.csv, b.parquet: leave one"):
        data_file(tmp_path)
    with pytest.raises(CloisterError, match=r"absent cannot be read \(No such file"):
        data_file(tmp_path / "absent")


PARAMETERS: dict[str, Any] = {"penalty": "l2", "C": 1.0, "max_iter": 20, "warm_start": True}


def site_of(
    folder: Path, data: DatasetSchema, features: np.ndarray[Any, Any], labels: Any
) -> Shard:
    """Write rows as CSV with the schema beside them, and read them as a site does."""
    (folder / "schema.json").write_text(data.model_dump_json())
    header = [*(feature.name for feature in data.features), "label"]
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=";")
        writer.writerow(header)
        writer.writerows(
            [*row, label] for row, label in zip(features.tolist(), labels, strict=True)
        )
    return read_shard(folder, "refuse")


def fitted(shard: Shard) -> tuple[LinearWeights, LinearWeights]:
    """Return what a site receives and what it makes of it."""
    generator = np.random.default_rng(5)
    received = LinearWeights(
        generator.normal(size=(shard.data.n_outputs, shard.data.n_features)),
        generator.normal(size=shard.data.n_outputs),
    )
    row = estimator("LogisticRegression")
    result = fit(row, PARAMETERS, received, shard.train, shard.data)
    result.check(shard.data)
    return received, result


@pytest.mark.parametrize("present", [(0, 3, 4, 9), (6, 7), (2,)])
def test_a_site_that_lacks_classes_trains_on_those_it_has(
    present: tuple[int, ...], digits_data: Data, tmp_path: Path
) -> None:
    features, labels = digits_data
    kept = np.isin(labels, present)
    shard = site_of(tmp_path, schema("digits"), features[kept], labels[kept])
    assert set(np.concatenate([shard.train.answers, shard.validation.answers])) == set(present)
    received, result = fitted(shard)
    absent = np.setdiff1d(np.arange(10), present)
    np.testing.assert_array_equal(result.coef[absent], received.coef[absent])
    np.testing.assert_array_equal(result.intercept[absent], received.intercept[absent])
    assert not np.isclose(result.intercept[list(present)], received.intercept[list(present)]).any()
    before, after = metrics_of(received, shard.validation), metrics_of(result, shard.validation)
    assert after.loss < before.loss


@pytest.mark.parametrize("present", ["malignant", "benign"])
def test_a_site_with_one_of_two_classes_keeps_what_it_received(
    present: str, breast_cancer_data: Data, tmp_path: Path
) -> None:
    features, labels = breast_cancer_data
    kept = labels == present
    shard = site_of(tmp_path, schema("breast_cancer"), features[kept], labels[kept])
    received, result = fitted(shard)
    np.testing.assert_array_equal(result.coef, received.coef)
    np.testing.assert_array_equal(result.intercept, received.intercept)
    measured = metrics_of(result, shard.validation)
    assert measured.examples == len(shard.validation.answers)
    assert np.isfinite(measured.loss)


def test_a_site_of_two_rows_trains(digits_data: Data, tmp_path: Path) -> None:
    shard = site_of(tmp_path, schema("digits"), digits_data[0][:2], digits_data[1][:2])
    assert len(shard.train.answers) == len(shard.validation.answers) == 1
    fitted(shard)
