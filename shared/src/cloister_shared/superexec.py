"""The secret between SuperLink and SuperExec: made once and kept."""

import logging
import secrets
from pathlib import Path

from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically

SECRET_BYTES = 32

log = logging.getLogger(__name__)


def ensure_secret(path: Path) -> None:
    """Make the secret where it is missing, readable by its owner alone; keep one that is there.

    It appears whole or not at all, so that a trainer never reads half of it.

    Raises:
        CloisterError: the file is empty.
        OSError: the volume cannot be read or written.
    """
    if not path.exists():
        write_atomically(path, secrets.token_hex(SECRET_BYTES).encode(), mode=0o600)
        log.info("made %s", path)
    elif not path.read_bytes():
        raise CloisterError(
            f"{path} is empty: remove it, start again, and restart server and trainer"
        )
