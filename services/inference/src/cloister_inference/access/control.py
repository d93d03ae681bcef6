"""Who may use the service."""

import ipaddress
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cloister_inference.access.credentials import ANONYMOUS, KeyRing, read_keys
from cloister_shared.errors import CloisterError

LOOK_SECONDS = 1.0
"""How long a change of the file of API keys may go unnoticed."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who sends a request."""

    owner: str
    """Name of the API key, or ``ANONYMOUS``."""
    rate: str | None
    """``N/second`` or ``N/minute``; None for no limit."""
    operator: bool = False
    """Whether it may put versions into use."""


class AccessControl:
    """Decides by API keys, which it reads anew when their file changes.

    Where there is no file at the start, everybody is served until there is one. From then on a
    valid key is needed, whatever becomes of the file: a damaged one leaves the keys as they were,
    and one that disappears lets nobody in until it is back. For use from one thread.
    """

    def __init__(
        self, path: Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the keys.

        Args:
            path: file of API keys, which may be missing; None serves everybody for ever.
            clock: seconds, never going back.

        Raises:
            CloisterError: the file is there and cannot be read.
        """
        self._path = path
        self._clock = clock
        self._ring: KeyRing | None = None
        self._seen: tuple[int, int, int] | None = None
        self._complaint = ""
        self._looked = clock()
        if path is None:
            return
        try:
            self._read(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise CloisterError(
                f"{path}, the file of API keys, cannot be read ({error.strerror}): give the user "
                "of this process access to it"
            ) from None

    @property
    def needs_keys(self) -> bool:
        """Whether a request needs an API key."""
        return self._ring is not None

    def identify(self, token: str | None) -> Caller | None:
        """Return who sends a request, or None for somebody who may not.

        Args:
            token: the API key that the request states, from anywhere.
        """
        self._look()
        if self._ring is None:
            # On loopback alone, which is the operator's own machine.
            return Caller(ANONYMOUS, None, operator=True)
        key = self._ring.find(token) if token else None
        return Caller(key.name, key.rate, key.operator) if key else None

    def _look(self) -> None:
        now = self._clock()
        if self._path is None or now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        try:
            self._read(self._path)
        except FileNotFoundError:
            if self._ring is not None:
                self._ring = KeyRing()
                self._complain(
                    f"{self._path} is gone: nobody is served until it is back, or until the "
                    "service is started anew without it"
                )
        except (OSError, CloisterError) as error:
            # Somebody wants keys to be needed, even where none could be read so far.
            if self._ring is None:
                self._ring = KeyRing()
            self._complain(f"API keys stay as they were: {error}")
        else:
            self._complaint = ""

    def _read(self, path: Path) -> None:
        status = path.stat()
        seen = (status.st_ino, status.st_mtime_ns, status.st_size)
        if seen == self._seen:
            return
        self._ring = KeyRing(read_keys(path))
        self._seen = seen
        log.info("API keys: %d", len(self._ring))

    def _complain(self, text: str) -> None:
        # What is wrong may pass while the file stays as it is: it is read again the next time.
        self._seen = None
        if text != self._complaint:
            log.error("%s", text)
            self._complaint = text


def check_exposure(published: str, access: AccessControl) -> None:
    """Warn where everybody is served, and raise where that would be everybody on a network.

    Args:
        published: host address at which clients reach the service.
        access: who may use it.

    Raises:
        CloisterError: no API key is needed, and the address is not loopback's.
    """
    if access.needs_keys:
        return
    if not is_loopback(published):
        raise CloisterError(
            f"the service would be published at {published} for everybody who can reach it. "
            "Either create an API key (python -m cloister_inference.api_keys create NAME, with "
            "CLOISTER_API_KEYS_PATH naming the file), or publish it on loopback alone "
            "(CLOISTER_PUBLISHED_HOST, or CLOISTER_API_HOST with Compose, 127.0.0.1)"
        )
    log.warning(
        "no API keys are configured: everybody who reaches the port is served. Publish it on "
        "loopback only, or create an API key"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``, an address or a name."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
