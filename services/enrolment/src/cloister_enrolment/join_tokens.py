"""The join tokens, followed while their file changes."""

import logging
from pathlib import Path

from cloister_shared.errors import CloisterError
from cloister_shared.joining import JoinToken, read_join_tokens, token_digest

log = logging.getLogger(__name__)


class JoinTokens:
    """Knows which token is which. For use from one thread."""

    def __init__(self, path: Path) -> None:
        """Read the file, which may be missing still.

        Raises:
            CloisterError: it is damaged.
            OSError: it cannot be read.
        """
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, JoinToken] = {}
        self._complaint = ""
        self._look()

    def find(self, token: str) -> JoinToken | None:
        """Return what is kept of a token, None if it is none.

        A file that has become unreadable leaves the tokens as they were.

        Args:
            token: from anywhere.
        """
        try:
            self._look()
        except (CloisterError, OSError) as error:
            # It may pass while the file stays as it is: it is read again the next time.
            self._seen = None
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.error("join tokens stay as they were: %s", error)
        else:
            self._complaint = ""
        # Found by its digest: how long that takes tells nothing of any token.
        return self._tokens.get(token_digest(token))

    def _look(self) -> None:
        try:
            status = self._path.stat()
        except FileNotFoundError:
            seen = None
        else:
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
        tokens = read_join_tokens(self._path)
        self._tokens = {token.digest: token for token in tokens}
        self._seen = seen
