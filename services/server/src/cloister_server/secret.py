"""The secret between SuperLink and SuperExec."""

import secrets
from pathlib import Path

from cloister_shared.files import write_atomically

SECRET_BYTES = 32


def ensure_secret(path: Path) -> None:
    """Make the secret where it is missing, readable by its owner alone; keep one that is there.

    It appears whole or not at all, so that a trainer never reads half of it.

    Raises:
        OSError: the volume is full or not writable.
    """
    if path.is_file():
        return
    write_atomically(path, secrets.token_hex(SECRET_BYTES).encode(), mode=0o600)
