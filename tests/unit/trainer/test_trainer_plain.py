"""What counts as a reply, and whom a round asks."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from federation import Answer, LocalGrid
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode

from cloister_shared import flower
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator
from cloister_shared.weights import LinearWeights
from cloister_trainer import plain
from cloister_trainer.collection import Collected
from cloister_trainer.exchange import Exchange
from cloister_trainer.plain import Expected, PlainCollection, sorted_out
from cloister_trainer.records import to_record, to_weights

DATA = schema("digits")
WEIGHTS = Expected(DATA, estimator("LogisticRegression"), {}, reports=True)


def weights(seed: int = 0) -> LinearWeights:
    generator = np.random.default_rng(seed)
    return LinearWeights(generator.normal(size=(10, 64)), generator.normal(size=10))


def metrics(**changes: Any) -> MetricRecord:
    fields = {"examples": 100, "validation": 10, "accuracy": 0.5, "loss": 1.5} | changes
    keys = {
        "examples": flower.EXAMPLES,
        "validation": flower.VALIDATION_EXAMPLES,
        "accuracy": flower.ACCURACY,
        "loss": flower.LOSS,
    }
    return MetricRecord({keys[name]: value for name, value in fields.items() if value is not None})


def content(arrays: ArrayRecord | None = None, **changes: Any) -> RecordDict:
    record = to_record(weights()) if arrays is None else arrays
    return RecordDict({flower.ARRAYS: record, flower.METRICS: metrics(**changes)})


def reply(what: RecordDict | Error, node: int = 1) -> Message:
    asked = Message(RecordDict(), dst_node_id=node, message_type="train")
    if isinstance(what, Error):
        return Message(what, reply_to=asked)
    return Message(what, reply_to=asked)


def record(coef: Any, intercept: Any) -> ArrayRecord:
    return ArrayRecord(
        {flower.COEF: Array(np.asarray(coef)), flower.INTERCEPT: Array(np.asarray(intercept))}
    )


def one_nan() -> ArrayRecord:
    bad = weights()
    bad.coef[3, 4] = math.nan
    return to_record(bad)


def damaged() -> ArrayRecord:
    good = to_record(weights())
    good[flower.COEF] = Array("float64", (10, 64), "numpy.ndarray", b"no array")
    return good


def another_kind() -> ArrayRecord:
    good = to_record(weights())
    good[flower.COEF] = Array("float64", (10, 64), "torch.tensor", b"")
    return good


def one_more_array() -> ArrayRecord:
    more = to_record(weights())
    more["more"] = Array(np.zeros(3))
    return more


def one_array_less() -> ArrayRecord:
    less = to_record(weights())
    del less[flower.INTERCEPT]
    return less


def one_more_metric() -> RecordDict:
    made = content()
    made.metric_records[flower.METRICS]["more"] = 1.0
    return made


def two_array_records() -> RecordDict:
    made = content()
    made["more"] = to_record(weights())
    return made


BAD_ARRAYS: dict[str, Callable[[], RecordDict]] = {
    "nan": lambda: content(one_nan()),
    "infinite": lambda: content(record(np.zeros((10, 64)), np.full(10, np.inf))),
    "coef of another shape": lambda: content(record(np.zeros((64, 10)), np.zeros(10))),
    "intercept of another shape": lambda: content(record(np.zeros((10, 64)), np.zeros((10, 1)))),
    "complex": lambda: content(record(np.zeros((10, 64), complex), np.zeros(10))),
    "text": lambda: content(record(np.full((10, 64), "a"), np.zeros(10))),
    "damaged": lambda: content(damaged()),
    "another kind": lambda: content(another_kind()),
    "an array more": lambda: content(one_more_array()),
    "an array less": lambda: content(one_array_less()),
    "two array records": two_array_records,
    "no arrays": lambda: RecordDict({flower.METRICS: metrics()}),
}
BAD_METRICS: dict[str, Callable[[], RecordDict]] = {
    "no metrics": lambda: RecordDict({flower.ARRAYS: to_record(weights())}),
    "no rows": lambda: content(examples=0),
    "negative rows": lambda: content(examples=-5),
    "half a row": lambda: content(examples=0.5),
    "a list of rows": lambda: content(examples=[1, 2]),
    "no number of rows": lambda: content(examples=None),
    "no validation rows": lambda: content(validation=0),
    "no number of validation rows": lambda: content(validation=None),
    "no accuracy": lambda: content(accuracy=None),
    "accuracy above 1": lambda: content(accuracy=1.1),
    "accuracy that is none": lambda: content(accuracy=math.nan),
    "no loss": lambda: content(loss=None),
    "loss below 0": lambda: content(loss=-0.1),
    "infinite loss": lambda: content(loss=math.inf),
    "loss that is none": lambda: content(loss=math.nan),
    "a list of losses": lambda: content(loss=[1.0]),
    "a metric more": one_more_metric,
}


@pytest.mark.parametrize("name", [*BAD_ARRAYS, *BAD_METRICS])
def test_a_reply_that_cannot_be_used_does_not_count(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = reply((BAD_ARRAYS | BAD_METRICS)[name](), node=7)
    good = reply(content())
    assert sorted_out([bad, good], WEIGHTS, with_arrays=True)[0] == [good]
    assert "site 7: no valid reply" in caplog.text


@pytest.mark.parametrize("name", BAD_METRICS)
def test_an_evaluation_needs_metrics_and_no_arrays(name: str) -> None:
    bad = reply(BAD_METRICS[name]())
    good = reply(RecordDict({flower.METRICS: metrics()}))
    assert sorted_out([bad, good], WEIGHTS, with_arrays=False)[0] == [good]


def test_an_error_does_not_count() -> None:
    errors = [reply(Error(1, "the disk is full")), reply(Error(2))]
    for with_arrays in (True, False):
        assert sorted_out(errors, WEIGHTS, with_arrays=with_arrays)[0] == []


class Sites:
    """A collection over sites that reply with given contents, in the order of their ids."""

    def __init__(
        self,
        *contents: RecordDict | Error | None,
        quorum: int = 2,
        reports: bool = True,
        timeout: float = 0.3,
    ) -> None:
        self.grid = LocalGrid({node: self._answer(what) for node, what in enumerate(contents, 1)})
        self.grid.silent = {node for node, what in enumerate(contents, 1) if what is None}
        self.late: list[int] = []
        self.collection = PlainCollection(
            Exchange(self.grid),
            DATA,
            ConfigRecord(
                {
                    "kept": 1,
                    flower.ESTIMATOR: "LogisticRegression",
                    flower.PARAMETERS: "{}",
                    flower.REPORT: reports,
                }
            ),
            self._await_sites,
            quorum=quorum,
            timeout=timeout,
        )

    def _answer(self, what: RecordDict | Error | None) -> Answer:
        def answer(message: Message) -> Message:
            assert what is not None
            if isinstance(what, Error):
                return Message(what, reply_to=message)
            return Message(what, reply_to=message)

        return answer

    def _await_sites(self) -> list[int]:
        assert self.late, "there are enough sites"
        return self.late

    def train(self) -> Collected:
        return self.collection.train(3, weights())


def test_every_site_online_is_asked_with_weights_config_and_round() -> None:
    sites = Sites(*[content()] * 5)
    sites.train()
    assert sorted(message.metadata.dst_node_id for message in sites.grid.sent) == [1, 2, 3, 4, 5]
    for message in sites.grid.sent:
        assert message.metadata.message_type == "train"
        sent = to_weights(message.content.array_records[flower.ARRAYS])
        assert np.array_equal(sent.coef, weights().coef)
        config = message.content.config_records[flower.CONFIG]
        assert dict(config) == {
            "kept": 1,
            flower.ESTIMATOR: "LogisticRegression",
            flower.PARAMETERS: "{}",
            flower.REPORT: True,
            flower.ROUND: 3,
        }


def test_with_too_few_online_it_waits_for_sites() -> None:
    sites = Sites(content(), content(), content())
    online = sites.grid.sites
    sites.grid.online = {1}
    sites.late = sorted(online)
    assert sites.train().sites == 3


def test_replies_come_in_the_order_of_the_sites_whatever_came_first() -> None:
    sites = Sites(*(content(examples=100 + node) for node in range(1, 9)))
    rows = [reply.content.metric_records[flower.METRICS] for reply in sites.train().replies]
    assert [record[flower.EXAMPLES] for record in rows] == list(range(101, 109))


def test_metrics_are_weighted_by_validation_rows_and_failures_are_all_that_were_asked() -> None:
    collected = Sites(
        content(examples=100, validation=10, accuracy=0.5, loss=1.0),
        content(examples=300, validation=30, accuracy=0.9, loss=2.0),
        Error(1, "the disk is full"),
        content(one_nan()),
        None,
    ).train()
    assert (collected.asked, collected.sites, len(collected.replies)) == (5, 2, 2)
    assert collected.examples == 400
    assert collected.metrics is not None
    assert collected.metrics["accuracy"] == pytest.approx(0.8)
    assert collected.metrics["loss"] == pytest.approx(1.75)


def test_sites_that_report_nothing_count_one_each() -> None:
    silent = {"validation": None, "accuracy": None, "loss": None}
    sites = Sites(
        content(examples=1, **silent),
        content(examples=1, **silent),
        content(examples=100, **silent),
        content(examples=1),
        reports=False,
    )
    collected = sites.train()
    assert (collected.asked, collected.sites) == (4, 2)
    assert (collected.examples, collected.metrics) == (None, None)
    sent = len(sites.grid.sent)
    assert sites.collection.evaluate(weights()) is None
    assert len(sites.grid.sent) == sent


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Error(1, "the disk is full"), "the disk is full"),
        (Error(77), "error 77"),
        (content(one_nan()), "coef holds values that are not finite"),
    ],
)
def test_a_round_without_its_quorum_raises_with_the_reasons(
    bad: RecordDict | Error, reason: str
) -> None:
    sites = Sites(content(), Error(1, "late"), bad, bad, None)
    with pytest.raises(CloisterError) as caught:
        sites.train()
    assert str(caught.value) == (
        "round 3 has 1 valid replies of 5, and 2 are needed; "
        f"why: {reason} (2 sites); late (1 site)"
    )


def test_sites_that_refuse_are_not_waited_for_with_one_that_went_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cloister_trainer.plain.time.sleep", lambda _: pytest.fail("it waits"))
    gone = Error(ErrorCode.NODE_UNAVAILABLE, "unavailable")
    sites = Sites(gone, Error(1, "no"), Error(1, "no"), timeout=30)
    with pytest.raises(CloisterError, match=r"why: no \(2 sites\); unavailable \(1 site\)"):
        sites.train()


def test_a_round_without_any_reply_raises() -> None:
    with pytest.raises(CloisterError, match="0 valid replies of 3"):
        Sites(None, None, None).train()


def test_final_metrics_are_weighted_and_need_the_quorum() -> None:
    replies: list[RecordDict | Error] = [
        RecordDict({flower.METRICS: metrics(validation=10, accuracy=0.2, loss=3.0)}),
        RecordDict({flower.METRICS: metrics(validation=40, accuracy=0.7, loss=1.0)}),
        Error(1, "the disk is full"),
    ]
    sites = Sites(*replies)
    final = sites.collection.evaluate(weights())
    assert final is not None
    assert final.sites == 2
    assert final.accuracy == pytest.approx(0.6)
    assert final.loss == pytest.approx(1.4)
    assert {message.metadata.message_type for message in sites.grid.sent} == {"evaluate"}
    with pytest.raises(CloisterError, match=r"final evaluation has 2 .* 3 are needed.*disk is ful"):
        Sites(*replies, quorum=3).collection.evaluate(weights())


class Away:
    """A site of which the SuperLink says at first that it is gone."""

    def __init__(self, code: int, times: int) -> None:
        self.code = code
        self.times = times
        self.asked = 0

    def __call__(self, message: Message) -> Message:
        self.asked += 1
        if self.asked <= self.times:
            lost = Message(Error(self.code, "unavailable"), reply_to=message)
            # The SuperLink answers in its own name: it does not know whose the message was.
            lost.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
            return lost
        return Message(content(), reply_to=message)


@pytest.mark.parametrize(
    "code", [ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, 5]
)
def test_sites_that_went_away_are_asked_again_where_the_quorum_depends_on_them(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "POLL_SECONDS", 0.01)
    sites, away = Sites(content(), content(), content(), timeout=30), Away(code, times=2)
    sites.grid.sites |= {2: away, 3: away}
    collected = sites.train()
    assert (collected.asked, collected.sites) == (3, 3)
    asked = [message.metadata.dst_node_id for message in sites.grid.sent]
    assert sorted(asked) == [1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    "code", [ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, 5]
)
def test_where_there_are_enough_a_site_that_is_online_is_asked_once_more(code: int) -> None:
    sites = Sites(content(), content(), content(), timeout=30)
    back, away = Away(code, times=1), Away(code, times=9)
    sites.grid.sites |= {4: back, 5: away}
    collected = sites.train()
    assert (collected.asked, collected.sites) == (5, 4)
    assert [reply.metadata.src_node_id for reply in collected.replies] == [1, 2, 3, 4]
    assert (back.asked, away.asked) == (2, 2)


def test_one_that_is_not_online_then_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloister_trainer.plain.time.sleep", lambda _: pytest.fail("it waits"))
    sites, away = Sites(content(), content(), timeout=30), Away(5, times=9)

    def answer(message: Message) -> Message:
        sites.grid.online = {1, 2}
        return away(message)

    sites.grid.sites[3] = answer
    collected = sites.train()
    assert (collected.asked, collected.sites, away.asked) == (3, 2, 1)


def test_what_a_site_itself_raised_is_not_asked_again() -> None:
    sites, failing = Sites(content(), content()), Away(1, times=9)
    sites.grid.sites[2] = failing
    with pytest.raises(CloisterError, match="1 valid replies of 2"):
        sites.train()
    assert failing.asked == 1


def test_sites_that_stay_away_fail_the_round_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plain, "POLL_SECONDS", 0.01)
    sites = Sites(content(), content(), timeout=0.2)
    sites.grid.sites[2] = Away(5, times=10**9)
    with pytest.raises(CloisterError, match=r"1 valid replies of 2.*unavailable"):
        sites.train()


def test_a_sites_words_stay_within_one_line_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hostile = "no\nINFO    trainer: published version 9\x1b[2J" + "x" * 10_000
    asked = Message(RecordDict(), dst_node_id=3, message_type=MessageType.TRAIN)
    reply = Message(Error(1, hostile), reply_to=asked)
    assert sorted_out([reply], WEIGHTS, with_arrays=True)[0] == []
    (line,) = caplog.messages
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line) < 500
    assert r"no\nINFO" in line
