"""The compiled circuit of trees in the clear: what encrypted execution must equal, bit by bit."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.npz import read_numbers
from cloister_shared.reference import OutputScale
from cloister_shared.schema import DatasetSchema
from cloister_shared.trees import Ranked, Trees, ranks

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_INTEGERS, _SCALE, _ZERO_POINT = "integers", "output_scale", "output_zero_point"


@dataclass(frozen=True)
class TreeReference:
    """Float trees, and what their circuit answers at every leaf.

    The circuit takes ranks among the trees' thresholds, and compares them as the float trees
    compare inputs: only the values of leaves are rounded. It gives each tree's answer apart.
    """

    trees: Trees
    """Over inputs in [0, 1], not ranks."""
    integers: Integers
    """What the circuit gives for a row at each leaf, of the shape of the trees' values; 0 at other
    nodes, and at leaves that no rank comes to."""
    output: OutputScale
    """Integers to scores."""

    @cached_property
    def ranked(self) -> Ranked:
        """The trees as the circuit has them."""
        return self.trees.ranked()

    @property
    def features(self) -> Integers:
        """Ascending indices of the inputs that the circuit takes, shape (n_circuit_features,)."""
        return self.ranked.features

    def quantise(self, unit: Floats) -> Integers:
        """Return the ranks of rows in [0, 1] of all inputs.

        Args:
            unit: shape (n, n_inputs).

        Returns:
            Shape (n, n_circuit_features).
        """
        return ranks(unit[:, self.features], self.ranked.edges)

    def float_scores(self, unit: Floats) -> Floats:
        """Scores of the float trees for rows in [0, 1] of all inputs, shape (n, n_outputs)."""
        return self.trees.scores(unit)

    def integer_scores(self, quantised: Integers) -> Integers:
        """What the circuit gives for ranks, shape (n, n_outputs * n_rounds), rounds innermost."""
        leaves = self.ranked.trees.leaves(quantised.astype(np.float64))
        shape = (len(leaves), self.trees.n_rounds, self.trees.n_outputs)
        return self.integers[leaves].reshape(shape).swapaxes(1, 2).reshape(len(leaves), -1)

    def dequantise(self, integer_scores: Integers) -> Floats:
        """Turn what ``integer_scores`` gives into scores, shape (n, n_outputs)."""
        return self.output.dequantise(integer_scores)

    def write(self, path: Path) -> None:
        """Write every array to the file at ``path``, whose name must end in ``.npz``.

        Raises:
            OSError: the volume is full or not writable.
        """
        arrays = self.trees.arrays()
        arrays[_INTEGERS] = self.integers
        arrays[_SCALE] = np.array(self.output.scale, dtype=np.float64)
        arrays[_ZERO_POINT] = self.output.zero_point
        np.savez(path, **arrays)

    @classmethod
    def read(cls, path: Path, data: DatasetSchema) -> "TreeReference":
        """Read a reference from the .npz file at ``path``.

        Args:
            path: the file.
            data: schema that the trees must fit.

        Raises:
            CloisterError: the file is missing, is not .npz, lacks an array, or the arrays do not
                make a reference of trees that fit ``data``.
        """
        trees = Trees.read(path)
        trees.check(data)
        arrays = read_numbers(path, (_INTEGERS, _SCALE, _ZERO_POINT))
        for name, dtype, shape in (
            (_INTEGERS, np.int64, trees.value.shape),
            (_SCALE, np.float64, ()),
            (_ZERO_POINT, np.int64, (trees.n_outputs,)),
        ):
            if arrays[name].shape != shape or arrays[name].dtype != dtype:
                raise CloisterError(
                    f"reference: {name} is {arrays[name].dtype} of shape {arrays[name].shape}, not "
                    f"{np.dtype(dtype)} of shape {shape}"
                )
        scale = float(arrays[_SCALE])
        # Not a number is not above 0 either.
        if not 0 < scale < np.inf:
            raise CloisterError("reference: output_scale must be above 0, and finite")
        output = OutputScale(scale, arrays[_ZERO_POINT], trees.n_rounds, trees.base)
        return cls(trees, arrays[_INTEGERS], output)
