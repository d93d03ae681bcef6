"""Float weights of a linear model, in memory and as .npz."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.npz import read_numbers
from cloister_shared.schema import DatasetSchema


@dataclass(frozen=True)
class LinearWeights:
    """``coef_`` of shape (n_outputs, n_inputs) and ``intercept_`` of shape (n_outputs,)."""

    coef: npt.NDArray[np.float64]
    intercept: npt.NDArray[np.float64]

    @classmethod
    def zeros(cls, schema: DatasetSchema) -> "LinearWeights":
        """Return the weights every training starts from."""
        return cls(np.zeros((schema.n_outputs, schema.n_inputs)), np.zeros(schema.n_outputs))

    @classmethod
    def of(cls, coef: npt.ArrayLike, intercept: npt.ArrayLike) -> "LinearWeights":
        """Return weights from ``coef_`` and ``intercept_`` as a scikit-learn estimator has them.

        Args:
            coef: shape (n_outputs, n_inputs), or of a regression (n_inputs,).
            intercept: one number a row of ``coef``, or a single one for all of them.

        Raises:
            CloisterError: they are no real numbers, or their shapes are none of these.
        """
        rows, offsets = np.atleast_2d(np.asarray(coef)), np.ravel(np.asarray(intercept))
        for name, array in (("coef", rows), ("intercept", offsets)):
            if array.dtype.kind not in "iuf":
                raise CloisterError(f"{name} holds {array.dtype}, not integers or real numbers")
        if rows.ndim != 2 or len(offsets) not in (1, len(rows)):
            raise CloisterError(
                f"coef of shape {rows.shape} and intercept of shape {offsets.shape} make no linear "
                "model"
            )
        # Without an intercept scikit-learn has a single 0, whatever the number of rows.
        offsets = np.broadcast_to(offsets, len(rows)).astype(np.float64)
        return cls(np.ascontiguousarray(rows, dtype=np.float64), offsets)

    def __add__(self, update: "LinearWeights") -> "LinearWeights":
        return LinearWeights(self.coef + update.coef, self.intercept + update.intercept)

    def __sub__(self, other: "LinearWeights") -> "LinearWeights":
        return LinearWeights(self.coef - other.coef, self.intercept - other.intercept)

    @property
    def l2_norm(self) -> float:
        """Of coefficients and intercepts as one vector."""
        return float(np.hypot(np.linalg.norm(self.coef), np.linalg.norm(self.intercept)))

    def clipped(self, norm: float) -> "LinearWeights":
        """Return these scaled to an l2 norm of ``norm``, or as they are where theirs is less."""
        own = self.l2_norm
        if own <= norm:
            return self
        factor = norm / own
        return LinearWeights(factor * self.coef, factor * self.intercept)

    def pruned(self, share: float) -> "LinearWeights":
        """Return weights in which the inputs that matter least have none.

        What an input matters is its largest weight, of whichever output. An input without weight
        is none of the circuit's: it is neither encrypted nor evaluated.

        Args:
            share: of the inputs to take the weights from, 0 to below 1.
        """
        least = np.argsort(np.abs(self.coef).max(axis=0), kind="stable")
        coef = self.coef.copy()
        coef[:, least[: int(share * len(least))]] = 0.0
        return LinearWeights(coef, self.intercept)

    def absorbing(
        self, factor: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]
    ) -> "LinearWeights":
        """Return weights for x that score as these do for ``factor * x + offset``.

        Args:
            factor: of every input, shape (n_inputs,).
            offset: likewise.
        """
        return LinearWeights(self.coef * factor, self.intercept + self.coef @ offset)

    def scores(self, inputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the scores, shape (n, n_outputs), of inputs of shape (n, n_inputs)."""
        found: npt.NDArray[np.float64] = inputs @ self.coef.T + self.intercept
        return found

    def check(self, schema: DatasetSchema) -> None:
        """Raise unless the shapes fit ``schema`` and every value is finite.

        Raises:
            CloisterError: naming the array and what is wrong with it.
        """
        for name, array, shape in (
            ("coef", self.coef, (schema.n_outputs, schema.n_inputs)),
            ("intercept", self.intercept, (schema.n_outputs,)),
        ):
            if array.shape != shape:
                raise CloisterError(f"{name} has shape {array.shape}, not {shape}")
            if not np.isfinite(array).all():
                raise CloisterError(f"{name} holds values that are not finite")

    def write(self, path: Path) -> None:
        """Write both arrays to the file at ``path``, whose name must end in ``.npz``.

        Raises:
            OSError: the volume is full or not writable.
        """
        np.savez(path, coef=self.coef, intercept=self.intercept)

    @classmethod
    def read(cls, path: Path) -> "LinearWeights":
        """Read both arrays from the .npz file at ``path``.

        Raises:
            CloisterError: the file is missing, is not .npz, or does not hold both as numbers;
                shapes and values are for ``check``.
        """
        arrays = read_numbers(path, ("coef", "intercept"))
        return cls(arrays["coef"].astype(np.float64), arrays["intercept"].astype(np.float64))
