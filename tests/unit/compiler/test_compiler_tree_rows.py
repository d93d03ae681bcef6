"""Rows that trees are calibrated and proven with: they reach what they are said to reach."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from cloister_compiler.tree_rows import (
    calibration_rows,
    extreme_ranks,
    leaf_ranks,
    synthetic_rows,
)
from cloister_shared.trees import LEAF, Ranked, Trees

N_INPUTS = 3


def trees_of(seed: int, n_trees: int) -> Trees:
    generator = np.random.default_rng(seed)
    rows, labels = generator.random((40, N_INPUTS)), generator.integers(0, 2, 40)
    model = (
        DecisionTreeClassifier(max_depth=3, random_state=seed)
        if n_trees == 1
        else RandomForestClassifier(n_trees, max_depth=2, random_state=seed)
    )
    return Trees.of(model.fit(rows, labels))


def counts(ranked: Ranked, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """For each row and each leaf, the comparisons on the way to it that come out as they must."""
    trees = ranked.trees
    parent = {}
    for node in np.flatnonzero(trees.left != LEAF):
        parent[int(trees.left[node])] = (int(node), True)
        parent[int(trees.right[node])] = (int(node), False)
    found = []
    for leaf in np.flatnonzero(trees.left == LEAF):
        total, node = np.zeros(len(rows), dtype=int), int(leaf)
        while node in parent:
            node, left = parent[node]
            total += (rows[:, trees.feature[node]] <= trees.threshold[node]) == left
        found.append(total)
    return np.array(found).T


@pytest.mark.parametrize("n_trees", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_no_row_has_counts_beyond_those_of_the_calibration(seed: int, n_trees: int) -> None:
    ranked = trees_of(seed, n_trees).ranked()
    every = np.array(list(product(*(range(len(one) + 1) for one in ranked.edges))), dtype=float)
    reached, all_ = counts(ranked, extreme_ranks(ranked)), counts(ranked, every)
    n_leaves = reached.shape[1]
    np.testing.assert_array_equal(np.diag(reached[:n_leaves]), all_.max(axis=0))
    np.testing.assert_array_equal(np.diag(reached[n_leaves:]), all_.min(axis=0))
    rows = calibration_rows(ranked)
    assert rows.min() == 0
    assert rows.max() == 2**ranked.bits - 1


@pytest.mark.parametrize("n_trees", [1, 3])
def test_rows_to_be_proven_come_to_every_leaf(n_trees: int) -> None:
    ranked = trees_of(0, n_trees).ranked()
    rows = leaf_ranks(ranked)
    assert set(np.unique(ranked.trees.leaves(rows))) == set(
        np.flatnonzero(ranked.trees.left == LEAF)
    )
    assert len(rows) <= ranked.trees.n_leaves


def test_synthetic_rows_come_to_every_leaf_within_the_bounds() -> None:
    trees = trees_of(0, 1)
    rows = synthetic_rows(trees, N_INPUTS, 400)
    assert rows.shape == (400, N_INPUTS)
    assert ((rows >= 0) & (rows <= 1)).all()
    _, times = np.unique(trees.leaves(rows[200:]), return_counts=True)
    assert len(times) == trees.n_leaves
    assert times.min() > 200 / trees.n_leaves / 3
    np.testing.assert_array_equal(rows, synthetic_rows(trees, N_INPUTS, 400))
