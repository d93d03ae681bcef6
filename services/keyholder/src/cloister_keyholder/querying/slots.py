"""A bound on how much happens at a time, for threads and event loops alike."""

import threading
from collections import deque
from concurrent.futures import Future


class Slots:
    """A semaphore whose ``acquire`` is a future."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[Future[None]] = deque()
        self._lock = threading.Lock()

    def acquire(self) -> Future[None]:
        """Return a future that is done once a slot is taken; give it back to ``release``."""
        slot: Future[None] = Future()
        with self._lock:
            self._waiting.append(slot)
            self._grant()
        return slot

    def release(self, slot: Future[None]) -> None:
        """Give a slot back, or give up waiting for it."""
        if slot.cancel():
            return
        with self._lock:
            self._free += 1
            self._grant()

    def _grant(self) -> None:
        while self._free and self._waiting:
            slot = self._waiting.popleft()
            # Nobody may be waiting for it any more.
            if slot.set_running_or_notify_cancel():
                self._free -= 1
                slot.set_result(None)
