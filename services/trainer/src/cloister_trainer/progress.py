"""How far a training is: told while replies come, as text for people, and as metrics."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from cloister_shared.card import RoundMetrics
from cloister_shared.errors import CloisterError
from cloister_trainer.events import EventLog

REPLIES_SECONDS = 2.0
"""Between two events about the replies of one round: few enough for people to read."""

Event = dict[str, Any]

log = logging.getLogger(__name__)


class Replies:
    """Writes an event now and then while replies are awaited.

    Attributes:
        round: that the replies are of, 0 where they are sums of the inputs before the first; None
            in the final evaluation.
    """

    def __init__(self, events: EventLog, clock: Callable[[], float] = time.monotonic) -> None:
        self.round: int | None = None
        self._events = events
        self._clock = clock
        self._told = -math.inf

    def __call__(self, replied: int, asked: int, seconds: float) -> None:
        """Tell that so many of those asked have replied within so many seconds."""
        # The event of the round itself tells when all are there.
        due = min(seconds, self._clock() - self._told) >= REPLIES_SECONDS
        if due and replied < asked:
            self._told = self._clock()
            self._events.write(
                "replies", round=self.round, replied=replied, asked=asked, seconds=round(seconds, 1)
            )


def seconds_left(rounds: Sequence[RoundMetrics], total: int) -> float:
    """Estimate the seconds that the rest of the rounds takes.

    Args:
        rounds: that are done, at least one. The first has sites start up, and counts only while it
            is the only one.
        total: rounds in all.
    """
    seconds = [measured.seconds for measured in rounds[1:] or rounds]
    return statistics.mean(seconds) * (total - len(rounds))


def text(event: Event) -> str | None:
    """Return what to tell people of an event, if anything."""
    match event["event"]:
        case "started":
            rounds = "1 round" if event["rounds"] == 1 else f"{event['rounds']} rounds"
            return f"training with {event['sites']} sites, {rounds}"
        case "resumed":
            return (
                f"going on after round {event['after']} of {event['rounds']}, which an interrupted "
                "training had reached"
            )
        case "replies":
            return (
                f"{_stage(event['round'])}: {event['replied']} of {event['asked']} sites have "
                f"replied, {event['seconds']:.0f} s"
            )
        case "round":
            return _round(event)
        case "final":
            return f"final model: {_measured(event)}"
        case _:
            return None


def _stage(number: int | None) -> str:
    match number:
        case None:
            return "final evaluation"
        case 0:
            return "sums of the inputs"
        case _:
            return f"round {number}"


def _round(event: Event) -> str:
    parts = [f"{event['sites']} sites"]
    if event["failures"]:
        parts.append(f"{event['failures']} failed")
    if event["loss"] is not None:
        parts.append(_measured(event))
    if event["epsilon"] is not None:
        parts.append(f"epsilon {event['epsilon']:.3g}")
    parts.append(f"{event['seconds']:.1f} s")
    if event["round"] < event["rounds"]:
        parts.append(f"about {event['seconds_left']:.0f} s left")
    return f"round {event['round']} of {event['rounds']}: {', '.join(parts)}"


def _measured(event: Event) -> str:
    if event.get("absolute_error") is not None:
        return f"mean absolute error {event['absolute_error']:.4g}, loss {event['loss']:.4g}"
    return f"loss {event['loss']:.4f}, accuracy {event['accuracy']:.4f}"


class Metrics:
    """The same for Prometheus; what is not known yet is NaN.

    Args:
        registry: gets the metrics.
        clock: seconds since the epoch.
    """

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock

        def gauge(name: str, what: str) -> Gauge:
            made = Gauge(f"cloister_training_{name}", what, registry=registry)
            made.set(math.nan)
            return made

        self._round = gauge("round", "Rounds done")
        self._rounds = gauge("rounds", "Rounds in all")
        self._asked = gauge("sites_asked", "Sites asked in the current round")
        self._replied = gauge("sites_replied", "Sites of them that have replied")
        self._failed = gauge("sites_failed", "Sites without a valid reply in the last round")
        self._accuracy = gauge("accuracy", "Of the last model that sites measured, 0 to 1")
        self._absolute_error = gauge(
            "absolute_error", "Mean, of the last model that sites measured, in the target's unit"
        )
        self._loss = gauge(
            "loss",
            "Of the last model that sites measured: in nats; of a regression the squared error",
        )
        self._seconds = gauge("round_seconds", "Seconds that the last round took")
        self._epsilon = gauge("epsilon", "Spent so far, under differential privacy")
        self._left = gauge("seconds_left", "Estimate of the seconds until the last round is done")
        self._quorum = gauge("quorum", "Valid replies without which a round fails")
        self._timeout = gauge(
            "round_timeout_seconds", "After which a round goes on without the replies still missing"
        )
        self._progressed = gauge(
            "progress_timestamp_seconds",
            "When a further reply or the end of a round was seen last, since the epoch",
        )
        self._replies_seen: tuple[int | None, int] = (None, 0)

    def update(self, event: Event) -> None:
        """Take over what an event tells."""
        match event["event"]:
            case "waiting":
                # One that ends before it has its sites has rounds undone, too.
                self._round.set(0)
                self._rounds.set(event["rounds"])
                self._quorum.set(event["quorum"])
                self._timeout.set(event["round_timeout"])
            case "started":
                self._round.set(0)
                self._rounds.set(event["rounds"])
                self._progress()
            case "resumed":
                self._round.set(event["after"])
            case "replies":
                self._asked.set(event["asked"])
                self._replied.set(event["replied"])
                seen = (event["round"], event["replied"])
                if seen != self._replies_seen:
                    self._replies_seen = seen
                    self._progress()
            case "round":
                self._round.set(event["round"])
                self._asked.set(event["sites"] + event["failures"])
                self._replied.set(event["sites"])
                self._failed.set(event["failures"])
                self._seconds.set(event["seconds"])
                self._left.set(event["seconds_left"])
                self._progress()
                self._measure(event)
            case "final":
                self._progress()
                self._measure(event)
            case _:
                pass

    def _progress(self) -> None:
        self._progressed.set(self._clock())

    def _measure(self, event: Event) -> None:
        for gauge, key in (
            (self._accuracy, "accuracy"),
            (self._absolute_error, "absolute_error"),
            (self._loss, "loss"),
            (self._epsilon, "epsilon"),
        ):
            if event.get(key) is not None:
                gauge.set(event[key])


@contextmanager
def exposed_metrics(host: str, port: int) -> Iterator[Metrics]:
    """Give metrics, and serve them to Prometheus from a thread while the context lasts.

    Args:
        host: address to listen at.
        port: TCP port to listen at; 0: they are not served.

    Raises:
        CloisterError: the port cannot be listened at.
    """
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    if not port:
        yield metrics
        return
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise CloisterError(
            f"the metrics cannot be served at port {port} of {host} ({error.strerror}): set "
            "CLOISTER_METRICS_PORT to another port, or to 0 for none"
        ) from None
    log.info("metrics at http://%s:%d/metrics", host, port)
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
