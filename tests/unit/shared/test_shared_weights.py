"""Float weights, and .npz files that are not what they should be."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.weights import LinearWeights

DIGITS = schema("digits")


def npz(**arrays: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


VALID = npz(coef=np.arange(6.0).reshape(2, 3), intercept=np.array([0.5, -0.5]))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    written = LinearWeights(generator.normal(size=(10, 64)), generator.normal(size=10))
    written.write(tmp_path / "weights.npz")
    read = LinearWeights.read(tmp_path / "weights.npz")
    read.check(DIGITS)
    np.testing.assert_array_equal(read.coef, written.coef)
    np.testing.assert_array_equal(read.intercept, written.intercept)


def test_equal_weights_make_equal_files(tmp_path: Path) -> None:
    for name in ("one.npz", "other.npz"):
        LinearWeights.zeros(DIGITS).write(tmp_path / name)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_training_starts_from_zeros_of_the_right_shapes(name: Any) -> None:
    zeros = LinearWeights.zeros(schema(name))
    zeros.check(schema(name))
    assert not zeros.coef.any()
    assert not zeros.intercept.any()


@pytest.mark.parametrize(
    ("coef", "intercept", "message"),
    [
        (np.zeros((10, 63)), np.zeros(10), r"coef has shape \(10, 63\), not \(10, 64\)"),
        (np.zeros((64, 10)), np.zeros(10), "coef has shape"),
        (np.zeros((10, 64)), np.zeros(9), "intercept has shape"),
        (np.zeros((10, 64)), np.zeros((1, 10)), "intercept has shape"),
        (np.full((10, 64), np.nan), np.zeros(10), "coef holds values that are not finite"),
        (np.zeros((10, 64)), np.full(10, -np.inf), "intercept holds values that are not finite"),
    ],
)
def test_weights_that_do_not_fit_the_schema_are_refused(
    coef: np.ndarray[Any, Any], intercept: np.ndarray[Any, Any], message: str
) -> None:
    with pytest.raises(CloisterError, match=message):
        LinearWeights(coef, intercept).check(DIGITS)


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["npz", "pickle"])
def test_nothing_is_ever_unpickled(tmp_path: Path, form: str) -> None:
    trap = Trap(tmp_path / "sprung")
    content = (
        npz(coef=np.array([trap], dtype=object), intercept=np.zeros(1))
        if form == "npz"
        else pickle.dumps(trap)
    )
    (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(CloisterError, match=r"weights\.npz cannot be read as \.npz"):
        LinearWeights.read(tmp_path / "weights.npz")
    assert not (tmp_path / "sprung").exists()


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        b"\x93NUMPY",
        VALID[: len(VALID) // 2],
        npy(np.zeros(3)),
        npz(coef=np.zeros((1, 2))),
        npz(coef=np.zeros((1, 2), dtype=np.complex128), intercept=np.zeros(1)),
        npz(coef=np.array([["1.0", "2.0"]]), intercept=np.zeros(1)),
        npz(coef=np.zeros(2, dtype="f8,i4"), intercept=np.zeros(1)),
        npz(coef=np.zeros(2, dtype="M8[s]"), intercept=np.zeros(1)),
        zipped(coef=b"not an array", intercept=npy(np.zeros(1))),
        # A header that promises far more than the file, or memory, holds.
        zipped(
            coef=npy(np.zeros((1, 2))).replace(
                b"(1, 2), }             ", b"(1, 9999999999999)}   "
            ),
            intercept=npy(np.zeros(1)),
        ),
    ],
    ids=range(12),
)
def test_a_file_that_does_not_hold_both_as_numbers_is_refused_by_its_path(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "weights.npz").write_bytes(content)
    with pytest.raises(CloisterError, match=r"weights\.npz"):
        LinearWeights.read(tmp_path / "weights.npz")


@given(st.integers(0, len(VALID) - 1), st.integers(0, 255))
def test_a_damaged_byte_is_refused_or_leaves_the_arrays_as_they_were(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "weights.npz"
    path.write_bytes(VALID[:position] + bytes([byte]) + VALID[position + 1 :])
    try:
        read = LinearWeights.read(path)
    except CloisterError:
        return
    np.testing.assert_array_equal(read.coef, np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(read.intercept, [0.5, -0.5])


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "weights.npz"
    path.write_bytes(content)
    with pytest.raises(CloisterError):
        LinearWeights.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match=r"weights\.npz"):
        LinearWeights.read(tmp_path / "weights.npz")


@pytest.mark.parametrize(
    ("coef", "intercept", "expected"),
    [
        (np.ones(3), 2.0, [2.0]),
        (np.ones((1, 3)), np.array([2.0]), [2.0]),
        (np.ones((2, 3), dtype=np.float32), np.array([1, 2]), [1.0, 2.0]),
        (np.ones((2, 3)), 0.0, [0.0, 0.0]),
        (np.asfortranarray(np.ones((2, 3))), 0.0, [0.0, 0.0]),
    ],
)
def test_what_an_estimator_has_becomes_weights(
    coef: Any, intercept: Any, expected: list[float]
) -> None:
    weights = LinearWeights.of(coef, intercept)
    assert weights.coef.tolist() == [[1.0] * 3] * len(expected)
    assert weights.intercept.tolist() == expected
    assert {weights.coef.dtype.name, weights.intercept.dtype.name} == {"float64"}
    assert weights.coef.flags.c_contiguous


@pytest.mark.parametrize(
    ("coef", "intercept", "message"),
    [
        (np.ones((2, 3)), np.ones(3), "make no linear model"),
        (np.ones((2, 3, 4)), 0.0, "make no linear model"),
        (np.ones((2, 3)), np.ones(0), "make no linear model"),
        (np.ones(3) * 1j, 0.0, "coef holds complex128"),
        (np.array(["a"]), 0.0, "coef holds <U1"),
        (np.ones(3), None, "intercept holds object"),
    ],
)
def test_other_arrays_make_no_weights(coef: Any, intercept: Any, message: str) -> None:
    with pytest.raises(CloisterError, match=message):
        LinearWeights.of(coef, intercept)


def test_what_is_pruned_is_the_inputs_whose_largest_weight_is_smallest() -> None:
    coef = np.array([[1.0, -5.0, 0.1, 2.0], [0.0, 0.5, -0.2, -3.0]])
    weights = LinearWeights(coef, np.array([7.0, 8.0]))
    for share, kept in ((0.0, [0, 1, 2, 3]), (0.24, [0, 1, 2, 3]), (0.5, [1, 3]), (0.99, [1])):
        pruned = weights.pruned(share)
        assert np.flatnonzero(pruned.coef.any(axis=0)).tolist() == kept
        np.testing.assert_array_equal(pruned.coef[:, kept], coef[:, kept])
        np.testing.assert_array_equal(pruned.intercept, weights.intercept)
    # What was given is as it was.
    assert coef.all(axis=0).tolist() == [False, True, True, True]
