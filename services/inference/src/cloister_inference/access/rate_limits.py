"""How much one API key may ask for."""

import math
import time
from functools import lru_cache
from typing import Literal

from limits import RateLimitItem, parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from cloister_inference.access.control import Caller
from cloister_inference.problems import (
    BatchAboveRateError,
    RateLimitedError,
    RequestRateLimitedError,
)

Unit = Literal["ciphertexts", "requests"]
"""What is counted: ciphertexts of inference requests, and all other requests."""


class RateLimits:
    """Counts what each API key asks for within the last second or minute, each unit by itself.

    In the memory of this process: several replicas of the service count each by itself.
    """

    def __init__(self) -> None:
        self._storage = MemoryStorage()
        self._limiter = MovingWindowRateLimiter(self._storage)

    def take(self, caller: Caller, count: int, unit: Unit) -> None:
        """Count what a caller asks for; where it is too much, nothing is counted.

        Args:
            caller: who asks.
            count: of ciphertexts or requests, at least 1.
            unit: which of them.

        Raises:
            RateLimitedError: it is too much for now; says when it will not be.
            BatchAboveRateError: it is too much at any time.
        """
        if caller.rate is None:
            return
        item = _item(caller.rate)
        if count > item.amount:
            raise BatchAboveRateError(
                f"{count} {unit} at once are more than the {item.amount} a {item.GRANULARITY.name} "
                "that this API key allows: send smaller batches"
            )
        if not self._limiter.hit(item, caller.owner, unit, cost=count):
            limited = RequestRateLimitedError if unit == "requests" else RateLimitedError
            raise limited(
                f"this API key allows {item.amount} {unit} a {item.GRANULARITY.name}: try again "
                "when Retry-After says",
                self._seconds_until(item, caller.owner, unit, count),
            )

    def _seconds_until(self, item: RateLimitItem, owner: str, unit: Unit, count: int) -> int:
        # Newest first, one for each that was counted. There is room once the one that would be
        # the limit's last leaves the window.
        taken = self._storage.events.get(item.key_for(owner, unit), [])
        position = item.amount - count
        if position >= len(taken):
            return 1
        left = taken[position].atime + item.get_expiry() - time.time()
        # At the very end of the window it still counts.
        return max(0, math.floor(left)) + 1


@lru_cache(maxsize=1024)
def _item(rate: str) -> RateLimitItem:
    return parse(rate)
