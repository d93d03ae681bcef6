"""Does something again and again in the background."""

import logging
import threading
from collections.abc import Callable
from typing import Self

log = logging.getLogger(__name__)


class Poller:
    """A thread that calls a function at once and then at intervals, until it is stopped."""

    def __init__(self, call: Callable[[], None], seconds: float) -> None:
        """Prepare the thread.

        Args:
            call: is called; what it raises is logged, and it is called again.
            seconds: from the end of one call to the beginning of the next.
        """
        self._call = call
        self._seconds = seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="poll", daemon=True)

    def start(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End, after the call that is running."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._call()
            except Exception:
                log.exception("trying again in %g s", self._seconds)
            if self._stopping.wait(self._seconds):
                return
