"""How often the SuperLink does what Flower does with every request."""

import math
import threading
import time
from collections.abc import Callable
from typing import Any

CLEANUP_SECONDS = 1.0
"""Flower looks for tasks without heartbeats, and writes to its database, whenever it is asked
anything about a run: for every piece of every message. A task's heartbeat is good for a minute, and
that it has ended may be noticed so much later."""

Method = Callable[[Any], None]


def at_most_every(
    seconds: float, method: Method, clock: Callable[[], float] = time.monotonic
) -> Method:
    """Return a method that does nothing until ``seconds`` have passed since it last did.

    For use from any thread: one of those that call at the same time does it, and the others go on.

    Args:
        seconds: from the beginning of one call of ``method`` to the next.
        method: without arguments or result. What it raises is raised, and counts as done.
        clock: in seconds.
    """
    lock, last = threading.Lock(), -math.inf

    def paced(owner: Any) -> None:
        nonlocal last
        with lock:
            now = clock()
            if now - last < seconds:
                return
            last = now
        method(owner)

    return paced
