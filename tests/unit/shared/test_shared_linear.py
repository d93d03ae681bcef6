"""The integers of a linear circuit as a file."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_shared.errors import CloisterError
from cloister_shared.linear import LinearCircuit

PARTS: dict[str, Any] = {
    "weights": np.array([[1, -2], [3, 4], [5, 6]]),
    "bias": np.array([7, -8]),
    "lwe_dimension": np.array(1000),
    "width": np.array(10),
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "linear.npz"
    LinearCircuit(PARTS["weights"], PARTS["bias"], 1000, 10).write(path)
    read = LinearCircuit.read(path)
    assert np.array_equal(read.weights, PARTS["weights"])
    assert np.array_equal(read.bias, PARTS["bias"])
    assert (read.lwe_dimension, read.width) == (1000, 10)


def test_the_bias_is_encoded_below_one_bit_of_padding() -> None:
    encoded = LinearCircuit(PARTS["weights"], PARTS["bias"], 1000, 10).encoded_bias
    assert encoded.dtype == np.uint64
    assert encoded.tolist() == [7 << 53, 2**64 - (8 << 53)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.zeros((3, 2))}, "weights is float64, not int64"),
        ({"weights": np.zeros(3, dtype=np.int64)}, "make no linear circuit"),
        ({"weights": np.zeros((0, 2), dtype=np.int64)}, "make no linear circuit"),
        ({"bias": np.zeros(3, dtype=np.int64)}, "make no linear circuit"),
        ({"weights": np.full((3, 2), 2**30)}, "not below 1073741824"),
        ({"weights": np.full((3, 2), -(2**63))}, "not below 1073741824"),
        ({"lwe_dimension": np.array(0)}, "lwe_dimension is not a positive number"),
        ({"width": np.array([10])}, "width is not a positive number"),
        ({"width": np.array(64)}, "64 bits do not fit a word of 64"),
        ({"weights": None}, "cannot be read as .npz"),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    parts = {name: value for name, value in (PARTS | changes).items() if value is not None}
    np.savez(tmp_path / "linear.npz", **parts)
    with pytest.raises(CloisterError, match=message):
        LinearCircuit.read(tmp_path / "linear.npz")
