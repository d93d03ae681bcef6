"""A bound on refused attempts, so that nobody fills the log."""

import time
from collections.abc import Callable

PER_MINUTE = 60
"""Refusals a minute, of all who ask, that are each told and logged."""


class Attempts:
    """Counts what was refused. Who has a good token is never counted, and never kept waiting."""

    def __init__(
        self, per_minute: int = PER_MINUTE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = per_minute
        self._clock = clock
        self._left = float(per_minute)
        self._counted = clock()

    def allow(self) -> bool:
        """Count one, and return whether it is within the bound."""
        now = self._clock()
        self._left = min(self._limit, self._left + (now - self._counted) * self._limit / 60)
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
