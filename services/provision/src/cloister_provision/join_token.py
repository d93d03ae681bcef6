"""The join token that sites of this machine enrol with: made once and kept."""

import logging
import re
from datetime import datetime
from pathlib import Path

from cloister_shared.errors import CloisterError
from cloister_shared.files import write_atomically
from cloister_shared.joining import (
    FIRST_TOKEN,
    JoinToken,
    add_join_token,
    make_token,
    read_join_tokens,
    token_digest,
)

_TOKEN = re.compile(r"cloister_join_[0-9a-f]{64}")

log = logging.getLogger(__name__)


def ensure_join_token(path: Path, tokens: Path, now: datetime) -> None:
    """Make the first join token where it is missing, and see that enrolment knows its digest.

    A token that was withdrawn stays so. Removing its file makes another in its place.

    Args:
        path: file of the token.
        tokens: file of enrolment's digests.
        now: the time in UTC, with its zone.

    Raises:
        CloisterError: one of the files is damaged.
        OSError: a volume cannot be read or written.
    """
    if path.exists():
        token = path.read_bytes().decode(errors="replace").strip()
        if not _TOKEN.fullmatch(token):
            raise CloisterError(f"{path} is no join token: remove it, and another is made")
    else:
        token = make_token()
        write_atomically(path, f"{token}\n".encode(), 0o600)
        log.info("made %s", path)
    digest = token_digest(token)
    if all(known.digest != digest for known in read_join_tokens(tokens)):
        add_join_token(tokens, JoinToken(name=FIRST_TOKEN, digest=digest, created=now))
        log.info("join token %s is known to enrolment", FIRST_TOKEN)
