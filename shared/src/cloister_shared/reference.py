"""The compiled circuit in the clear: what encrypted execution must equal, bit by bit."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.npz import read_numbers

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Quantiser:
    """Uniform quantisation of the inputs, as Concrete ML's ``UniformQuantizer`` does it.

    ``q = clip(rint(x / scale + zero_point), low, high)``; all inputs share it.
    """

    scale: float
    """Difference between inputs whose quantised values differ by 1; above 0."""
    zero_point: int
    """Quantised value of 0."""
    low: int
    """Smallest quantised value."""
    high: int
    """Largest quantised value."""

    def quantise(self, unit: Floats) -> Integers:
        """Quantise finite values, shape kept; the result is C-contiguous int64."""
        quantised = np.rint(unit / self.scale + self.zero_point)
        return np.ascontiguousarray(np.clip(quantised, self.low, self.high), dtype=np.int64)


@dataclass(frozen=True)
class OutputScale:
    """Integer scores to scores: ``scale * (integer - zero_point)``, added up over trees."""

    scale: float
    zero_point: Integers
    """Shape (n_outputs,)."""
    n_trees: int = 1
    """Scores of each output that the circuit leaves to be added up."""
    base: Floats | None = None
    """What they are added to, shape (n_outputs,); None: nothing."""

    def dequantise(self, integer_scores: Integers) -> Floats:
        """Return scores, shape (n, n_outputs), of integers, shape (n, n_outputs * n_trees)."""
        shape = (len(integer_scores), len(self.zero_point), self.n_trees)
        each = self.scale * (integer_scores.reshape(shape) - self.zero_point[:, None])
        # As Concrete ML adds them up, so that the last bit is the same.
        scores: Floats = each.sum(axis=-1)
        return scores if self.base is None else scores + self.base


class ClearCircuit(Protocol):
    """A float model and the integer circuit made of it: both in the clear."""

    @property
    def features(self) -> Integers:
        """Ascending indices of the inputs that the circuit takes, shape (n_circuit_features,)."""

    def quantise(self, unit: Floats) -> Integers:
        """Return what is encrypted of rows in [0, 1], shape (n, n_inputs).

        Returns:
            Shape (n, n_circuit_features).
        """

    def float_scores(self, unit: Floats) -> Floats:
        """Scores of the float model for rows in [0, 1] of all inputs, shape (n, n_outputs)."""

    def integer_scores(self, quantised: Integers) -> Integers:
        """Exactly what the circuit gives for what ``quantise`` does, shape (n, n_integers)."""

    def dequantise(self, integer_scores: Integers) -> Floats:
        """Integer scores, shape (n, n_integers), to scores, shape (n, n_outputs)."""


@dataclass(frozen=True)
class Reference:
    """Float weights and the integer circuit made of them: ``scores = q @ weights + bias``.

    The circuit takes those of the model's features that its integer weights use. The model's
    scores are ``output_scale * (integer_scores - output_zero_point)``.
    """

    coef: Floats
    """Of all features of the model, shape (n_outputs, n_features)."""
    intercept: Floats
    """Shape (n_outputs,)."""
    features: Integers
    """Ascending indices of the features that the circuit takes, shape (n_circuit_features,)."""
    weights: Integers
    """Integer weights, shape (n_circuit_features, n_outputs)."""
    bias: Integers
    """Integer bias, shape (n_outputs,)."""
    input_scale: Floats
    input_zero_point: Integers
    input_low: Integers
    input_high: Integers
    output_scale: Floats
    output_zero_point: Integers
    """Shape (n_outputs,)."""

    @property
    def quantiser(self) -> Quantiser:
        """The quantiser of the inputs."""
        return Quantiser(
            float(self.input_scale),
            int(self.input_zero_point),
            int(self.input_low),
            int(self.input_high),
        )

    def quantise(self, unit: Floats) -> Integers:
        """Quantise rows in [0, 1] of all features to the circuit's inputs.

        Args:
            unit: shape (n, n_features).

        Returns:
            Shape (n, n_circuit_features).
        """
        return self.quantiser.quantise(unit[:, self.features])

    def float_scores(self, unit: Floats) -> Floats:
        """Scores of the float model for rows in [0, 1] of all features, shape (n, n_outputs)."""
        scores: Floats = unit @ self.coef.T + self.intercept
        return scores

    def integer_scores(self, quantised: Integers) -> Integers:
        """Exact integer scores of the circuit's quantised inputs, shape (n, n_outputs)."""
        scores: Integers = quantised @ self.weights + self.bias
        return scores

    def dequantise(self, integer_scores: Integers) -> Floats:
        """Integer scores to scores, shape kept."""
        scores: Floats = self.output_scale * (integer_scores - self.output_zero_point)
        return scores

    def integer_bounds(self) -> tuple[Integers, Integers]:
        """Smallest and largest integer score each output can reach, each of shape (n_outputs,)."""
        at_low, at_high = self.weights * int(self.input_low), self.weights * int(self.input_high)
        return (
            np.minimum(at_low, at_high).sum(axis=0) + self.bias,
            np.maximum(at_low, at_high).sum(axis=0) + self.bias,
        )

    def write(self, path: Path) -> None:
        """Write every array to the file at ``path``, whose name must end in ``.npz``.

        Raises:
            OSError: the volume is full or not writable.
        """
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def read(cls, path: Path) -> "Reference":
        """Read a reference from the .npz file at ``path``.

        Raises:
            CloisterError: the file is missing, is not .npz, lacks an array, or the arrays do not
                make a reference (see ``check``).
        """
        reference = cls(**read_numbers(path, (field.name for field in fields(cls))))
        reference.check()
        return reference

    def check(self) -> None:
        """Raise unless shapes agree with each other, types are right and values make sense.

        Raises:
            CloisterError: naming the array that does not fit.
        """
        n_outputs, n_features = self.coef.shape if self.coef.ndim == 2 else (0, 0)
        n_circuit_features = self.features.size
        for name, dtype, shape in (
            ("coef", np.float64, (n_outputs, n_features)),
            ("intercept", np.float64, (n_outputs,)),
            ("features", np.int64, (n_circuit_features,)),
            ("weights", np.int64, (n_circuit_features, n_outputs)),
            ("bias", np.int64, (n_outputs,)),
            ("output_zero_point", np.int64, (n_outputs,)),
            ("input_scale", np.float64, ()),
            ("input_zero_point", np.int64, ()),
            ("input_low", np.int64, ()),
            ("input_high", np.int64, ()),
            ("output_scale", np.float64, ()),
        ):
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise CloisterError(
                    f"reference: {name} is {array.dtype} of shape {array.shape}, not "
                    f"{np.dtype(dtype)} of shape {shape}"
                )
            if not np.isfinite(array).all():
                raise CloisterError(f"reference: {name} holds values that are not finite")
        if not self.coef.size:
            raise CloisterError("reference: coef is empty")
        if not n_circuit_features or self.features[0] < 0 or self.features[-1] >= n_features:
            raise CloisterError(f"reference: features must be some of 0 to {n_features - 1}")
        if (np.diff(self.features) <= 0).any():
            raise CloisterError("reference: features must be ascending")
        if self.input_scale <= 0:
            raise CloisterError("reference: input_scale must be above 0")
        if self.output_scale == 0:
            raise CloisterError("reference: output_scale must not be 0")
        if self.input_low >= self.input_high:
            raise CloisterError("reference: input_low must be below input_high")


def needed_features(reference: Reference) -> Integers:
    """Return the features that a quantised model on all features cannot do without.

    They are those with an integer weight other than 0, and those with the smallest and the largest
    float weight, which set the scale of all weights. There is at least one.
    """
    needed = reference.weights.any(axis=1)
    for extreme in (reference.coef.min(), reference.coef.max()):
        holders = (reference.coef == extreme).any(axis=0)
        if not (holders & needed).any():
            needed[holders.argmax()] = True
    return np.flatnonzero(needed).astype(np.int64)
