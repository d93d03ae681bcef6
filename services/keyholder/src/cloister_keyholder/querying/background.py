"""Flows in threads, a bounded number at a time, for callers without an event loop."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, Generic, TypeVar

from cloister_keyholder.querying.flow import Flow, Send, Sleep, Step, Wait, run
from cloister_keyholder.service.transport import Transport

T = TypeVar("T")

CANCEL_SECONDS = 5.0
"""What a thread gets to end; one that waits for a service that says nothing is left to its time
limit."""


class Background(Generic[T]):
    """A flow in a thread of its own, which can be given up."""

    def __init__(self, flow: Flow[T], transport: Transport) -> None:
        self._flow = flow
        self._transport = transport
        self._result: Future[T] = Future()
        self._cancelled = threading.Event()
        self._futures: Sequence[Future[Any]] = ()
        # A daemon: after Ctrl-C, an answer that does not come must not keep the program.
        self._thread = threading.Thread(target=self._work, name="query", daemon=True)
        self._thread.start()

    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self._result.done()

    def result(self) -> T:
        """Wait for the result; raises what the flow raises."""
        return self._result.result()

    def cancel(self) -> None:
        """Give the flow up where it waits or sleeps; a request that is sent is not followed up."""
        self._cancelled.set()
        for future in self._futures:
            future.cancel()

    def join(self) -> None:
        """Wait for the thread's end, for ``CANCEL_SECONDS`` at most."""
        self._thread.join(CANCEL_SECONDS)

    def _work(self) -> None:
        try:
            result = run(self._flow, self._do)
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._result.set_exception(error)
        else:
            self._result.set_result(result)

    def _do(self, step: Step) -> object:
        match step:
            case Wait(futures):
                self._futures = futures
                self._check()
                return [future.result() for future in futures]
            case Sleep(seconds):
                self._cancelled.wait(seconds)
                self._check()
                return None
            case Send():
                self._check()
                return self._transport.attempt(step)

    def _check(self) -> None:
        if self._cancelled.is_set():
            raise CancelledError


def stream(flows: Iterable[Flow[list[T]]], transport: Transport, window: int) -> Iterator[T]:
    """Run flows side by side and give what they return, in their order.

    Args:
        flows: taken one by one, as there is room.
        transport: for their requests.
        window: flows under way at a time, with those whose results were not yet taken.

    Raises:
        Whatever a flow raises; the others are given up.
    """
    running: deque[Background[list[T]]] = deque()
    try:
        for flow in flows:
            running.append(Background(flow, transport))
            while running and (len(running) >= window or running[0].done()):
                yield from running[0].result()
                running.popleft()
        while running:
            yield from running[0].result()
            running.popleft()
    finally:
        for left in running:
            left.cancel()
        for left in running:
            left.join()
