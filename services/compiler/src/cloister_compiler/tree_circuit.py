"""What a compiled circuit of trees computes, read off it in the clear."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cloister_compiler.tree_rows import calibration_rows, extreme_ranks, random_ranks
from cloister_shared.errors import CloisterError
from cloister_shared.reference import OutputScale
from cloister_shared.tree_reference import TreeReference
from cloister_shared.trees import Ranked, Trees

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def reference_of(model: Any, trees: Trees, n_random: int) -> TreeReference:
    """Return the trees with the integers that their circuit gives at each leaf.

    Args:
        model: of concrete.ml.sklearn, compiled from the ranks of ``trees``.
        trees: that are checked.
        n_random: rows of random ranks for which the two are compared, beside the extreme ones.

    Raises:
        CloisterError: the circuit gives other integers for some row than for another one that
            comes to the same leaves.
    """
    ranked = trees.ranked()
    # Each leaf that a rank comes to is reached by the row that is nearest to it.
    nearest = extreme_ranks(ranked)[: trees.n_leaves]
    answers, leaves = _answers(model, nearest), ranked.trees.leaves(nearest)
    integers = np.zeros(trees.value.shape, dtype=np.int64)
    # Of boosted trees each is of one output alone.
    of_trees = answers.swapaxes(1, 2).reshape(len(nearest), trees.n_trees, -1)
    for tree in range(trees.n_trees):
        integers[leaves[:, tree]] = of_trees[:, tree]
    quantiser = model.output_quantizers[0]
    zero_point = np.full(trees.n_outputs, int(quantiser.zero_point), dtype=np.int64)
    output = OutputScale(float(quantiser.scale), zero_point, trees.n_rounds, trees.base)
    reference = TreeReference(trees, integers, output)
    _check(model, reference, ranked, n_random)
    return reference


def _answers(model: Any, rows: Floats) -> Integers:
    """Run the circuit in the clear on ranks; shape (n, n_outputs, n_rounds)."""
    # One row at a time, as the circuit takes them.
    each = [model.fhe_circuit.graph(row[None, :].astype(np.int64)) for row in rows]
    answers: Integers = np.concatenate(each).astype(np.int64)
    return answers


def _check(model: Any, reference: TreeReference, ranked: Ranked, n_random: int) -> None:
    rows = np.vstack([calibration_rows(ranked), random_ranks(ranked, n_random)])
    answers = _answers(model, rows)
    expected = reference.integer_scores(rows.astype(np.int64))
    if not np.array_equal(answers.reshape(len(rows), -1), expected):
        raise CloisterError("the reference computes other scores than Concrete ML in the clear")
    scores = model.dequantize_output(answers).sum(axis=-1)
    if reference.output.base is not None:
        scores = scores + reference.output.base
    if not np.array_equal(scores, reference.dequantise(expected)):
        raise CloisterError("the reference scales scores otherwise than Concrete ML does")
