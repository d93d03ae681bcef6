"""From trees as arrays to a fitted scikit-learn estimator, which Concrete ML takes."""

from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.tree._tree import NODE_DTYPE, Tree

from cloister_shared.card import ModelCard
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator, sklearn_class
from cloister_shared.trees import LEAF, Trees


def rebuilt(card: ModelCard, trees: Trees, n_inputs: int) -> Any:
    """Return the estimator as ``fit`` leaves it, except for statistics of the rows.

    Args:
        card: names the estimator and its parameters.
        trees: that are checked.
        n_inputs: of the trees.

    Raises:
        CloisterError: the estimator does not take the card's parameters, or is of one tree and
            there are several.
    """
    if trees.base is not None:
        return _boosted(trees, n_inputs)
    try:
        model = sklearn_class(estimator(card.estimator))(**card.parameters)
    except TypeError as error:
        raise CloisterError(f"{card.estimator} does not take its parameters: {error}") from None
    if isinstance(model, DecisionTreeClassifier | DecisionTreeRegressor):
        if trees.n_trees != 1:
            raise CloisterError(f"a {card.estimator} has one tree, and here are {trees.n_trees}")
        return _with_tree(model, trees, len(card.data.classes), n_inputs)
    # Classifier or regressor, as its own ``fit`` would have it.
    model.estimator_ = type(model)().estimator
    model.estimators_ = [
        _with_tree(type(model.estimator_)(), one, len(card.data.classes), n_inputs)
        for one in trees.each()
    ]
    return _described(model, len(card.data.classes), n_inputs)


def _boosted(trees: Trees, n_inputs: int) -> Any:
    """Return a forest of the same trees, whose answer is the sum and not the mean of theirs.

    What Concrete ML makes of a forest and of boosted trees is one circuit, and it takes XGBoost's
    own models of one release alone.
    """
    forest = RandomForestRegressor(n_estimators=trees.n_trees)
    forest.estimator_ = type(forest)().estimator
    forest.estimators_ = [
        _with_tree(
            type(forest.estimator_)(), replace(one, value=one.value * trees.n_trees), 0, n_inputs
        )
        for one in trees.each()
    ]
    return _described(forest, 0, n_inputs)


def _with_tree(model: Any, trees: Trees, n_classes: int, n_inputs: int) -> Any:
    if trees.n_leaves == 1:
        trees = _split_in_equals(trees)
    n_nodes, n_outputs = trees.value.shape
    nodes = np.zeros(n_nodes, dtype=NODE_DTYPE)
    nodes["left_child"], nodes["right_child"] = trees.left, trees.right
    # What scikit-learn itself has there.
    nodes["feature"] = np.where(trees.left == LEAF, -2, trees.feature)
    nodes["threshold"] = np.where(trees.left == LEAF, -2.0, trees.threshold)
    tree = Tree(n_inputs, np.array([n_outputs], dtype=np.intp), 1)
    tree.__setstate__(
        {
            "max_depth": trees.depth,
            "node_count": n_nodes,
            "nodes": nodes,
            "values": np.ascontiguousarray(trees.value[:, None, :]),
        }
    )
    model.tree_, model.max_features_ = tree, n_inputs
    return _described(model, n_classes, n_inputs)


def _split_in_equals(leaf: Trees) -> Trees:
    """Return a tree that answers the same on both sides: Concrete ML takes none without a split."""
    return Trees(
        roots=leaf.roots,
        left=np.array([1, LEAF, LEAF]),
        right=np.array([2, LEAF, LEAF]),
        feature=np.zeros(3, dtype=np.int64),
        threshold=np.array([0.5, 0.0, 0.0]),
        value=np.repeat(leaf.value, 3, axis=0),
    )


def _described(model: Any, n_classes: int, n_inputs: int) -> Any:
    model.n_features_in_, model.n_outputs_ = n_inputs, 1
    if n_classes:
        model.n_classes_ = n_classes
        model.classes_ = np.arange(model.n_classes_)
    return model
