"""The circuit of trees in the clear."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_shared.errors import CloisterError
from cloister_shared.reference import OutputScale
from cloister_shared.schema import DatasetSchema, Feature
from cloister_shared.tree_reference import TreeReference
from cloister_shared.trees import LEAF, Trees

DATA = DatasetSchema(
    dataset="made",
    features=tuple(Feature(name=name, low=0, high=1) for name in "abc"),
    classes=("no", "yes"),
)


def small() -> TreeReference:
    """Of a tree that compares the last input, and one that compares the first and the last."""
    trees = Trees(
        roots=np.array([0, 3]),
        left=np.array([1, LEAF, LEAF, 4, LEAF, 6, LEAF, LEAF]),
        right=np.array([2, LEAF, LEAF, 5, LEAF, 7, LEAF, LEAF]),
        feature=np.array([2, 0, 0, 0, 0, 2, 0, 0]),
        threshold=np.array([0.5, 0, 0, 0.25, 0, 0.75, 0, 0]),
        value=np.array(
            [[0.5, 0.5], [1, 0], [0, 1], [0.5, 0.5], [0.9, 0.1], [0.5, 0.5], [0.2, 0.8], [0, 1]]
        ),
    )
    integers = np.zeros(trees.value.shape, dtype=np.int64)
    integers[[1, 2, 4, 6, 7]] = [[8, 1], [0, 9], [7, 2], [3, 6], [1, 8]]
    return TreeReference(trees, integers, OutputScale(0.0625, np.array([0, 1]), 2))


ROWS = np.array([[0.0, 0.9, 0.5], [1.0, 0.9, 0.5], [1.0, 0.1, 0.8]])


def test_scores_of_two_trees_by_hand() -> None:
    reference = small()
    assert reference.features.tolist() == [0, 2]
    ranks = reference.quantise(ROWS)
    assert ranks.tolist() == [[0, 0], [1, 0], [1, 2]]
    integers = reference.integer_scores(ranks)
    # Each output's trees side by side.
    assert integers.tolist() == [[8, 7, 1, 2], [8, 3, 1, 6], [0, 1, 9, 8]]
    expected = [[15 / 16, 1 / 16], [11 / 16, 5 / 16], [1 / 16, 15 / 16]]
    assert reference.dequantise(integers).tolist() == expected
    assert reference.float_scores(ROWS) == pytest.approx(
        np.array([[0.95, 0.05], [0.6, 0.4], [0.0, 1.0]])
    )


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    reference, path = small(), tmp_path / "reference.npz"
    reference.write(path)
    read = TreeReference.read(path, DATA)
    for field in fields(Trees):
        one, other = getattr(reference.trees, field.name), getattr(read.trees, field.name)
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(read.integers, reference.integers)
    assert (read.output.scale, read.output.n_trees) == (0.0625, 2)
    assert read.output.zero_point.tolist() == [0, 1]


def changed(**changes: Any) -> TreeReference:
    return replace(small(), **changes)


def with_output(**changes: Any) -> TreeReference:
    return changed(output=replace(small().output, **changes))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (changed(integers=small().integers[:-1]), r"integers is int64 of shape \(7, 2\)"),
        (changed(integers=small().integers * 1.0), "integers is float64"),
        (with_output(scale=0.0), "output_scale must be above 0"),
        (with_output(scale=-1.0), "output_scale must be above 0"),
        (with_output(scale=np.inf), "output_scale must be above 0"),
        (with_output(scale=np.nan), "output_scale must be above 0"),
        (with_output(zero_point=np.array([0])), r"output_zero_point is int64 of shape \(1,\)"),
        (changed(trees=replace(small().trees, left=-small().trees.left)), "one parent"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    reference: TreeReference, message: str, tmp_path: Path
) -> None:
    reference.write(tmp_path / "reference.npz")
    with pytest.raises(CloisterError, match=message):
        TreeReference.read(tmp_path / "reference.npz", DATA)


def test_trees_of_another_schema_are_refused(tmp_path: Path) -> None:
    small().write(tmp_path / "reference.npz")
    narrow = DatasetSchema(dataset="made", features=DATA.features[:2], classes=DATA.classes)
    with pytest.raises(CloisterError, match="compare inputs that the 2 there are lack"):
        TreeReference.read(tmp_path / "reference.npz", narrow)


def test_a_file_of_trees_alone_is_refused(tmp_path: Path) -> None:
    small().trees.write(tmp_path / "reference.npz")
    with pytest.raises(CloisterError, match="integers"):
        TreeReference.read(tmp_path / "reference.npz", DATA)
