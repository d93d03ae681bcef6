"""How much the service takes at a time, and for how long."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on the work of one process."""

    threads: int
    """Encrypted evaluations at a time."""
    max_batch: int
    """Ciphertexts in one request at most."""
    queue: int = 256
    """Ciphertexts that may wait or be evaluated at a time; at least ``max_batch``."""
    deadline_seconds: float = 30.0
    """From the head of a request to the end of its evaluation; then it is given up."""
    loaded_versions: int = 4
    """Versions that stay loaded besides the current ones."""
