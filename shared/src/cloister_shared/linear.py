"""The integers of a linear circuit, from which it can be evaluated without Concrete."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.npz import read_numbers

Integers = npt.NDArray[np.int64]

CIPHERTEXT_BITS = 64
SEEDED_LWE_BYTES = 24
"""A seeded LWE ciphertext: 16 bytes of seed, then the body as a little-endian uint64."""
WEIGHT_LIMIT = 1 << 30
"""Every integer weight is below this in magnitude; 8-bit weights stay below 2^9."""
NAMES = ("weights", "bias", "lwe_dimension", "width")


@dataclass(frozen=True)
class LinearCircuit:
    """A circuit that computes ``q @ weights + bias`` on seeded LWE ciphertexts."""

    weights: Integers
    """Integer weights, shape (n_features, n_outputs)."""
    bias: Integers
    """Integer bias, shape (n_outputs,)."""
    lwe_dimension: int
    """Words of a ciphertext's mask."""
    width: int
    """Bits of the integer scores, the sign included where there is one."""

    @property
    def encoded_bias(self) -> npt.NDArray[np.uint64]:
        """The bias as it is added to the bodies, modulo 2^64, shape (n_outputs,).

        A message of ``width`` bits takes the highest bits of a word but one, which is left for the
        carry (concrete-python 2.10.0, integer encoding with one padding bit).
        """
        delta = np.uint64(1) << np.uint64(CIPHERTEXT_BITS - self.width - 1)
        return self.bias.astype(np.uint64) * delta

    def write(self, path: Path) -> None:
        """Write every part to the file at ``path``, whose name must end in ``.npz``.

        Raises:
            OSError: the volume is full or not writable.
        """
        np.savez(path, **{name: np.asarray(getattr(self, name)) for name in NAMES})

    @classmethod
    def read(cls, path: Path) -> "LinearCircuit":
        """Read a circuit from the .npz file at ``path``.

        Raises:
            CloisterError: the file is missing, is not .npz, lacks an array, or the arrays do not
                make a linear circuit.
        """
        arrays = read_numbers(path, NAMES)
        for name, array in arrays.items():
            if array.dtype != np.int64:
                raise CloisterError(f"{path}: {name} is {array.dtype}, not int64")
        weights, bias = arrays["weights"], arrays["bias"]
        if weights.ndim != 2 or not weights.size or bias.shape != weights.shape[1:]:
            raise CloisterError(
                f"{path}: weights of shape {weights.shape} and bias of shape {bias.shape} make no "
                "linear circuit"
            )
        # Not by np.abs, which leaves the smallest integer negative.
        if weights.min() <= -WEIGHT_LIMIT or weights.max() >= WEIGHT_LIMIT:
            raise CloisterError(f"{path}: a weight is not below {WEIGHT_LIMIT} in magnitude")
        scalars = {name: arrays[name] for name in ("lwe_dimension", "width")}
        for name, scalar in scalars.items():
            if scalar.shape != () or scalar < 1:
                raise CloisterError(f"{path}: {name} is not a positive number")
        width = int(scalars["width"])
        if width >= CIPHERTEXT_BITS:
            raise CloisterError(f"{path}: {width} bits do not fit a word of {CIPHERTEXT_BITS}")
        return cls(np.ascontiguousarray(weights), bias, int(scalars["lwe_dimension"]), width)
