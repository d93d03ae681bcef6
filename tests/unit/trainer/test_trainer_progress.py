"""What people and Prometheus are told of a training."""

import json
import logging
import math
import socket
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from cloister_shared.card import RoundMetrics
from cloister_shared.errors import CloisterError
from cloister_shared.logs import JsonFormatter
from cloister_trainer.events import EventLog
from cloister_trainer.following import EVENT
from cloister_trainer.progress import Metrics, Replies, exposed_metrics, seconds_left, text


def event(name: str, **fields: Any) -> dict[str, Any]:
    return {"event": name} | fields


def round_event(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {"round": 3, "rounds": 5, "sites": 10, "failures": 0, "examples": 1293}
    fields |= {"accuracy": 0.912, "loss": 0.31, "epsilon": None}
    fields |= {"seconds": 6.1, "seconds_left": 12.2}
    return event("round", **(fields | changes))


@pytest.mark.parametrize(
    ("told", "of"),
    [
        (
            "round 3 of 5: 10 sites, loss 0.3100, accuracy 0.9120, 6.1 s, about 12 s left",
            round_event(),
        ),
        (
            "round 5 of 5: 9 sites, 1 failed, loss 0.3100, accuracy 0.9120, 6.1 s",
            round_event(round=5, sites=9, failures=1, seconds_left=0.0),
        ),
        (
            "round 3 of 5: 10 sites, epsilon 12.3, 6.1 s, about 12 s left",
            round_event(accuracy=None, loss=None, examples=None, epsilon=12.345),
        ),
        (
            "round 3: 7 of 10 sites have replied, 4 s",
            event("replies", round=3, replied=7, asked=10, seconds=4.2),
        ),
        (
            "final evaluation: 7 of 10 sites have replied, 4 s",
            event("replies", round=None, replied=7, asked=10, seconds=4.2),
        ),
        (
            "sums of the inputs: 7 of 10 sites have replied, 4 s",
            event("replies", round=0, replied=7, asked=10, seconds=4.2),
        ),
        ("final model: loss 0.2500, accuracy 0.9300", event("final", loss=0.25, accuracy=0.93)),
        ("training with 9 sites, 5 rounds", event("started", sites=9, expected=10, rounds=5)),
        (None, event("waiting", expected=3)),
        (None, event("published", version=1)),
    ],
)
def test_what_people_are_told(told: str | None, of: dict[str, Any]) -> None:
    assert text(of) == told


def test_one_that_goes_on_says_so() -> None:
    assert "going on after round 2 of 5" in str(text(event("resumed", after=2, rounds=5)))


def test_replies_are_told_now_and_then_and_not_once_all_are_there(tmp_path: Path) -> None:
    events, now = EventLog(tmp_path / "run-1.jsonl"), 0.0
    replies = Replies(events, clock=lambda: now)
    replies.round = 2
    for tick in range(200):
        now = tick / 10
        replies(min(tick // 20, 10), 10, now)
    told = [(one["replied"], one["seconds"]) for one in events.read()]
    assert told[0] == (1, 2.0), "a round that is quicker needs no telling"
    seconds = [second for _, second in told]
    assert all(later - earlier >= 2 for earlier, later in pairwise(seconds))
    assert 5 <= len(told) <= 10
    count = len(told)
    now = 100.0
    replies(10, 10, now)
    assert len(events.read()) == count
    assert {(one["round"], one["asked"]) for one in events.read()} == {(2, 10)}


@pytest.mark.parametrize(
    ("seconds", "left"), [([30.0], 90.0), ([30.0, 6.0], 12.0), ([30, 6, 8], 7), ([1, 2, 3, 4], 0)]
)
def test_the_time_left_is_that_of_rounds_after_the_first(seconds: list[float], left: float) -> None:
    rounds = [
        RoundMetrics(round=n, sites=1, failures=0, seconds=one) for n, one in enumerate(seconds, 1)
    ]
    assert seconds_left(rounds, 4) == pytest.approx(left)


def value(registry: CollectorRegistry, name: str) -> float:
    found = registry.get_sample_value(f"cloister_training_{name}")
    assert found is not None, name
    return found


def test_metrics_follow_the_events() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    assert math.isnan(value(registry, "accuracy"))
    assert math.isnan(value(registry, "round"))
    asked = {"expected": 10, "rounds": 5, "quorum": 7, "round_timeout": 600.0}
    metrics.update(event("waiting", **asked))
    assert (value(registry, "round"), value(registry, "rounds")) == (0, 5)
    assert (value(registry, "quorum"), value(registry, "round_timeout_seconds")) == (7, 600)
    metrics.update(event("started", sites=10, expected=10, rounds=5))
    metrics.update(event("resumed", after=2, rounds=5))
    assert (value(registry, "round"), value(registry, "rounds")) == (2, 5)
    metrics.update(event("replies", round=3, replied=7, asked=10, seconds=4.2))
    assert (value(registry, "sites_replied"), value(registry, "sites_asked")) == (7, 10)
    metrics.update(round_event(sites=9, failures=1, epsilon=4.5))
    names = ("round", "sites_asked", "sites_replied", "sites_failed", "accuracy", "loss")
    assert [value(registry, name) for name in names] == [3, 10, 9, 1, 0.912, 0.31]
    rest = [value(registry, name) for name in ("round_seconds", "epsilon", "seconds_left")]
    assert rest == [6.1, 4.5, 12.2]
    metrics.update(event("final", sites=9, accuracy=0.93, loss=0.25))
    assert (value(registry, "accuracy"), value(registry, "loss")) == (0.93, 0.25)
    assert value(registry, "epsilon") == 4.5


def test_progress_is_a_further_reply_or_the_end_of_a_round() -> None:
    registry, now = CollectorRegistry(), 100.0
    metrics = Metrics(registry, clock=lambda: now)

    def seen(happened: dict[str, Any]) -> float:
        nonlocal now
        now += 1
        metrics.update(happened)
        return value(registry, "progress_timestamp_seconds")

    asked = {"expected": 3, "rounds": 5, "quorum": 2, "round_timeout": 600.0}
    assert math.isnan(seen(event("waiting", **asked)))
    assert seen(event("started", sites=3, expected=3, rounds=5)) == 102
    replies = {"asked": 3, "seconds": 4.0}
    assert seen(event("replies", round=1, replied=1, **replies)) == 103
    assert seen(event("replies", round=1, replied=1, **replies)) == 103
    assert seen(event("replies", round=1, replied=2, **replies)) == 105
    assert seen(event("log", level=20, message="hello")) == 105
    assert seen(round_event()) == 107
    assert seen(event("replies", round=2, replied=2, **replies)) == 108
    assert seen(event("final", sites=3, accuracy=0.9, loss=0.3)) == 109


def test_metrics_that_sites_do_not_report_stay_unknown() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.update(round_event(accuracy=None, loss=None))
    assert math.isnan(value(registry, "accuracy"))
    assert math.isnan(value(registry, "loss"))


def test_a_port_that_is_taken_is_told_with_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(CloisterError, match=f"port {port} .*CLOISTER_METRICS_PORT"),
            exposed_metrics("127.0.0.1", port),
        ):
            pass


def test_port_0_serves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with exposed_metrics("127.0.0.1", 0) as metrics:
        metrics.update(round_event())
    assert caplog.messages == []


def test_a_line_as_json_has_its_traceback_and_its_event() -> None:
    formatter = JsonFormatter("trainer")
    try:
        raise ValueError("it\nbroke")
    except ValueError:
        record = logging.LogRecord("a.b", logging.ERROR, "f", 1, "%s!", ("no",), sys.exc_info())
    setattr(record, EVENT, round_event())
    (line,) = formatter.format(record).splitlines()
    read = json.loads(line)
    assert (read["level"], read["service"], read["logger"]) == ("ERROR", "trainer", "a.b")
    assert read["message"] == "no!"
    assert "ValueError: it\nbroke" in read["exc_info"]
    assert read["training"] == round_event()
    assert read["time"].endswith("+00:00")
