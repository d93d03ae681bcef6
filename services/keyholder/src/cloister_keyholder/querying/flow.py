"""Work as steps that a synchronous and an asynchronous driver carry out alike.

A flow is a generator: it yields what it needs done and is sent what came of it, or has the error
raised at that place. So what a request means, when it is repeated and how a batch is cut is
written once, and only sending, sleeping and waiting are written twice.
"""

from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Send a request once; gives a ``transport.Reply``."""

    request: httpx.Request
    limit: int
    """The most bytes that the answer may have."""


@dataclass(frozen=True)
class Sleep:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True)
class Wait:
    """Wait for work in other threads; gives the list of results, or raises the first error."""

    futures: Sequence[Future[Any]]


Step = Send | Sleep | Wait
Flow = Generator[Step, Any, T]


def wait(futures: Sequence[Future[T]]) -> Flow[list[T]]:
    """Return the results of ``futures``, in their order."""
    results: list[T] = yield Wait(futures)
    return results


def run(flow: Flow[T], do: Callable[[Step], object]) -> T:
    """Return what ``flow`` returns, carrying out its steps with ``do``."""
    try:
        step = next(flow)
        while True:
            try:
                outcome = do(step)
            except BaseException as error:  # noqa: BLE001 - raised again, where the flow waits
                step = flow.throw(error)
            else:
                step = flow.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result


async def run_async(flow: Flow[T], do: Callable[[Step], Awaitable[object]]) -> T:
    """Return what ``flow`` returns, carrying out its steps with ``do``."""
    try:
        step = next(flow)
        while True:
            try:
                outcome = await do(step)
            except BaseException as error:  # noqa: BLE001 - raised again, where the flow waits
                step = flow.throw(error)
            else:
                step = flow.send(outcome)
    except StopIteration as end:
        result: T = end.value
        return result
