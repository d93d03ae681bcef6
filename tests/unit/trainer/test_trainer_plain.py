"""What counts as a reply, and what a round makes of the replies."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from federation import LocalGrid
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from cloister_shared import flower
from cloister_shared.card import RoundMetrics
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.weights import LinearWeights
from cloister_trainer.records import to_record, to_weights
from cloister_trainer.strategy import QuorumFedAvg, final_metrics, valid_replies

DATA = schema("digits")


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
    assert valid_replies([bad, good], DATA, with_arrays=True) == [good]
    assert "site 7: no valid reply" in caplog.text


@pytest.mark.parametrize("name", BAD_METRICS)
def test_an_evaluation_needs_metrics_and_no_arrays(name: str) -> None:
    bad = reply(BAD_METRICS[name]())
    good = reply(RecordDict({flower.METRICS: metrics()}))
    assert valid_replies([bad, good], DATA, with_arrays=False) == [good]


def test_an_error_does_not_count() -> None:
    errors = [reply(Error(1, "the disk is full")), reply(Error(2))]
    for with_arrays in (True, False):
        assert valid_replies(errors, DATA, with_arrays=with_arrays) == []


class Round:
    """A strategy and what it reported."""

    def __init__(self, quorum: int, asked: int, await_sites: Callable[[], list[int]]) -> None:
        self.reported: list[RoundMetrics] = []
        self.strategy = QuorumFedAvg(DATA, quorum, await_sites, self.reported.append)
        self.grid = LocalGrid(dict.fromkeys(range(1, asked + 1), lambda message: message))
        self.messages = list(
            self.strategy.configure_train(
                3, to_record(weights()), ConfigRecord({"kept": 1}), self.grid
            )
        )

    def aggregate(self, *contents: RecordDict | Error) -> LinearWeights:
        replies = [reply(what, node) for node, what in enumerate(contents, 1)]
        arrays, _ = self.strategy.aggregate_train(3, replies)
        assert arrays is not None
        return to_weights(arrays)


def begin(quorum: int = 2, asked: int = 3) -> Round:
    def nobody() -> list[int]:
        raise AssertionError("there are enough sites")

    return Round(quorum, asked, nobody)


def test_every_site_online_is_asked_with_weights_config_and_round() -> None:
    messages = begin(asked=5).messages
    assert sorted(message.metadata.dst_node_id for message in messages) == [1, 2, 3, 4, 5]
    for message in messages:
        assert message.metadata.message_type == "train"
        sent = to_weights(message.content.array_records[flower.ARRAYS])
        assert np.array_equal(sent.coef, weights().coef)
        config = message.content.config_records[flower.CONFIG]
        assert dict(config) == {"kept": 1, "server-round": 3}


def test_with_too_few_online_it_waits_for_sites() -> None:
    messages = Round(2, 1, lambda: [4, 5]).messages
    assert [message.metadata.dst_node_id for message in messages] == [4, 5]


def test_the_mean_is_weighted_by_rows() -> None:
    one, two, three = (weights(seed) for seed in (1, 2, 3))
    mean = begin().aggregate(
        content(to_record(one), examples=100),
        content(to_record(two), examples=300),
        content(to_record(three), examples=600),
    )
    np.testing.assert_allclose(mean.coef, 0.1 * one.coef + 0.3 * two.coef + 0.6 * three.coef)
    np.testing.assert_allclose(
        mean.intercept, 0.1 * one.intercept + 0.3 * two.intercept + 0.6 * three.intercept
    )


def test_metrics_are_weighted_by_validation_rows_and_failures_are_all_that_were_asked() -> None:
    begun = begin(asked=5)
    begun.aggregate(
        content(examples=100, validation=10, accuracy=0.5, loss=1.0),
        content(examples=300, validation=30, accuracy=0.9, loss=2.0),
        Error(1, "the disk is full"),
        content(one_nan()),
        # The fifth has not replied at all.
    )
    (measured,) = begun.reported
    assert begun.strategy.rounds == [measured]
    assert (measured.round, measured.sites, measured.failures) == (3, 2, 3)
    assert measured.examples == 400
    assert measured.accuracy == pytest.approx(0.8)
    assert measured.loss == pytest.approx(1.75)


def test_invalid_replies_leave_the_mean_alone() -> None:
    expected = begin().aggregate(content(to_record(weights(1))), content(to_record(weights(2))))
    mean = begin().aggregate(
        content(to_record(weights(1))),
        content(one_nan()),
        content(to_record(weights(2))),
        content(one_more_array(), examples=10**9),
        one_more_metric(),
        content(validation=None),
    )
    assert np.array_equal(mean.coef, expected.coef)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Error(1, "the disk is full"), "the disk is full"),
        (Error(77), "error 77"),
        (content(one_nan()), "coef holds values that are not finite"),
    ],
)
def test_a_round_without_its_quorum_raises_with_the_first_reason(
    bad: RecordDict | Error, reason: str
) -> None:
    begun = begin(quorum=2, asked=4)
    with pytest.raises(
        CloisterError, match=f"round 3 has 1 valid replies of 4, and 2 are needed.*{reason}"
    ):
        begun.aggregate(content(), bad, Error(1, "later"))
    assert begun.reported == []


def test_a_round_without_any_reply_raises() -> None:
    with pytest.raises(CloisterError, match="0 valid replies of 3"):
        begin().aggregate()


def test_final_metrics_are_weighted_and_need_the_quorum() -> None:
    replies = [
        reply(RecordDict({flower.METRICS: metrics(validation=10, accuracy=0.2, loss=3.0)})),
        reply(RecordDict({flower.METRICS: metrics(validation=40, accuracy=0.7, loss=1.0)})),
        reply(Error(1, "the disk is full")),
    ]
    final = final_metrics(replies, DATA, 2)
    assert final.sites == 2
    assert final.accuracy == pytest.approx(0.6)
    assert final.loss == pytest.approx(1.4)
    with pytest.raises(CloisterError, match=r"final evaluation has 2 .* 3 are needed.*disk is ful"):
        final_metrics(replies, DATA, 3)
