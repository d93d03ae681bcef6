"""Evaluation of linear circuits by the package's own kernels.

The extension is optional: where it was not built there are no kernels, and Concrete's run serves.
"""

from importlib import import_module
from types import ModuleType

import numpy as np

from cloister_shared.errors import CloisterError
from cloister_shared.linear import SEEDED_LWE_BYTES, LinearCircuit

try:
    _linear: ModuleType | None = import_module("cloister_inference.evaluation._linear")
except ImportError:
    _linear = None


def kernels() -> tuple[str, ...]:
    """Names of the kernels that this processor runs, fastest first; empty without the extension."""
    if _linear is None:
        return ()
    names: tuple[str, ...] = _linear.kernels()
    return names


def expand(compact: bytes, n_features: int, body_bits: int) -> bytes:
    """Return the seeded ciphertexts that a compact input stands for.

    Raises:
        CloisterError: the extension is not installed.
        ValueError: the input has another length.
    """
    seeded: bytes = _installed().expand(compact, n_features, body_bits)
    return seeded


def pack(ciphertexts: bytes, n_outputs: int, lwe_dimension: int, word_bits: int) -> bytes:
    """Round and pack the ciphertexts of a result; raises as ``expand``."""
    packed: bytes = _installed().pack(ciphertexts, n_outputs, lwe_dimension, word_bits)
    return packed


def _installed() -> ModuleType:
    if _linear is None:
        raise CloisterError("the native evaluator is not installed")
    return _linear


class NativeCircuit:
    """A linear circuit that may be called from any number of threads."""

    name = "native"

    def __init__(
        self,
        linear: LinearCircuit,
        data_offset: int,
        kernel: str,
        envelope: tuple[bytes, bytes] = (b"", b""),
    ) -> None:
        """Take a circuit.

        Args:
            linear: its integers and parameters.
            data_offset: where, in a serialised input, the seeded ciphertexts begin.
            kernel: one of ``kernels()``.
            envelope: what comes before and after the ciphertexts in a serialised output.

        Raises:
            CloisterError: the extension is not installed.
        """
        self.kernel = kernel
        self._evaluate = _installed().evaluate
        self._dimension = linear.lwe_dimension
        self._weights = np.ascontiguousarray(linear.weights)
        self._bias = linear.encoded_bias
        self._start = data_offset
        self._end = data_offset + len(linear.weights) * SEEDED_LWE_BYTES
        self._envelope = envelope

    def evaluate(self, payload: bytes) -> bytes:
        """Evaluate one serialised input and return the serialised output.

        Args:
            payload: of the circuit's form.

        Raises:
            ValueError: the payload is too short.
        """
        return self.evaluate_seeded(self.seeded(payload))

    def seeded(self, payload: bytes) -> memoryview:
        """Return the seeded ciphertexts in a serialised input."""
        return memoryview(payload)[self._start : self._end]

    def evaluate_seeded(self, seeded: bytes | memoryview, *, bare: bool = False) -> bytes:
        """Evaluate seeded ciphertexts of all features.

        Args:
            seeded: as they lie in a serialised input.
            bare: whether to return the result's ciphertexts alone, without what is around them.

        Raises:
            ValueError: these are not so many ciphertexts.
        """
        result: bytes = self._evaluate(
            self.kernel,
            self._dimension,
            seeded,
            self._weights,
            self._bias,
            *((b"", b"") if bare else self._envelope),
        )
        return result
