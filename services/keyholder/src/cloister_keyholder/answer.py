"""What one query gave, and what it took."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Answer:
    """The decrypted answer to one query, and what it took."""

    integer_scores: npt.NDArray[np.int64]
    """Shape (n_outputs,)."""
    encrypt_ms: float
    """Key generation, where the key is fresh, and encryption, in milliseconds."""
    request_ms: float
    """From sending the ciphertext to holding the whole result, repetitions included."""
    server_ms: float | None
    """The part of it that the service says it evaluated."""
    decrypt_ms: float
    bytes_up: int
    """Length of the ciphertext."""
    bytes_down: int
    """Length of the result."""
