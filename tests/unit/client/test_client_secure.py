"""What a site answers, and refuses, in secure aggregation; the server is played by the tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common import FitIns, bytes_to_ndarray, ndarrays_to_parameters
from flwr.common.serde import (
    context_from_proto,
    context_to_proto,
    message_from_proto,
    message_to_proto,
)
from flwr.compat.common.recorddict_compat import fitins_to_recorddict
from flwr.supercore.task_identity import TaskIdentity

from cloister_client.app import app
from cloister_client.site import REQUIRE_SECURE_AGGREGATION, SHARD_DIR
from cloister_shared import flower
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.secure_aggregation import MODULUS

PROTOCOL = "secaggplus_configs"
STATE = "secaggplus_state"
NODES = (1, 2, 3)
SETUP = {
    "sample_num": 3,
    "share_num": 3,
    "threshold": 2,
    "clipping_range": 8.0,
    "target_range": 1 << 22,
    "mod_range": MODULUS,
    "max_weight": 1000.0,
}
COLLECT = "collect_masked_vectors"


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower sets in the processes that it starts."""
    for field in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, field, 1)


class Federation:
    """Three sites on the same rows, and a server that asks them whatever the tests want."""

    def __init__(self, folder: Path) -> None:
        config: dict[str, Any] = {SHARD_DIR: str(folder), REQUIRE_SECURE_AGGREGATION: True}
        self.contexts = {n: Context(1, 1, config, RecordDict(), {}) for n in NODES}
        self.keys: dict[int, list[bytes]] = {}
        self.shares: dict[int, dict[int, bytes]] = {}

    def ask(
        self,
        node: int,
        stage: str,
        config: dict[str, Any],
        *,
        kind: str = "train",
        more: RecordDict | None = None,
    ) -> RecordDict:
        content = more or RecordDict()
        content.config_records[PROTOCOL] = ConfigRecord({"stage": stage, **config})
        message = Message(content, dst_node_id=node, message_type=kind)
        received = message_from_proto(message_to_proto(message))
        reply = app(received, self.contexts[node])
        context = self.contexts[node]
        self.contexts[node] = context_from_proto(context_to_proto(context))
        return reply.content

    def set_up(self, **changes: Any) -> None:
        for node in NODES:
            reply = answer(self.ask(node, "setup", SETUP | changes))
            self.keys[node] = [reply["pk1"], reply["pk2"]]

    def share_keys(self, **changes: Any) -> None:
        self.set_up(**changes)
        keys = {str(node): self.keys[node] for node in NODES}
        for node in NODES:
            reply = answer(self.ask(node, "share_keys", keys))
            self.shares[node] = dict(zip(reply["dsts"], reply["ctxts"], strict=True))

    def for_node(self, node: int) -> dict[str, Any]:
        """What the protocol sends a site in the stage that collects."""
        others = [other for other in NODES if other != node]
        return {"srcs": others, "ctxts": [self.shares[other][node] for other in others]}

    def collect(self, node: int, *, more: RecordDict | None = None, **changes: Any) -> RecordDict:
        return self.ask(node, COLLECT, self.for_node(node) | changes, more=more or fit_ins())

    def unmask(self, node: int, active: list[int], dead: list[int]) -> dict[str, Any]:
        lists = {"active_nids": active, "dead_nids": dead}
        return answer(self.ask(node, "unmask", lists))


def answer(content: RecordDict) -> dict[str, Any]:
    return dict(content.config_records[PROTOCOL])


def shapes(content: RecordDict) -> list[tuple[int, ...]]:
    return [bytes_to_ndarray(array).shape for array in answer(content)["masked_params"]]


def fit_ins(task: str = flower.TASK_TRAIN, **changes: Any) -> RecordDict:
    config: dict[str, Any] = {
        flower.SCHEMA_DIGEST: schema("digits").digest,
        flower.ESTIMATOR: "LogisticRegression",
        flower.PARAMETERS: json.dumps(
            {"penalty": "l2", "C": 1.0, "max_iter": 5, "warm_start": True}
        ),
        flower.OUT_OF_BOUNDS: "refuse",
        flower.TASK: task,
    }
    parameters = ndarrays_to_parameters([np.zeros((10, 64)), np.zeros(10)])
    return fitins_to_recorddict(FitIns(parameters, config | changes), keep_input=True)


