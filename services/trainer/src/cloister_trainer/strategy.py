"""Federated averaging that fails rather than go on with what did not train."""

import logging
import sys
import time
from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from cloister_shared import flower
from cloister_shared.card import FinalMetrics, RoundMetrics
from cloister_shared.errors import CloisterError
from cloister_shared.schema import DatasetSchema
from cloister_shared.weights import LinearWeights
from cloister_trainer.records import to_weights

METRICS = {flower.EXAMPLES, flower.VALIDATION_EXAMPLES, flower.ACCURACY, flower.LOSS}
"""What a site measures."""

log = logging.getLogger(__name__)


class QuorumFedAvg(FedAvg):
    """FedAvg over all sites that are online, with a quorum of valid replies in every round.

    Flower's own ends a run in which every site failed as completed, with the weights it began
    with; here such a round raises. A reply is valid if it carries no error, its arrays have the
    model's shapes and finite values, and its metrics are there and can be true.

    Attributes:
        rounds: metrics of every round so far.
    """

    def __init__(
        self,
        data: DatasetSchema,
        quorum: int,
        await_sites: Callable[[], list[int]],
        on_round: Callable[[RoundMetrics], None],
    ) -> None:
        super().__init__(
            fraction_evaluate=0.0,
            weighted_by_key=flower.EXAMPLES,
            arrayrecord_key=flower.ARRAYS,
            configrecord_key=flower.CONFIG,
            train_metrics_aggr_fn=weighted_metrics,
        )
        self.rounds: list[RoundMetrics] = []
        self._data = data
        self._quorum = quorum
        self._await_sites = await_sites
        self._on_round = on_round
        self._asked = 0
        self._began = 0.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every site that is online; wait for the quorum if fewer are."""
        self._began = time.monotonic()
        nodes = list(grid.get_node_ids())
        if len(nodes) < self._quorum:
            nodes = self._await_sites()
        self._asked = len(nodes)
        log.info("round %d: asking %d sites", server_round, self._asked)
        config["server-round"] = server_round
        record = RecordDict({flower.ARRAYS: arrays, flower.CONFIG: config})
        return self._construct_messages(record, nodes, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the valid replies, weighted by their rows.

        Raises:
            CloisterError: there are fewer valid ones than the quorum.
        """
        received = list(replies)
        valid = valid_replies(received, self._data, with_arrays=True)
        if len(valid) < self._quorum:
            raise CloisterError(
                f"round {server_round} has {len(valid)} valid replies of {self._asked}, and "
                f"{self._quorum} are needed{first_reason(received, self._data, with_arrays=True)}"
            )
        arrays, metrics = super().aggregate_train(server_round, valid)
        assert metrics is not None  # noqa: S101 - there are valid replies
        measured = RoundMetrics(
            round=server_round,
            sites=len(valid),
            # A site that has not replied in time is among those asked, and sends no error.
            failures=self._asked - len(valid),
            examples=int(sum(cast("int", _metrics(reply)[flower.EXAMPLES]) for reply in valid)),
            accuracy=cast("float", metrics[flower.ACCURACY]),
            loss=cast("float", metrics[flower.LOSS]),
            seconds=time.monotonic() - self._began,
        )
        self.rounds.append(measured)
        self._on_round(measured)
        return arrays, metrics


def final_metrics(replies: Iterable[Message], data: DatasetSchema, quorum: int) -> FinalMetrics:
    """Return the metrics of the final model from the replies to the evaluate-only message.

    Raises:
        CloisterError: there are fewer valid replies than the quorum.
    """
    received = list(replies)
    valid = valid_replies(received, data, with_arrays=False)
    if len(valid) < quorum:
        raise CloisterError(
            f"the final evaluation has {len(valid)} valid replies of {len(received)}, and "
            f"{quorum} are needed{first_reason(received, data, with_arrays=False)}"
        )
    metrics = weighted_metrics([reply.content for reply in valid], flower.VALIDATION_EXAMPLES)
    return FinalMetrics(
        sites=len(valid),
        accuracy=cast("float", metrics[flower.ACCURACY]),
        loss=cast("float", metrics[flower.LOSS]),
    )


def weighted_metrics(contents: list[RecordDict], _weighted_by: str) -> MetricRecord:
    """Average accuracy and loss over sites, weighted by the rows each measured on."""
    records = [content.metric_records[flower.METRICS] for content in contents]
    weights = [cast("int", record[flower.VALIDATION_EXAMPLES]) for record in records]
    return MetricRecord(
        {
            key: float(np.average([cast("float", r[key]) for r in records], weights=weights))
            for key in (flower.ACCURACY, flower.LOSS)
        }
    )


def valid_replies(
    replies: Iterable[Message], data: DatasetSchema, *, with_arrays: bool
) -> list[Message]:
    """Return the replies that can be used, and log why the others cannot."""
    valid = []
    for reply in replies:
        reason = _reason_against(reply, data, with_arrays=with_arrays)
        if reason is None:
            valid.append(reply)
        else:
            log.warning("site %d: no valid reply: %s", reply.metadata.src_node_id, reason)
    return valid


def first_reason(replies: Iterable[Message], data: DatasetSchema, *, with_arrays: bool) -> str:
    """Return why the first invalid reply is invalid, to end a sentence with."""
    reasons = (_reason_against(reply, data, with_arrays=with_arrays) for reply in replies)
    first = next((reason for reason in reasons if reason is not None), None)
    return f"; the first reason: {first}" if first else ""


def _reason_against(reply: Message, data: DatasetSchema, *, with_arrays: bool) -> str | None:
    if reply.has_error():
        return reply.error.reason or f"error {reply.error.code}"
    try:
        if with_arrays:
            _check_arrays(reply.content, data)
        _check_metrics(reply.content)
    except Exception as error:  # noqa: BLE001 - a site can send anything, and fails alone
        return str(error) or type(error).__name__
    return None


def _check_arrays(content: RecordDict, data: DatasetSchema) -> None:
    # Flower averages whatever is there, and gives up where two sites differ in it.
    if set(content.array_records) != {flower.ARRAYS}:
        raise CloisterError(f"its array records are {sorted(content.array_records)}")
    record = content.array_records[flower.ARRAYS]
    if set(record) != {flower.COEF, flower.INTERCEPT}:
        raise CloisterError(f"its arrays are {sorted(record)}")
    weights: LinearWeights = to_weights(record)
    weights.check(data)


def _check_metrics(content: RecordDict) -> None:
    if set(content.metric_records) != {flower.METRICS}:
        raise CloisterError(f"its metric records are {sorted(content.metric_records)}")
    record = content.metric_records[flower.METRICS]
    if set(record) != METRICS:
        raise CloisterError(f"its metrics are {sorted(record)}")
    for key in (flower.EXAMPLES, flower.VALIDATION_EXAMPLES):
        rows = record[key]
        if not isinstance(rows, int) or rows < 1:
            raise CloisterError(f"its {key} is not a number of rows")
    for key, high in ((flower.ACCURACY, 1.0), (flower.LOSS, sys.float_info.max)):
        value = record[key]
        if not isinstance(value, int | float) or not 0 <= value <= high:
            raise CloisterError(f"its {key} is not a number from 0 to {high:g}")


def _metrics(reply: Message) -> MetricRecord:
    return reply.content.metric_records[flower.METRICS]
