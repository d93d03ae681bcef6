"""Waiting for sites, never without an end."""

import logging
import time
from collections.abc import Callable, Iterable

from cloister_shared.errors import CloisterError

POLL_SECONDS = 1.0
REPORT_SECONDS = 15.0

log = logging.getLogger(__name__)


def wait_for_sites(
    online: Callable[[], Iterable[int]],
    *,
    expected: int,
    minimum: int,
    deadline: float,
    settle: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[int]:
    """Return the sites to begin with.

    Returns once the expected ones are online and no further one has come for ``settle`` seconds.
    At the deadline it goes on with ``minimum`` or more, and says how many are absent.

    Args:
        online: gives the node ids of the sites that are online.
        expected: sites that should be there.
        minimum: sites without which there is no point in beginning.
        deadline: seconds to wait for ``expected``.
        settle: seconds without a newcomer; so more sites than expected all take part.
        clock: seconds, monotonic.
        sleep: waits for some seconds.

    Raises:
        CloisterError: fewer than ``minimum`` came by the deadline.
    """
    start = reported = changed = clock()
    present: set[int] = set()
    while True:
        now, seen = clock(), set(online())
        if seen != present:
            log.info("%d of %d sites are online", len(seen), expected)
            present, changed = seen, now
        if len(present) >= expected and now - changed >= settle:
            return sorted(present)
        if now - start >= deadline:
            break
        if now - reported >= REPORT_SECONDS:
            log.info(
                "waiting for sites: %d of %d, %.0f s left",
                len(present),
                expected,
                deadline - (now - start),
            )
            reported = now
        sleep(POLL_SECONDS)
    if len(present) < minimum:
        raise CloisterError(
            f"only {len(present)} of {expected} sites came within {deadline:.0f} s, and "
            f"{minimum} are needed: start more clients, wait longer "
            "(CLOISTER_START_DEADLINE), or ask for fewer (CLOISTER_CLIENTS, CLOISTER_MIN_REPLIES)"
        )
    if len(present) < expected:
        log.warning(
            "%d of %d sites are absent; going on with %d",
            expected - len(present),
            expected,
            len(present),
        )
    return sorted(present)