@pytest.fixture
def federation(write_site: Callable[..., Path], digits_data: tuple[Any, Any]) -> Federation:
    return Federation(write_site(digits_data[0][:300], digits_data[1][:300]))


def test_a_reply_holds_the_masked_numbers_and_nothing_else(federation: Federation) -> None:
    federation.share_keys()
    content = federation.collect(1)
    assert set(content) == {
        PROTOCOL,
        "fitres.metrics",
        "fitres.num_examples",
        "fitres.parameters",
        "fitres.status",
    }
    assert dict(content.config_records["fitres.metrics"]) == {}
    # Not the 270 rows that were fitted.
    assert content.metric_records["fitres.num_examples"] == MetricRecord({"num_examples": 1})
    assert dict(content.array_records["fitres.parameters"]) == {}
    assert set(answer(content)) == {"masked_params"}
    # The weight, coefficients, intercepts, and the tail with the metrics.
    assert shapes(content) == [(1,), (10, 64), (10,), (3,)]


def test_a_site_that_reports_nothing_masks_no_metrics(federation: Federation) -> None:
    federation.share_keys(max_weight=1.0)
    changes: dict[str, Any] = {flower.REPORT: False, flower.CLIPPING_NORM: 1.0}
    content = federation.collect(1, more=fit_ins(**changes))
    assert shapes(content) == [(1,), (10, 64), (10,), (1,)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sample_num": 2, "share_num": 2}, "3 sites or more"),
        ({"share_num": 2}, "2 shares do not fit"),
        ({"share_num": 4}, "4 shares do not fit"),
        ({"threshold": 1}, "more than half"),
        ({"sample_num": 4, "share_num": 4, "threshold": 2}, "more than half"),
        ({"threshold": 4}, "more than half"),
        ({"threshold": -2}, "more than half"),
        ({"mod_range": 1 << 8}, "modulo"),
        ({"target_range": 2}, "too few"),
        ({"target_range": 1 << 31}, "overflow"),
        ({"clipping_range": 0.0}, "clipping_range"),
        ({"clipping_range": float("inf")}, "clipping_range"),
        ({"clipping_range": 8}, "clipping_range"),
        ({"max_weight": float("nan")}, "max_weight"),
        ({"threshold": 2.0}, "threshold is no integer"),
        ({"sample_num": True}, "sample_num is no integer"),
    ],
)
def test_parameters_that_protect_nothing_are_refused(
    federation: Federation, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(CloisterError, match=reason):
        federation.set_up(**changes)


@pytest.mark.parametrize("missing", sorted(SETUP))
def test_parameters_that_are_missing_are_refused(federation: Federation, missing: str) -> None:
    with pytest.raises(CloisterError, match=missing):
        federation.ask(1, "setup", {key: SETUP[key] for key in SETUP if key != missing})


def test_keys_of_fewer_sites_than_the_threshold_are_refused(federation: Federation) -> None:
    federation.set_up()
    with pytest.raises(CloisterError, match="keys of 1 sites came, and 2 to 3 are needed"):
        federation.ask(1, "share_keys", {"1": federation.keys[1]})


def test_a_site_that_is_named_twice_counts_once(federation: Federation) -> None:
    federation.set_up()
    keys = {"1": federation.keys[1], "01": federation.keys[2]}
    with pytest.raises(CloisterError, match="keys of 1 sites came"):
        federation.ask(1, "share_keys", keys)


def test_keys_of_more_sites_than_there_are_shares_are_refused(federation: Federation) -> None:
    federation.set_up()
    keys = {str(node): federation.keys[1 + node % 3] for node in range(1, 5)}
    with pytest.raises(CloisterError, match="keys of 4 sites came, and 2 to 3 are needed"):
        federation.ask(1, "share_keys", keys)


@pytest.mark.parametrize("sources", [[2, 2], [2, 9], [2, 1]])
def test_shares_that_come_twice_or_from_nowhere_are_refused(
    federation: Federation, sources: list[int]
) -> None:
    federation.share_keys()
    with pytest.raises(CloisterError, match="once each"):
        federation.collect(1, srcs=sources)


@pytest.mark.parametrize(
    ("active", "dead", "reason"),
    [
        # Both shares of one site: its own mask and those it has with others.
        ([1, 2, 3], [3], "either active or gone"),
        ([1, 2, 2], [3], "either active or gone"),
        ([1, 2], [3, 3], "either active or gone"),
        # Not what this site masked its update with: the sum would not be what it took part in.
        ([1, 2], [], "not those"),
        ([1, 2, 3, 4], [], "not those"),
        ([2, 3], [1], "must be among the active"),
        ([1], [2, 3], "1 sites are left, and 2 are needed"),
    ],
)
def test_a_request_to_unmask_what_is_no_sum_is_refused(
    federation: Federation, active: list[int], dead: list[int], reason: str
) -> None:
    federation.share_keys()
    for node in NODES:
        federation.collect(node)
    with pytest.raises(CloisterError, match=reason):
        federation.unmask(1, active, dead)


def test_shares_are_given_once_and_secrets_are_forgotten(federation: Federation) -> None:
    federation.share_keys()
    for node in NODES:
        federation.collect(node)
    assert STATE in federation.contexts[1].state
    assert len(federation.unmask(1, [1, 2], [3])["shares"]) == 3
    assert dict(federation.contexts[1].state) == {}
    with pytest.raises(CloisterError, match="begins with its setup stage"):
        federation.unmask(1, [1, 3], [2])


def test_an_update_is_masked_once(federation: Federation) -> None:
    """Of two masked with the same masks, the difference would be in the clear."""
    federation.share_keys()
    federation.collect(1)
    with pytest.raises(ValueError, match="expect unmask stage"):
        federation.collect(1)


@pytest.mark.parametrize("kind", ["train.other", "evaluate", "query"])
def test_a_message_of_another_type_does_not_pass_unmasked(
    federation: Federation, kind: str
) -> None:
    federation.share_keys()
    with pytest.raises(CloisterError, match="type train only"):
        federation.ask(1, COLLECT, federation.for_node(1), kind=kind, more=fit_ins())


def test_an_update_is_asked_for_after_the_other_stages_only(federation: Federation) -> None:
    with pytest.raises(CloisterError, match="begins with its setup stage"):
        federation.ask(1, COLLECT, {"srcs": [], "ctxts": []}, more=fit_ins())
    federation.set_up()
    with pytest.raises(ValueError, match="expect share_keys stage"):
        federation.ask(1, COLLECT, {"srcs": [], "ctxts": []}, more=fit_ins())


def test_more_rows_than_the_run_is_for_are_refused(federation: Federation) -> None:
    federation.share_keys(max_weight=269.0)
    with pytest.raises(CloisterError, match="CLOISTER_MAX_EXAMPLES at the trainer above 269"):
        federation.collect(1)


def test_a_value_beyond_the_range_is_refused_and_not_told(federation: Federation) -> None:
    federation.share_keys(clipping_range=0.01)
    with pytest.raises(CloisterError, match="CLOISTER_SECAGG_CLIPPING_RANGE") as refused:
        federation.collect(1)
    assert str(refused.value).endswith("above 0.01")


def test_the_sums_of_inputs_are_masked_and_nothing_else_is_sent(federation: Federation) -> None:
    federation.share_keys(max_weight=1.0)
    asked = fit_ins(flower.TASK_MOMENTS, **{flower.MAX_EXAMPLES: 270})
    content = federation.collect(1, more=asked)
    assert content.metric_records["fitres.num_examples"] == MetricRecord({"num_examples": 1})
    assert set(answer(content)) == {"masked_params"}
    # The weight; the number of rows, sums and sums of squares, in two parts; and the tail.
    assert shapes(content) == [(1,), (2, 129), (1,)]


def test_sums_of_inputs_of_more_rows_than_the_run_is_for_are_refused(
    federation: Federation,
) -> None:
    federation.share_keys(max_weight=1.0)
    asked = fit_ins(flower.TASK_MOMENTS, **{flower.MAX_EXAMPLES: 269})
    with pytest.raises(CloisterError, match="CLOISTER_MAX_EXAMPLES at the trainer above 269"):
        federation.collect(1, more=asked)


@pytest.mark.parametrize("task_name", ["guess", flower.TASK_EVALUATE, flower.TASK_MOMENTS])
def test_a_task_that_is_none_or_would_report_is_refused(
    federation: Federation, task_name: str
) -> None:
    federation.share_keys()
    report = task_name == "guess"
    asked = fit_ins(task_name, **{flower.REPORT: report, flower.MAX_EXAMPLES: 1000})
    with pytest.raises(CloisterError, match="task is none" if report else "its own log says why"):
        federation.collect(1, more=asked)
