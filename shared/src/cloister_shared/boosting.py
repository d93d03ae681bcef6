"""Boosted trees of XGBoost as arrays: from what it writes of a model, joined and scaled.

XGBoost itself is not needed here: its JSON is read as it is documented in
https://xgboost.readthedocs.io/en/release_3.2.0/tutorials/saving_model.html
"""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.links import OBJECTIVES, Link
from cloister_shared.trees import LEAF, Trees

Floats = npt.NDArray[np.float64]


def boosted_trees(model: bytes | bytearray) -> Trees:
    """Return the trees of a model that was fitted in this process, with the base they add to.

    Args:
        model: as ``Booster.save_raw("json")`` gives it, with trees alone (``gbtree``).

    Raises:
        CloisterError: its objective is none that is known, or one tree has several outputs.
    """
    learner = json.loads(model)["learner"]
    objective = learner["objective"]["name"]
    if objective not in OBJECTIVES:
        raise CloisterError(f"the objective {objective} is none of {', '.join(OBJECTIVES)}")
    parameters = learner["learner_model_param"]
    n_outputs = max(int(parameters["num_class"]), 1)
    given = np.atleast_1d(np.array(json.loads(parameters["base_score"]), dtype=np.float64))
    base = np.broadcast_to(margin(given, OBJECTIVES[objective]), (n_outputs,)).copy()
    grown = learner["gradient_booster"]["model"]
    # The order is that of training, an output after the other in each round.
    if grown["tree_info"] != [at % n_outputs for at in range(len(grown["trees"]))]:
        raise CloisterError("the trees are not of one output each, in turn")
    return joined([_tree(one) for one in grown["trees"]], base)


def trees_of(fitted: Any) -> Trees:
    """Return the trees of a fitted tree or forest of scikit-learn, or of XGBoost's boosted trees.

    Raises:
        CloisterError: as ``boosted_trees``.
    """
    if hasattr(fitted, "get_booster"):
        return boosted_trees(fitted.get_booster().save_raw("json"))
    return Trees.of(fitted)


def margin(predicted: Floats, meaning: Link) -> Floats:
    """Return the scores that mean a prediction: a probability, or a regression's value."""
    match meaning:
        case "logistic":
            scores: Floats = np.log(predicted) - np.log1p(-predicted)
        case "exponential":
            scores = np.log(predicted)
        case _:
            scores = predicted
    return scores


def no_trees(base: Floats) -> Trees:
    """Return a boosted model without a tree yet, which answers its base."""
    none = np.zeros(0, dtype=np.int64)
    return Trees(none, none, none, none, np.zeros(0), np.zeros((0, 1)), base)


def joined(parts: Sequence[Trees], base: Floats) -> Trees:
    """Return all trees of several models, one after the other, as one that is boosted.

    Args:
        parts: with values of shape (n_nodes, 1); what their own bases are is not looked at.
        base: of the whole.
    """
    offsets = np.cumsum([0, *(len(one.left) for one in parts)])

    def shifted(name: str) -> npt.NDArray[np.int64]:
        arrays = [
            np.where(getattr(one, name) == LEAF, LEAF, getattr(one, name) + offset)
            for one, offset in zip(parts, offsets[:-1], strict=True)
        ]
        return np.concatenate([np.zeros(0, dtype=np.int64), *arrays])

    def plain(name: str, empty: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.concatenate([empty, *(getattr(one, name) for one in parts)])

    return Trees(
        roots=shifted("roots"),
        left=shifted("left"),
        right=shifted("right"),
        feature=plain("feature", np.zeros(0, dtype=np.int64)),
        threshold=plain("threshold", np.zeros(0)),
        value=plain("value", np.zeros((0, 1))),
        base=base,
    )


def _tree(written: dict[str, Any]) -> Trees:
    """Return one tree; nodes that XGBoost has pruned are left out."""
    left, right = written["left_children"], written["right_children"]
    # Parents before their children.
    order = [0]
    for node in order:
        if left[node] != LEAF:
            order += [left[node], right[node]]
    place = {node: at for at, node in enumerate(order)}
    inner = np.array([left[node] != LEAF for node in order])
    numbers = np.array([written["split_conditions"][node] for node in order], dtype=np.float32)
    # XGBoost goes left below the condition, and Trees at most at the threshold: in single precision
    # that is the next number below.
    below = np.nextafter(numbers, np.float32(-np.inf)).astype(np.float64)

    def children(which: list[int]) -> npt.NDArray[np.int64]:
        return np.array([place[which[node]] if which[node] != LEAF else LEAF for node in order])

    return Trees(
        roots=np.zeros(1, dtype=np.int64),
        left=children(left),
        right=children(right),
        feature=np.where(inner, [written["split_indices"][node] for node in order], 0),
        threshold=np.where(inner, below, 0.0),
        value=np.where(inner, 0.0, numbers.astype(np.float64))[:, None],
    )
