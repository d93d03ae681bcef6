"""The queue in front of the evaluating threads: its bound, its turns, who is dropped from it."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_service import Gate

from cloister_inference.observability.metrics import Metrics
from cloister_inference.problems import ClientGoneError, DeadlineError, QueueFullError
from cloister_inference.serving.scheduler import Scheduler

Scenario = Callable[[Scheduler], Coroutine[Any, Any, None]]


def play(scenario: Scenario, *, threads: int = 1, limit: int = 8) -> Metrics:
    metrics = Metrics()

    async def main() -> None:
        with Scheduler(threads, limit, metrics) as scheduler:
            await scenario(scheduler)

    asyncio.run(main())
    assert queued(metrics) == 0
    return metrics


def queued(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("cloister_queue_elements")


def element(gate: Gate, name: str) -> Callable[[], str]:
    """Return what evaluates to its name once the gate is open."""

    def call() -> str:
        gate.wait_at(name.encode())
        return name

    return call


def batch(gate: Gate, name: str, count: int) -> list[Callable[[], str]]:
    return [element(gate, f"{name}{index}") for index in range(count)]


async def entered(gate: Gate, count: int) -> None:
    await asyncio.to_thread(gate.wait_entered, count)


async def start(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Run until it waits."""
    task = asyncio.create_task(coroutine)
    await asyncio.sleep(0)
    return task


@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6),
    threads=st.integers(1, 4),
)
def test_results_come_back_to_their_request_in_order(sizes: list[int], threads: int) -> None:
    async def scenario(scheduler: Scheduler) -> None:
        calls = [
            [partial(str, f"{request}.{index}") for index in range(size)]
            for request, size in enumerate(sizes)
        ]
        results = await asyncio.gather(*map(scheduler.run, calls))
        assert results == [[call() for call in request] for request in calls]

    play(scenario, threads=threads, limit=sum(sizes))


def test_every_thread_evaluates_side_by_side() -> None:
    together = threading.Barrier(3)

    async def scenario(scheduler: Scheduler) -> None:
        await scheduler.run([partial(together.wait, 60)] * 3)

    play(scenario, threads=3)


def test_what_does_not_fit_is_refused_and_hurts_nothing_else() -> None:
    gate = Gate()

    async def scenario(scheduler: Scheduler) -> None:
        first = await start(scheduler.run(batch(gate, "a", 5)))
        with pytest.raises(QueueFullError) as refused:
            await scheduler.run(batch(gate, "b", 4))
        assert int(refused.value.headers["Retry-After"]) >= 1
        with pytest.raises(QueueFullError):
            scheduler.check_room(4)
        scheduler.check_room(3)
        second = await start(scheduler.run(batch(gate, "c", 3)))
        with pytest.raises(QueueFullError):
            scheduler.check_room(1)
        gate.open()
        assert await first == ["a0", "a1", "a2", "a3", "a4"]
        assert await second == ["c0", "c1", "c2"]
        scheduler.check_room(8)

    play(scenario)
    assert not [name for name in gate.entered if name.startswith(b"b")]


def test_requests_take_turns() -> None:
    gate = Gate()

    async def scenario(scheduler: Scheduler) -> None:
        large = await start(scheduler.run(batch(gate, "a", 5)))
        await entered(gate, 1)
        others = [await start(scheduler.run(batch(gate, name, 1))) for name in "bc"]
        gate.open()
        await asyncio.gather(large, *others)

    play(scenario)
    assert gate.entered == [b"a0", b"a1", b"b0", b"c0", b"a2", b"a3", b"a4"]


def test_after_the_deadline_what_has_not_begun_is_dropped() -> None:
    gate = Gate()

    async def scenario(scheduler: Scheduler) -> None:
        with pytest.raises(DeadlineError) as late:
            await scheduler.run(batch(gate, "a", 4), deadline=time.monotonic() + 0.05)
        assert int(late.value.headers["Retry-After"]) >= 1
        # The one that had begun still takes its place.
        scheduler.check_room(7)
        with pytest.raises(QueueFullError):
            scheduler.check_room(8)
        gate.open()
        assert await scheduler.run(batch(gate, "b", 1)) == ["b0"]

    play(scenario)
    assert gate.entered == [b"a0", b"b0"]


def test_past_the_deadline_nothing_is_begun() -> None:
    gate = Gate()

    async def scenario(scheduler: Scheduler) -> None:
        with pytest.raises(DeadlineError):
            await scheduler.run(batch(gate, "a", 1), deadline=time.monotonic() - 1)

    play(scenario)
    assert not gate.entered


def test_what_nobody_waits_for_is_dropped() -> None:
    gate = Gate()

    async def scenario(scheduler: Scheduler) -> None:
        gone = asyncio.Event()

        async def leave() -> None:
            await gone.wait()

        left = await start(scheduler.run(batch(gate, "a", 3), gone=leave))
        cancelled = await start(scheduler.run(batch(gate, "b", 3)))
        await entered(gate, 1)
        gone.set()
        with pytest.raises(ClientGoneError):
            await left
        cancelled.cancel()
        await asyncio.sleep(0.01)
        scheduler.check_room(7)
        gate.open()
        assert await scheduler.run(batch(gate, "c", 2), gone=leave_never) == ["c0", "c1"]

    play(scenario)
    assert gate.entered == [b"a0", b"c0", b"c1"]


async def leave_never() -> None:
    await asyncio.Event().wait()


def test_the_watch_ends_with_the_request() -> None:
    ended = []

    async def watch() -> None:
        try:
            await leave_never()
        finally:
            ended.append(True)

    async def scenario(scheduler: Scheduler) -> None:
        await scheduler.run([str] * 2, gone=watch)
        await asyncio.sleep(0)
        assert ended == [True]

    play(scenario)


def test_a_failure_is_the_requests_alone() -> None:
    gate = Gate()
    gate.open()

    def fail() -> str:
        raise ZeroDivisionError("a defect")

    async def scenario(scheduler: Scheduler) -> None:
        bad = scheduler.run([fail, *batch(gate, "a", 2)])
        good = scheduler.run(batch(gate, "b", 3))
        failed, results = await asyncio.gather(bad, good, return_exceptions=True)
        assert isinstance(failed, ZeroDivisionError)
        assert results == ["b0", "b1", "b2"]
        assert await scheduler.run(batch(gate, "c", 1)) == ["c0"]

    play(scenario)


def test_retry_after_follows_the_queue_and_the_time_of_evaluations() -> None:
    gate = Gate()

    async def scenario(scheduler: Scheduler) -> None:
        await scheduler.run([partial(time.sleep, 0.4)])
        waiting = await start(scheduler.run(batch(gate, "a", 8)))
        with pytest.raises(QueueFullError) as refused:
            scheduler.check_room(1)
        # 8 evaluations of 0.4 s by 1 thread, and whatever the machine added.
        assert int(refused.value.headers["Retry-After"]) >= 4
        gate.open()
        await waiting

    play(scenario)


def test_it_ends_without_those_that_have_not_begun() -> None:
    gate = Gate()

    async def scenario(scheduler: Scheduler) -> None:
        left = await start(scheduler.run(batch(gate, "a", 3)))
        await entered(gate, 1)
        threading.Timer(0.05, gate.open).start()
        left.cancel()

    play(scenario)
    assert gate.entered == [b"a0"]


def test_waits_are_timed() -> None:
    async def scenario(scheduler: Scheduler) -> None:
        await scheduler.run([str] * 3)
        await scheduler.run([str] * 2)

    metrics = play(scenario)
    count = metrics.registry.get_sample_value("cloister_queue_duration_seconds_count")
    assert count == 5
