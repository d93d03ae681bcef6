"""Keys, seeded encryption and decryption of binary LWE, as Concrete 2.10 has them.

A layer on the C core, which does what is secret. The core is optional: where it was not built there
are no kernels, and a scheme cannot be used.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from cloister_lwe import _lwe
    from cloister_lwe._lwe import Key
else:
    try:
        _lwe = import_module("cloister_lwe._lwe")
    except ImportError:
        _lwe = None
    else:
        Key = _lwe.Key

__all__ = ["SEEDED_BYTES", "SEED_BYTES", "WORD_BYTES", "Key", "Scheme", "kernels"]

Integers = npt.NDArray[np.int64]

SEED_BYTES = 16
SEEDED_BYTES = 24
"""A seeded ciphertext: its seed, and a body of one 64-bit word."""
WORD_BYTES = 8


def kernels() -> tuple[str, ...]:
    """Names of the kernels that this processor runs, fastest first; empty without the core."""
    return _lwe.kernels() if _lwe is not None else ()


@dataclass(frozen=True)
class Scheme:
    """The parameters of one circuit's encryption, and what is done under them.

    May be used from any number of threads: encryption releases the interpreter's lock.

    Raises:
        ValueError: parameters below 128 bits of security, or out of range.
        RuntimeError: the core was not built.
    """

    dimension: int
    """Length of secret keys in bits, n: 450 to 16,384."""
    std: float
    """Of the noise, relative to 2^64."""
    input_width: int
    """Bits of the integers that are encrypted, 1 to 61: a unit is 2^(63 - width)."""
    output_width: int
    """Bits of the integers that are decrypted."""
    output_is_signed: bool
    """Whether these may be negative."""
    kernel: str = ""
    """One of ``kernels()``, the fastest by default."""

    def __post_init__(self) -> None:
        if _lwe is None:
            raise RuntimeError("the native core was not built on this machine")
        if not self.kernel:
            object.__setattr__(self, "kernel", _lwe.kernels()[0])
        if not _lwe.is_safe(self.dimension, self.std):
            raise ValueError(
                f"noise of {self.std:.4g} is below 128 bits of security at dimension "
                f"{self.dimension}, or one of them is out of range"
            )

    def new_key(self) -> "Key":
        """Return a new secret key, from the operating system's randomness.

        Raises:
            OSError: the operating system gives none.
        """
        return Key(self.dimension)

    def encrypt(self, key: "Key", messages: Integers) -> bytes:
        """Encrypt integers under new seeds.

        Args:
            key: of this dimension.
            messages: in the range of the encoding, which the caller has checked; shape (n,).

        Returns:
            n seeded ciphertexts of ``SEEDED_BYTES``.

        Raises:
            OSError: the operating system gives no randomness.
            ValueError: the key is wiped.
        """
        self._check(key)
        words = np.ascontiguousarray(messages, dtype="<i8")
        return _lwe.encrypt(self.kernel, key, self.input_width, self.std, words)

    def encrypt_compact(self, key: "Key", messages: Integers, body_bits: int) -> bytes:
        """Encrypt integers under seeds that one master seed gives; see ``encrypt``.

        Args:
            key: of this dimension.
            messages: as ``encrypt`` has them.
            body_bits: to which bodies are rounded, 8 to 56.

        Returns:
            The master seed, ``SEED_BYTES``, then the bodies without gaps, lowest bits first. The
            seed of message i is the encryption of i, a little-endian block, by AES-128 under the
            master seed.
        """
        self._check(key)
        words = np.ascontiguousarray(messages, dtype="<i8")
        return _lwe.encrypt_compact(self.kernel, key, self.input_width, self.std, words, body_bits)

    def decrypt(self, key: "Key", ciphertexts: bytes | memoryview, count: int) -> Integers:
        """Decrypt ciphertexts of ``dimension`` mask words and a body, all little-endian.

        Returns:
            The integers nearest to their phases, shape (count,): in [0, 2^(width + 1)), or, where
            they are signed, in [-2^width, 2^(width - 1)).

        Raises:
            ValueError: these are not so many ciphertexts, or the key is wiped.
        """
        self._check(key)
        scores = _lwe.decrypt(key, self.output_width, self.output_is_signed, ciphertexts, count)
        return np.frombuffer(scores, dtype="<i8").astype(np.int64)

    def decrypt_compact(
        self, key: "Key", packed: bytes | memoryview, count: int, word_bits: int
    ) -> Integers:
        """Decrypt ciphertexts whose words were rounded to their upper bits, 8 to 56 of them.

        Args:
            key: of this dimension.
            packed: all words of all ciphertexts without gaps, lowest bits first.
            count: of ciphertexts.
            word_bits: of a word.

        Returns:
            As ``decrypt``.

        Raises:
            ValueError: as ``decrypt``.
        """
        self._check(key)
        scores = _lwe.decrypt_compact(
            key, self.output_width, self.output_is_signed, packed, count, word_bits
        )
        return np.frombuffer(scores, dtype="<i8").astype(np.int64)

    def _check(self, key: "Key") -> None:
        if key.dimension != self.dimension:
            raise ValueError(
                f"the key has a dimension of {key.dimension}; these parameters take "
                f"{self.dimension}"
            )
