"""Rows that a circuit of trees is calibrated, compared and proven with, made from the trees alone.

Concrete chooses the width of every value in a circuit from what the calibration rows reach, and one
that does not fit wraps around silently. A tree's circuit compares every input with its thresholds,
and then counts for each leaf how many comparisons on the way to it come out as they must: the row
is at the leaf where all do. Random rows may miss the fewest and the most of these counts; the rows
here reach both for every leaf, exactly: as each comparison is of one input, each input can be
chosen apart from the others.
"""

import numpy as np
import numpy.typing as npt

from cloister_shared.trees import LEAF, Ranked, Trees

Floats = npt.NDArray[np.float64]

PROBES = 4096
"""Synthetic rows; a share of 2 % is then known to within .0022 (one standard deviation)."""
LEAF_ROWS = 32
"""The most rows that go through real encryption to reach leaves: seconds each."""


def calibration_rows(ranked: Ranked) -> Floats:
    """Ranks to compile trees with, shape (n, n_features)."""
    n_features = len(ranked.features)
    # With the largest integer of its bits, an input's encoding has exactly these.
    bounds = np.vstack([np.zeros(n_features), np.full(n_features, 2**ranked.bits - 1)])
    return np.vstack([bounds, extreme_ranks(ranked)])


def random_ranks(ranked: Ranked, n_rows: int) -> Floats:
    """Ranks drawn evenly, the same for the same trees, shape (n_rows, n_features)."""
    counts = [len(one) for one in ranked.edges]
    drawn = np.random.default_rng(0).integers(0, counts, (n_rows, len(counts)), endpoint=True)
    return drawn.astype(np.float64)


def extreme_ranks(ranked: Ranked) -> Floats:
    """Ranks that fulfil as many, and then as few, comparisons on the way to each leaf as any row.

    Returns:
        Shape (2 * n_leaves, n_features): for each leaf a row that comes to it, where one can, then
        for each the row furthest from it.
    """
    counts = np.array([len(one) for one in ranked.edges])
    levels = np.arange(counts.max() + 1)
    trees = ranked.trees
    nearest, furthest = [], []
    for way in _ways(trees):
        fulfilled = np.zeros((len(counts), len(levels)), dtype=np.int64)
        for node, goes_left in way:
            at_most = levels <= trees.threshold[node]
            fulfilled[trees.feature[node]] += at_most if goes_left else ~at_most
        nearest.append(fulfilled.argmax(axis=1))
        furthest.append(fulfilled.argmin(axis=1))
    return np.array(nearest + furthest, dtype=np.float64)


def _ways(trees: Trees) -> list[list[tuple[int, bool]]]:
    """Return for each leaf the nodes above it, and whether the way goes left there."""
    above: dict[int, list[tuple[int, bool]]] = {int(root): [] for root in trees.roots}
    leaves = []
    for node in range(len(trees.left)):
        way = above.pop(node)
        if trees.left[node] == LEAF:
            leaves.append(way)
            continue
        above[int(trees.left[node])] = [*way, (node, True)]
        above[int(trees.right[node])] = [*way, (node, False)]
    return leaves


def synthetic_rows(trees: Trees, n_inputs: int, n_rows: int = PROBES, seed: int = 0) -> Floats:
    """Rows in [0, 1] that show what quantisation costs: half uniform, half evenly over the leaves.

    Uniform rows come to leaves by their volume, which says little of where data are: data are what
    the tree was split for, in small leaves as in large ones.

    Args:
        trees: that are checked.
        n_inputs: of the trees.
        n_rows: of both halves, even.
        seed: of the random draws; the same rows for the same.

    Returns:
        Shape (n_rows, n_inputs).
    """
    generator = np.random.default_rng(seed)
    ways = _ways(trees)
    low, high = np.zeros((len(ways), n_inputs)), np.ones((len(ways), n_inputs))
    for leaf, way in enumerate(ways):
        for node, goes_left in way:
            feature, threshold = trees.feature[node], trees.threshold[node]
            if goes_left:
                high[leaf, feature] = min(high[leaf, feature], threshold)
            else:
                low[leaf, feature] = max(low[leaf, feature], threshold)
    chosen = generator.integers(len(ways), size=n_rows // 2)
    within = generator.random((n_rows // 2, n_inputs))
    rows = low[chosen] + within * (high[chosen] - low[chosen])
    # A threshold beyond the bounds of its input leaves no row on one side.
    return np.vstack([generator.random((n_rows // 2, n_inputs)), np.clip(rows, 0.0, 1.0)])


def leaf_ranks(ranked: Ranked) -> Floats:
    """Ranks that come to every leaf, in few rows: of a forest a row comes to a leaf in each tree.

    Returns:
        Shape (n, n_features), at most ``LEAF_ROWS`` rows; those that come to most leaves.
    """
    extreme = extreme_ranks(ranked)
    rows = extreme[: len(extreme) // 2]
    reached = ranked.trees.leaves(rows)
    missing = set(np.unique(reached).tolist())
    chosen: list[int] = []
    while missing and len(chosen) < LEAF_ROWS:
        gains = [len(missing.intersection(row)) for row in reached.tolist()]
        best = int(np.argmax(gains))
        chosen.append(best)
        missing.difference_update(reached[best].tolist())
    return rows[chosen]
