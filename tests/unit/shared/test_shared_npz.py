"""Rows with labels in .npz files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_shared.errors import CloisterError
from cloister_shared.npz import read_labelled


@pytest.mark.parametrize("features", [np.eye(3), np.eye(3, dtype=np.uint8), np.eye(3) > 0])
@pytest.mark.parametrize("labels", [np.arange(3), np.array(["a", "b", "c"])])
def test_rows_and_labels_are_read_as_they_are(
    features: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    np.savez(tmp_path / "rows.npz", X=features, y=labels, other=np.zeros(1))
    found = read_labelled(tmp_path / "rows.npz")
    for one, expected in zip(found, (features, labels), strict=True):
        np.testing.assert_array_equal(one, expected)
        assert one.dtype == expected.dtype


@pytest.mark.parametrize(
    "arrays",
    [
        {"X": np.zeros((1, 1))},
        {"y": np.zeros(1)},
        {"X": np.array([["1"]]), "y": np.zeros(1)},
        {"X": np.zeros((1, 1), dtype=complex), "y": np.zeros(1)},
        {"X": np.array([[None]]), "y": np.zeros(1)},
        {"X": np.zeros((1, 1)), "y": np.array([None])},
    ],
)
def test_anything_else_is_refused(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(CloisterError, match=r"rows\.npz must be an \.npz with the arrays X and y"):
        read_labelled(tmp_path / "rows.npz")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match=r"rows\.npz must be an \.npz.*No such file"):
        read_labelled(tmp_path / "rows.npz")
