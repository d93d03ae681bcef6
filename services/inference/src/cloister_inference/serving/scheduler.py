"""The threads that evaluate ciphertexts, and the bounded queue in front of them."""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Self, TypeVar

from cloister_inference.observability.metrics import Metrics
from cloister_inference.problems import ClientGoneError, DeadlineError, QueueFullError

RECENT_EVALUATIONS = 20
"""Over about so many the time of an evaluation is averaged, for the estimate of a wait."""

Result = TypeVar("Result")


class _Batch(Generic[Result]):
    """The elements of one request, which end in any order."""

    def __init__(
        self, calls: Sequence[Callable[[], Result]], future: asyncio.Future[list[Result]]
    ) -> None:
        self.calls = calls
        self.future = future
        self.accepted = time.perf_counter()
        self.begun = 0
        """Elements that were begun, or dropped."""
        self._results: dict[int, Result] = {}

    @property
    def left(self) -> int:
        """Elements that have not begun."""
        return len(self.calls) - self.begun

    def add(self, index: int, result: Result) -> bool:
        """Keep the result of an element, and return whether it was the last to come."""
        self._results[index] = result
        return len(self._results) == len(self.calls)

    def resolve(self) -> None:
        """Hand all results on, unless nobody waits any more."""
        if not self.future.done():
            self.future.set_result([self._results[index] for index in range(len(self.calls))])

    def fail(self, error: Exception) -> None:
        """Hand an element's failure on, unless nobody waits any more."""
        if not self.future.done():
            self.future.set_exception(error)


class Scheduler:
    """Evaluates the elements of requests side by side, and refuses what it has no room for.

    Requests take turns, an element each, so that a single ciphertext waits for one element of every
    request before it and not for all of theirs. Its methods are for the event loop's thread, and
    what they are given to call runs in others.
    """

    def __init__(self, threads: int, limit: int, metrics: Metrics) -> None:
        """Start with an empty queue.

        Args:
            threads: evaluations at a time.
            limit: elements that may wait or run at a time.
            metrics: counts and times them.
        """
        self._threads = threads
        self._limit = limit
        self._queue_seconds = metrics.queue_seconds
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="evaluate")
        self._lock = threading.Lock()
        """Guards what follows."""
        self._turns: deque[_Batch[Any]] = deque()
        """Requests with elements that have not begun, the next one first."""
        self._elements = 0
        """Waiting and running."""
        self._working = 0
        """Threads that look for elements."""
        self._recent_seconds = 0.0
        """Moving average of the time of an evaluation."""
        metrics.queue_elements.set_function(lambda: self._elements)
        metrics.queue_limit.set(limit)

    def check_room(self, elements: int) -> None:
        """Raise unless so many elements could be queued now.

        Raises:
            QueueFullError: they could not; it says when to come again.
        """
        if self._elements + elements > self._limit:
            raise QueueFullError(
                f"the service is busy: of {self._limit} ciphertexts that may wait at a time "
                f"{self._elements} do, and {elements} more do not fit; send the request again "
                "after the seconds that Retry-After gives",
                self._retry_seconds(),
            )

    async def run(
        self,
        calls: Sequence[Callable[[], Result]],
        *,
        deadline: float = math.inf,
        gone: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> list[Result]:
        """Call each of ``calls`` in one of the threads, and return their results in order.

        When it raises, or is cancelled, those that have not begun are dropped.

        Args:
            calls: evaluate one element each; at least one.
            deadline: when to give up, by ``time.monotonic()``.
            gone: returns when nobody waits for the results any more.

        Raises:
            QueueFullError: they do not fit into the queue, and none was begun.
            DeadlineError: the deadline has passed.
            ClientGoneError: ``gone`` has returned.
            Exception: what a call raised.
        """
        patience = deadline - time.monotonic()
        if patience <= 0:
            raise DeadlineError(self._retry_seconds())
        batch = self._submit(calls)
        results = batch.future
        watched = [asyncio.ensure_future(gone())] if gone else []
        ends: list[asyncio.Future[Any]] = [results, *watched]
        try:
            await asyncio.wait(
                ends,
                timeout=None if patience == math.inf else patience,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if results.done():
                return results.result()
            if watched and watched[0].done():
                raise ClientGoneError
            raise DeadlineError(self._retry_seconds())
        finally:
            self._drop(batch)
            for task in watched:
                task.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Drop the elements that have not begun, and wait for the others unless in a hurry."""
        with self._lock:
            for batch in self._turns:
                self._drop_locked(batch)
            self._turns.clear()
        self._pool.shutdown(wait=kind is None)

    def _submit(self, calls: Sequence[Callable[[], Result]]) -> _Batch[Result]:
        loop = asyncio.get_running_loop()
        batch = _Batch(calls, loop.create_future())
        with self._lock:
            self.check_room(len(calls))
            self._elements += len(calls)
            self._turns.append(batch)
            # A thread looks for elements until there is none: those that are at it need no call.
            starting = min(len(calls), self._threads - self._working)
            self._working += starting
        for _ in range(starting):
            self._pool.submit(self._work, loop)
        return batch

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        while (taken := self._take()) is not None:
            batch, index = taken
            start = time.perf_counter()
            self._queue_seconds.observe(start - batch.accepted)
            finish: Callable[[], None] | None = None
            try:
                if batch.add(index, batch.calls[index]()):
                    finish = batch.resolve
            except Exception as error:  # noqa: BLE001 - raised again for whoever waits for it
                finish = partial(batch.fail, error)
            self._ended(time.perf_counter() - start)
            if finish:
                # The loop is closed when the process ends without waiting for its requests.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(finish)

    def _take(self) -> tuple[_Batch[Any], int] | None:
        with self._lock:
            if not self._turns:
                self._working -= 1
                return None
            batch = self._turns.popleft()
            index = batch.begun
            batch.begun += 1
            if batch.left:
                self._turns.append(batch)
            return batch, index

    def _ended(self, seconds: float) -> None:
        with self._lock:
            self._elements -= 1
            if self._recent_seconds:
                self._recent_seconds += (seconds - self._recent_seconds) / RECENT_EVALUATIONS
            else:
                self._recent_seconds = seconds

    def _drop(self, batch: _Batch[Any]) -> None:
        batch.future.cancel()
        with self._lock:
            if batch.left:
                self._drop_locked(batch)
                self._turns.remove(batch)

    def _drop_locked(self, batch: _Batch[Any]) -> None:
        self._elements -= batch.left
        batch.begun = len(batch.calls)

    def _retry_seconds(self) -> int:
        """Estimate the seconds until what is queued now has been evaluated; at least 1."""
        return max(1, math.ceil(self._elements * self._recent_seconds / self._threads))
