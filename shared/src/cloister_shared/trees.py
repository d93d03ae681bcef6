"""Decision trees, forests and boosted trees as arrays, in memory and as .npz.

No pickle: scikit-learn's own state of a tree is taken as it comes, and a wrong index in it reads
memory that is not its own. Here every index is checked before it is used.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.npz import read_numbers
from cloister_shared.schema import DatasetSchema

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

LEAF = -1
"""In the place of a leaf's children."""
INDICES = ("roots", "left", "right", "feature")
NUMBERS = ("threshold", "value")
BASE = "base"
"""Names of the arrays: of positions, of real numbers, and the one that only boosted trees have."""
SUM_TOLERANCE = 1e-6
"""By which the class shares of a node may add up to another number than 1."""


@dataclass(frozen=True)
class Trees:
    """The nodes of one or several decision trees, all in the same arrays, one tree after the other.

    Where a row goes at a node: left if its input, as float32, is at most the threshold, else right.
    What the model answers is the mean of the values of the leaves that a row comes to; or, where
    the trees are boosted, of each output its base and the sum over the trees of this output.
    """

    roots: Integers
    """Where each tree's nodes begin, ascending from 0, shape (n_trees,)."""
    left: Integers
    """Index of the left child, larger than the node's own, or -1 at a leaf; shape (n_nodes,)."""
    right: Integers
    """Index of the right child, likewise."""
    feature: Integers
    """Position of the input that is compared, shape (n_nodes,); 0 at a leaf."""
    threshold: Floats
    """What it is compared with, shape (n_nodes,); 0 at a leaf."""
    value: Floats
    """Share of each class, or the value of a regression, shape (n_nodes, n_outputs); of boosted
    trees what is added to the one output that the tree is of, shape (n_nodes, 1)."""
    base: Floats | None = None
    """Of boosted trees what each output begins from, shape (n_outputs,); the trees are of the
    outputs in turn: the first of the first, the second of the second. None: they are not
    boosted."""

    @classmethod
    def of(cls, fitted: Any) -> "Trees":
        """Return the nodes of a fitted decision tree or random forest of scikit-learn."""
        trees = [one.tree_ for one in getattr(fitted, "estimators_", [fitted])]
        counts = [tree.node_count for tree in trees]
        roots = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)

        def children(name: str) -> Integers:
            shifted = [
                np.where(getattr(tree, name) == LEAF, LEAF, getattr(tree, name) + root)
                for tree, root in zip(trees, roots, strict=True)
            ]
            joined: Integers = np.concatenate(shifted).astype(np.int64)
            return joined

        left = children("children_left")
        inner = left != LEAF

        def of_inner(name: str, dtype: Any) -> npt.NDArray[Any]:
            return np.where(inner, np.concatenate([getattr(one, name) for one in trees]), 0).astype(
                dtype
            )

        return cls(
            roots=roots,
            left=left,
            right=children("children_right"),
            feature=of_inner("feature", np.int64),
            threshold=of_inner("threshold", np.float64),
            value=np.vstack([tree.value[:, 0, :] for tree in trees]).astype(np.float64),
        )

    @property
    def n_trees(self) -> int:
        """How many trees there are."""
        return len(self.roots)

    @property
    def n_outputs(self) -> int:
        """Scores of a row."""
        return int(self.value.shape[1]) if self.base is None else len(self.base)

    @property
    def n_rounds(self) -> int:
        """How many trees add to each output."""
        return self.n_trees if self.base is None else self.n_trees // len(self.base)

    @property
    def n_leaves(self) -> int:
        """Leaves of all trees together."""
        return int((self.left == LEAF).sum())

    @property
    def depth(self) -> int:
        """Comparisons on the longest way from a root to a leaf."""
        depths = np.zeros(len(self.left), dtype=np.int64)
        # Parents come before their children.
        for node in np.flatnonzero(self.left != LEAF):
            depths[[self.left[node], self.right[node]]] = depths[node] + 1
        return int(depths.max(initial=0))

    def each(self) -> Iterator["Trees"]:
        """Return every tree alone, with indices of its own."""
        bounds = [*self.roots.tolist(), len(self.left)]
        for start, end in pairwise(bounds):
            nodes = slice(start, end)
            inner = self.left[nodes] != LEAF
            yield Trees(
                roots=np.zeros(1, dtype=np.int64),
                left=np.where(inner, self.left[nodes] - start, LEAF),
                right=np.where(inner, self.right[nodes] - start, LEAF),
                feature=self.feature[nodes],
                threshold=self.threshold[nodes],
                value=self.value[nodes],
            )

    def leaves(self, inputs: Floats) -> Integers:
        """Return the index of the leaf that each row comes to in each tree, shape (n, n_trees).

        Args:
            inputs: in [0, 1], shape (n, n_inputs).
        """
        # As scikit-learn has it: inputs in single precision, thresholds in double.
        rounded = inputs.astype(np.float32)
        at = np.tile(self.roots, (len(inputs), 1))
        rows = np.arange(len(inputs))[:, None]
        for _ in range(self.depth):
            goes_left = rounded[rows, self.feature[at]] <= self.threshold[at]
            below = np.where(goes_left, self.left[at], self.right[at])
            at = np.where(self.left[at] == LEAF, at, below)
        return at

    def scores(self, inputs: Floats) -> Floats:
        """Return class probabilities, or the value of a regression, shape (n, n_outputs).

        Of boosted trees they are what XGBoost calls margins: see ``cloister_shared.links``.

        Args:
            inputs: in [0, 1], shape (n, n_inputs).
        """
        leaves = self.leaves(inputs)
        if self.base is not None:
            each = self.value[leaves, 0].reshape(len(inputs), self.n_rounds, len(self.base))
            scores: Floats = self.base + each.sum(axis=1)
            return scores
        total = np.zeros((len(inputs), self.value.shape[1]))
        # In scikit-learn's order, so that the last bit is the same.
        for tree in range(self.n_trees):
            total += self.value[leaves[:, tree]]
        return total / self.n_trees

    def ranked(self) -> "Ranked":
        """Return the same trees over ranks of inputs among their thresholds, see ``Ranked``."""
        inner = self.left != LEAF
        features = np.unique(self.feature[inner])
        edges = tuple(np.unique(self.threshold[inner & (self.feature == one)]) for one in features)
        feature, threshold = np.zeros_like(self.feature), np.zeros_like(self.threshold)
        for position, one in enumerate(features):
            nodes = inner & (self.feature == one)
            feature[nodes] = position
            # A rank is at most this where the input is at most the edge.
            threshold[nodes] = np.searchsorted(edges[position], self.threshold[nodes]) + 0.5
        return Ranked(features, edges, replace(self, feature=feature, threshold=threshold))

    def check(self, schema: DatasetSchema) -> None:
        """Raise unless these are trees whose inputs and values fit ``schema``, and not all leaves.

        Raises:
            CloisterError: saying what is wrong.
        """
        if not self.n_trees:
            raise CloisterError("there is no tree")
        self.check_form(schema)
        if (self.left == LEAF).all():
            raise CloisterError(
                "no tree has a single split: nothing was learnt, nothing is published; bring more "
                "rows, or loosen the parameters that stop a tree from growing"
            )
        if schema.classes and self.base is None:
            self._check_classes(schema)

    def check_form(self, schema: DatasetSchema) -> None:
        """Raise unless these are trees, or none yet, whose inputs and outputs fit ``schema``.

        Raises:
            CloisterError: saying what is wrong.
        """
        self._check_shapes(schema)
        self._check_nodes(schema.n_inputs)
        if not (np.isfinite(self.threshold).all() and np.isfinite(self.value).all()):
            raise CloisterError("the trees hold values that are not finite")

    def _check_shapes(self, schema: DatasetSchema) -> None:
        n_nodes, n_outputs = len(self.left), len(schema.classes) or 1
        if self.roots.ndim != 1 or self.left.ndim != 1:
            raise CloisterError("there is no tree")
        if self.base is not None:
            self._check_base(self.base, schema)
            n_outputs = 1
        for name, shape in (
            ("left", (n_nodes,)),
            ("right", (n_nodes,)),
            ("feature", (n_nodes,)),
            ("threshold", (n_nodes,)),
            ("value", (n_nodes, n_outputs)),
        ):
            if getattr(self, name).shape != shape:
                raise CloisterError(
                    f"{name} of the trees has shape {getattr(self, name).shape}, not {shape}"
                )

    def _check_base(self, base: Floats, schema: DatasetSchema) -> None:
        if base.shape != (schema.n_outputs,) or not np.isfinite(base).all():
            raise CloisterError(
                f"the base of the trees must be {schema.n_outputs} finite numbers, one an output"
            )
        if self.n_trees % len(base):
            raise CloisterError(
                f"{self.n_trees} boosted trees are not as many for each of {len(base)} outputs"
            )

    def _check_nodes(self, n_inputs: int) -> None:
        n_nodes = len(self.left)
        if not len(self.roots):
            if n_nodes:
                raise CloisterError("the trees do not begin one after the other")
            return
        starts = np.concatenate([self.roots, [n_nodes]])
        if starts[0] != 0 or (np.diff(starts) < 1).any():
            raise CloisterError("the trees do not begin one after the other")
        inner = np.flatnonzero(self.left != LEAF)
        children = np.concatenate([self.left[inner], self.right[inner]])
        # Each node but the roots is the child of one node, which lies before it in the same tree:
        # so every way down ends at a leaf.
        others = np.setdiff1d(np.arange(n_nodes), self.roots)
        if not np.array_equal(np.sort(children), others):
            raise CloisterError("the nodes do not make trees: each must have one parent")
        tree = np.searchsorted(self.roots, np.arange(n_nodes), side="right")
        parents = np.concatenate([inner, inner])
        if (children <= parents).any() or (tree[children] != tree[parents]).any():
            raise CloisterError("the nodes do not make trees: a child lies before its parent")
        if (self.right[self.left == LEAF] != LEAF).any():
            raise CloisterError("a node has one child; trees have two or none")
        if ((self.feature < 0) | (self.feature >= n_inputs)).any():
            raise CloisterError(f"the trees compare inputs that the {n_inputs} there are lack")

    def _check_classes(self, schema: DatasetSchema) -> None:
        if (self.value < 0).any() or (np.abs(self.value.sum(axis=1) - 1) > SUM_TOLERANCE).any():
            raise CloisterError("the class shares of a node must be from 0 and add up to 1")
        missing = np.flatnonzero((self.value[self.left == LEAF] == 0).all(axis=0))
        if missing.size:
            raise CloisterError(
                f"class {schema.classes[missing[0]]} occurs in no leaf, so it would never be "
                "answered: fit rows of it, or take the class out of the schema"
            )

    def write(self, path: Path) -> None:
        """Write all arrays to the file at ``path``, whose name must end in ``.npz``.

        Raises:
            OSError: the volume is full or not writable.
        """
        np.savez(path, **self.arrays())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return all that there is of the arrays, by name."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: array for name, array in named.items() if array is not None}

    @classmethod
    def read(cls, path: Path) -> "Trees":
        """Read the arrays from the .npz file at ``path``.

        Raises:
            CloisterError: the file is missing, is not .npz, or lacks an array, or one that counts
                holds other than integers; shapes and values are for ``check``.
        """
        try:
            return cls.from_arrays(read_numbers(path, (*INDICES, *NUMBERS), optional=(BASE,)))
        except TypeError as error:
            raise CloisterError(f"{path}: {error}") from None

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Trees":
        """Return the trees that these arrays, by name, are; shapes and values are for ``check``.

        Raises:
            KeyError: one is missing.
            TypeError: one holds something else than integers or real numbers, as it must.
        """
        for name in INDICES:
            if arrays[name].dtype.kind != "i":
                raise TypeError(f"{name} holds {arrays[name].dtype}, not integers")
        numbers = [*NUMBERS, BASE] if BASE in arrays else NUMBERS
        named: dict[str, Any] = {name: arrays[name].astype(np.int64) for name in INDICES}
        for name in numbers:
            named[name] = arrays[name].astype(np.float64, casting="same_kind")
        return cls(**named)


@dataclass(frozen=True)
class Ranked:
    """Trees that compare small integers, and what makes these of inputs.

    All that trees ask of an input is between which of their thresholds it lies. Its rank among them
    answers the same with fewer bits than any even grid, and exactly.
    """

    features: Integers
    """Ascending positions of the inputs that are compared at all, shape (n_features,)."""
    edges: tuple[Floats, ...]
    """Ascending thresholds of each of these inputs, at least one."""
    trees: Trees
    """Over ranks of these inputs; their thresholds lie half way between two ranks."""

    @property
    def bits(self) -> int:
        """Of the largest rank."""
        return max(len(one) for one in self.edges).bit_length()


def ranks(inputs: Floats, edges: Sequence[Floats]) -> Integers:
    """Return how many edges lie below each input, which as in scikit-learn is taken as float32.

    Args:
        inputs: shape (n, n_features).
        edges: ascending, of each feature.
    """
    rounded = inputs.astype(np.float32).astype(np.float64)
    columns = [np.searchsorted(one, rounded[:, at]) for at, one in enumerate(edges)]
    return np.stack(columns, axis=1).astype(np.int64)
