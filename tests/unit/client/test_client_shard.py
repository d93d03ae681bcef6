"""A site's rows: read, checked, split."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_client.data.shard import Sample, Shard, read_shard
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
WriteSite = Callable[..., Path]


def rows_of(*samples: Sample) -> list[bytes]:
    return [
        features.tobytes() + bytes([label])
        for sample in samples
        for features, label in zip(sample.features, sample.answers, strict=True)
    ]


def read(folder: Path) -> Shard:
    return read_shard(folder, "refuse")


def test_the_split_is_disjoint_complete_and_always_the_same(
    write_site: WriteSite, digits_data: Data
) -> None:
    features, labels = digits_data[0][:205], digits_data[1][:205]
    folder = write_site(features, labels)
    shard = read(folder)
    assert (len(shard.train.answers), len(shard.validation.answers)) == (185, 20)
    whole = Sample(features / 16, labels.astype(np.int64))
    assert sorted(rows_of(shard.train, shard.validation)) == sorted(rows_of(whole))
    assert set(rows_of(shard.train)).isdisjoint(rows_of(shard.validation))
    again = read(folder)
    assert rows_of(again.train) == rows_of(shard.train)
    assert rows_of(again.validation) == rows_of(shard.validation)


def test_two_rows_are_enough_and_one_is_not(write_site: WriteSite) -> None:
    shard = read(write_site(np.zeros((2, 64)), [3, 4]))
    assert len(shard.train.answers) == len(shard.validation.answers) == 1
    with pytest.raises(CloisterError, match="holds 1 rows; at least two are needed"):
        read(write_site(np.zeros((1, 64)), [3]))
    with pytest.raises(CloisterError, match="holds 0 rows"):
        read(write_site(np.zeros((0, 64)), []))


def test_words_are_labels_too(write_site: WriteSite, breast_cancer_data: Data) -> None:
    features, labels = breast_cancer_data
    shard = read(write_site(features, labels, "breast_cancer"))
    assert shard.data == schema("breast_cancer")
    found = np.concatenate([shard.train.answers, shard.validation.answers])
    assert np.count_nonzero(found == 0) == np.count_nonzero(labels == "malignant")
    assert shard.train.features.min() >= 0
    assert shard.train.features.max() <= 1


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.zeros((5, 63)), np.zeros(5), r"shape \(5, 63\).*\(n, 64\)"),
        (np.zeros((5, 8, 8)), np.zeros(5), r"shape \(5, 8, 8\)"),
        (np.array(7.0), np.zeros(5), r"shape \(\);"),
        (np.array([["a"] * 64]), np.zeros(1), "numbers"),
        (np.zeros((5, 64)), np.zeros((5, 1)), "one column"),
        (np.zeros((5, 64)), np.array(0), "one column"),
        (np.zeros((5, 64)), np.zeros(4), "5 rows of features and 4 labels"),
        (
            np.zeros((5, 64)),
            np.array([0, 1, 10, 3, 4]),
            r"row 2 \(counted from 0\): the label is not a class",
        ),
        (np.full((5, 64), np.nan), np.zeros(5), "is missing"),
    ],
)
def test_what_does_not_fit_the_schema_is_told(
    write_site: WriteSite, features: Any, labels: Any, message: str
) -> None:
    with pytest.raises(CloisterError, match=message):
        read(write_site(features, labels))


def test_a_value_out_of_bounds_is_refused_or_clipped(write_site: WriteSite) -> None:
    features = np.zeros((5, 64))
    features[3, 9] = 16.5
    folder = write_site(features, np.arange(5))
    where = r"row 3 \(counted from 0\), column 'pixel_1_1': .*\[0.0, 16.0\]"
    with pytest.raises(CloisterError, match=where) as refused:
        read(folder)
    assert "16.5" not in str(refused.value)
    shard = read_shard(folder, "clip")
    assert max(shard.train.features.max(), shard.validation.features.max()) == 1


@pytest.mark.parametrize("name", ["shard.npz", "schema.json"])
def test_a_missing_file_is_named(write_site: WriteSite, name: str) -> None:
    folder = write_site(np.zeros((5, 64)), np.arange(5))
    (folder / name).unlink()
    with pytest.raises(CloisterError, match=name):
        read(folder)


def damaged(content: bytes) -> list[bytes]:
    half = len(content) // 2
    flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
    return [b"", b"text", content[:half], flipped]


@pytest.mark.parametrize("kind", range(4))
def test_a_damaged_shard_is_named(write_site: WriteSite, kind: int) -> None:
    path = write_site(np.zeros((50, 64)), np.arange(50) % 10) / "shard.npz"
    path.write_bytes(damaged(path.read_bytes())[kind])
    with pytest.raises(CloisterError, match=r"shard.npz must be an .npz"):
        read(path.parent)


def test_a_shard_without_labels_or_with_objects_is_named(write_site: WriteSite) -> None:
    folder = write_site(np.zeros((5, 64)), np.array([object()] * 5))
    with pytest.raises(CloisterError, match=r"shard.npz must be an .npz"):
        read(folder)
    np.savez(folder / "shard.npz", X=np.zeros((5, 64)))
    with pytest.raises(CloisterError, match=r"shard.npz must be an .npz"):
        read(folder)
    with (folder / "shard.npz").open("wb") as stream:
        np.save(stream, np.zeros((5, 64)))
    with pytest.raises(CloisterError, match=r"shard.npz must be an .npz"):
        read(folder)
