"""Datasets by name, and what is held out."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_dealer import sources
from cloister_dealer.settings import Settings
from cloister_dealer.sources import Rows, Source, load_source
from cloister_shared.datasets import DatasetName, schema
from cloister_shared.errors import CloisterError

Array = np.ndarray[Any, Any]
Data = tuple[Array, Array]


def load(name: DatasetName, *, fraction: float = 0.2, seed: int = 0) -> Source:
    return load_source(Settings(dataset=name, held_out_fraction=fraction, seed=seed), schema(name))


def rows_of(rows: Rows) -> list[bytes]:
    return [
        features.tobytes() + str(label).encode()
        for features, label in zip(rows.features, rows.labels, strict=True)
    ]


@pytest.fixture(params=["digits", "breast_cancer", "diabetes"])
def dataset(request: pytest.FixtureRequest) -> tuple[DatasetName, Data]:
    return request.param, request.getfixturevalue(f"{request.param}_data")


def test_train_and_held_out_are_disjoint_and_complete(dataset: tuple[DatasetName, Data]) -> None:
    name, (features, labels) = dataset
    source = load(name)
    dealt = rows_of(source.train) + rows_of(source.held_out)
    # Sorted, so that a row that occurs twice in the dataset counts twice.
    assert sorted(dealt) == sorted(rows_of(Rows(features, labels)))
    assert len(source.held_out.labels) == pytest.approx(0.2 * len(labels), abs=1)


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_what_is_held_out_is_stratified(name: DatasetName, request: pytest.FixtureRequest) -> None:
    _, labels = request.getfixturevalue(f"{name}_data")
    classes, counts = np.unique(labels, return_counts=True)
    for fraction in (0.1, 0.5):
        held_out = load(name, fraction=fraction).held_out.labels
        found = [np.count_nonzero(held_out == label) for label in classes]
        np.testing.assert_allclose(found, fraction * counts, atol=1)


def test_the_seed_alone_decides_what_is_held_out(dataset: tuple[DatasetName, Data]) -> None:
    name, _ = dataset
    held_out = rows_of(load(name).held_out)
    assert held_out == rows_of(load(name).held_out)
    assert held_out != rows_of(load(name, seed=1).held_out)


@pytest.mark.parametrize("fraction", [0.001, 0.999])
def test_a_fraction_that_leaves_a_class_out_names_the_setting(fraction: float) -> None:
    with pytest.raises(CloisterError, match="CLOISTER_HELD_OUT_FRACTION"):
        load("digits", fraction=fraction)


def load_mnist(path: Path | None) -> Source:
    return load_source(Settings(dataset="mnist", mnist_path=path), schema("mnist"))


def mnist_arrays(**changes: Array) -> dict[str, Array]:
    arrays = {
        "x_train": np.zeros((60_000, 784), np.uint8),
        "y_train": np.zeros(60_000, np.uint8),
        "x_test": np.zeros((10_000, 28, 28), np.uint8),
        "y_test": np.zeros(10_000, np.uint8),
    }
    return arrays | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((3, 28, 28)), "y_train": np.zeros(3)}, r"x_train .*\(3, 28, 28\)"),
        ({"x_train": np.zeros((60_000, 2))}, "x_train has shape"),
        ({"y_train": np.zeros(59_999)}, r"y_train \(59999,\)"),
        ({"y_test": np.zeros((10_000, 1))}, r"y_test \(10000, 1\)"),
        ({"x_train": np.array("text")}, "x_train holds"),
    ],
)
def test_an_mnist_file_of_another_shape_names_the_setting(
    tmp_path: Path, changes: dict[str, Array], message: str
) -> None:
    path = tmp_path / "mnist.npz"
    np.savez_compressed(path, **mnist_arrays(**changes))
    with pytest.raises(CloisterError, match=f"MNIST_PATH.*{message}"):
        load_mnist(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"text"])
def test_a_damaged_mnist_file_names_the_setting(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mnist.npz"
    path.write_bytes(content)
    with pytest.raises(CloisterError, match="MNIST_PATH"):
        load_mnist(path)


def test_a_path_that_leads_nowhere_is_told_and_nothing_is_downloaded(tmp_path: Path) -> None:
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(CloisterError, match="MNIST_PATH"):
            load_mnist(path)


@pytest.mark.parametrize("path", [None, Path(os.devnull)])
def test_without_a_file_mnist_comes_from_openml_and_a_failure_says_how_to_do_without(
    path: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fail(name: str, **_: object) -> None:
        asked.append(name)
        raise OSError("no route")

    monkeypatch.setattr(sources, "fetch_openml", fail)
    with pytest.raises(CloisterError, match=r"no route.*MNIST_PATH"):
        load_mnist(path)
    assert asked == ["mnist_784"]


def test_mnist_keeps_its_canonical_split() -> None:
    stated = os.environ.get("MNIST_PATH")
    if not stated:
        pytest.skip("MNIST_PATH names no MNIST file")
    source = load_mnist(Path(stated))
    with np.load(stated) as arrays:
        for rows, part in ((source.train, "train"), (source.held_out, "test")):
            assert np.array_equal(rows.features, arrays[f"x_{part}"].reshape(-1, 784))
            assert np.array_equal(rows.labels, arrays[f"y_{part}"])
    assert (len(source.train.labels), len(source.held_out.labels)) == (60_000, 10_000)
