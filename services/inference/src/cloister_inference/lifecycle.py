"""Starting and stopping: whether the service winds down, and the server that does it in steps."""

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn

log = logging.getLogger(__name__)


INTERRUPTS = {signal.SIGINT}


def hold_interrupts() -> None:
    """Keep SIGINT for ``DrainingServer``; call it in the main thread, before any other starts.

    While Concrete compiles or evaluates, and after that where two of its calls overlapped, a
    handler of its own takes the place of Python's, and kills the process (concrete-python 2.10.0).
    A signal that every thread blocks comes to no handler, and can be waited for.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)


class Lifecycle:
    """Tells whether the process has been told to stop."""

    def __init__(self) -> None:
        self.stopping = False
        """Whether load balancers and clients should go elsewhere."""


class DrainingServer(uvicorn.Server):
    """A server that first sends clients elsewhere, then stops accepting, then ends.

    On the first SIGTERM or SIGINT everything is served for a while longer, so that whoever asks
    whether the service is ready hears that it stops before any connection is refused. Then uvicorn
    shuts down gracefully. A second signal ends it without waiting for anything.
    """

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle, drain_seconds: float) -> None:
        """Serve an application.

        Args:
            config: uvicorn's.
            lifecycle: is told when the process is to stop.
            drain_seconds: for how long everything is still served then.
        """
        super().__init__(config)
        self._lifecycle = lifecycle
        self._drain_seconds = drain_seconds
        self._stop_at = math.inf
        self._announced = False
        self.exit_code = 0
        """Other than 0 once a second signal has ended it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the context lasts, those too that ``hold_interrupts`` holds."""
        with super().capture_signals():
            threading.Thread(target=self._await_interrupts, name="interrupts", daemon=True).start()
            yield

    def _await_interrupts(self) -> None:
        while True:
            self.handle_exit(signal.sigwait(INTERRUPTS), None)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Begin to stop; or end at once, where that has begun.

        Uvicorn's own method has the signal raised again after the shutdown; a service that was
        stopped as it should be exits with 0.
        """
        if self._lifecycle.stopping:
            self.exit_code = 128 + sig
            self.force_exit = self.should_exit = True
            return
        self._lifecycle.stopping = True
        self._stop_at = time.monotonic() + self._drain_seconds
        if not self.started or not self._drain_seconds:
            self.should_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Do what is due ten times a second, and return whether to stop accepting."""
        # Here and not where the signal is handled, which may be in the middle of another line.
        if self._lifecycle.stopping and not self._announced:
            self._announced = True
            log.info("stopping: not ready any more, serving for %g s yet", self._drain_seconds)
        if time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)
