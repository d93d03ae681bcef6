"""The plain way of collecting updates: every site's reply as it is."""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from cloister_shared import flower
from cloister_shared.card import FinalMetrics
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator, estimator
from cloister_shared.models import BOOSTED_ARRAYS, LINEAR_ARRAYS, Model, boosted
from cloister_shared.schema import DatasetSchema
from cloister_shared.standardising import Moments
from cloister_shared.trees import Trees
from cloister_trainer.collection import Collected
from cloister_trainer.records import (
    moments_of,
    to_model,
    to_moments,
    to_record,
    to_sums,
    to_weights,
    told_reason,
    told_reasons,
)

LOST = {
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
    ErrorCode.NODE_UNAVAILABLE,
}
"""Errors that the SuperLink makes, and no site."""
POLL_SECONDS = 1.0

OnSites = Callable[[int | None, Sequence[dict[str, Any]]], None]
"""Gets the round, None in the final evaluation, and what each site reported in it: ``site``, the
number of its node as text, and its metrics by their names in ``cloister_shared.flower``."""

log = logging.getLogger(__name__)


class PlainCollection:
    """Asks all sites that are online, with a quorum of valid replies in every round.

    Flower's own strategies end a run in which every site failed as completed, with the weights it
    began with; here such a round raises. A reply is valid if it carries no error, its arrays have
    the right shapes and values that can be, and its metrics are there and can be true.
    """

    def __init__(
        self,
        grid: Grid,
        data: DatasetSchema,
        config: ConfigRecord,
        await_sites: Callable[[], list[int]],
        *,
        quorum: int,
        timeout: float,
        on_sites: OnSites = lambda _round, _sites: None,
    ) -> None:
        """Prepare to collect.

        Args:
            grid: reaches the sites.
            data: the schema of their data.
            config: what they are told, but for the round; ``flower.REPORT`` in it says whether
                they report metrics.
            await_sites: waits for the quorum and returns the sites that are online.
            quorum: valid replies without which a round fails.
            timeout: seconds for which replies are awaited.
            on_sites: called with what single sites reported, where they report anything.
        """
        self._grid = grid
        self._expected = Expected(
            data,
            estimator(cast("str", config[flower.ESTIMATOR])),
            json.loads(cast("str", config[flower.PARAMETERS])),
            bool(config.get(flower.REPORT, True)),
        )
        self._config = config
        self._await_sites = await_sites
        self._quorum = quorum
        self._timeout = timeout
        self._on_sites = on_sites

    def moments(self) -> Moments:
        """Have all sites that are online sum their inputs, and return the total.

        Raises:
            CloisterError: there are fewer valid replies than the quorum.
        """
        asked, received = self._ask(MessageType.QUERY, RecordDict({flower.CONFIG: self._config}))
        found = _sorted_by(received, partial(_check_moments, data=self._expected.data))
        valid = self._require_quorum("the standardisation", asked, found)
        return Moments(np.sum([moments_of(reply).values for reply in valid], axis=0))

    def train(self, server_round: int, model: Model) -> Collected:
        """Have all sites that are online fit; wait for the quorum if fewer are.

        Raises:
            CloisterError: there are fewer valid replies than the quorum.
        """
        config = ConfigRecord({**self._config, flower.ROUND: server_round})
        content = RecordDict({flower.ARRAYS: to_record(model), flower.CONFIG: config})
        asked, received = self._ask(MessageType.TRAIN, content)
        found = sorted_out(received, self._expected, with_arrays=True)
        valid = self._require_quorum(f"round {server_round}", asked, found)
        if not self._expected.reports:
            return Collected(asked, len(valid), valid, None, None)
        self._on_sites(server_round, _by_site(valid))
        examples = sum(cast("int", _metrics(reply)[flower.EXAMPLES]) for reply in valid)
        return Collected(asked, len(valid), valid, examples, self._mean_metrics(valid))

    def evaluate(self, model: Model) -> FinalMetrics | None:
        """Have all sites that are online measure this model.

        Raises:
            CloisterError: there are fewer valid replies than the quorum.
        """
        if not self._expected.reports:
            return None
        content = RecordDict({flower.ARRAYS: to_record(model), flower.CONFIG: self._config})
        asked, received = self._ask(MessageType.EVALUATE, content)
        found = sorted_out(received, self._expected, with_arrays=False)
        valid = self._require_quorum("the final evaluation", asked, found)
        self._on_sites(None, _by_site(valid))
        return FinalMetrics(sites=len(valid), **self._mean_metrics(valid))

    def _require_quorum(
        self, stage: str, asked: int, found: tuple[list[Message], list[str]]
    ) -> list[Message]:
        valid, reasons = found
        if len(valid) < self._quorum:
            raise CloisterError(
                f"{stage} has {len(valid)} valid replies of {asked}, and {self._quorum} are needed"
                f"{told_reasons(reasons)}"
            )
        return valid

    def _ask(self, message_type: str, content: RecordDict) -> tuple[int, list[Message]]:
        """Ask all sites that are online, and return how many that were and their replies.

        A reply that was lost on its way, or a site that went away, is no failure of that site: it
        is asked once more if it is online when the others have replied, and again and again, once
        it is back, where the quorum depends on it. A site that does its work twice comes to the
        same, and no more than one of its replies is received.
        """
        deadline = time.monotonic() + self._timeout
        nodes = list(self._grid.get_node_ids())
        if len(nodes) < self._quorum:
            nodes = self._await_sites()
        asked: set[int] = set()
        repeated: set[int] = set()
        lost: dict[int, Message] = {}
        replies: list[Message] = []
        while nodes:
            asked |= set(nodes)
            sent = [Message(content, dst_node_id=node, message_type=message_type) for node in nodes]
            timeout = max(deadline - time.monotonic(), 0.0)
            received = list(self._grid.send_and_receive(sent, timeout=timeout))
            lost = {site: reply for site, reply in lost.items() if site not in nodes}
            lost |= _lost(received, sent)
            replies += [reply for reply in received if not _is_lost(reply)]
            done = {reply.metadata.src_node_id for reply in replies}
            needed = self._quorum - sum(not reply.has_error() for reply in replies)
            if needed > len(lost) or time.monotonic() >= deadline:
                nodes = []
            elif needed > 0:
                nodes = self._await_back(done, needed, deadline)
            else:
                nodes = self._online(lost.keys() - repeated)
                repeated |= set(nodes)
        # In the order of the sites, not of arrival: sums of floats depend on their order, and a
        # training that is repeated or resumed is to come to the same weights.
        return len(asked), sorted(
            [*replies, *lost.values()], key=lambda one: one.metadata.src_node_id
        )

    def _online(self, lost: set[int]) -> list[int]:
        """Return those of the sites that are online, if there are any."""
        nodes = sorted(lost & set(self._grid.get_node_ids())) if lost else []
        if nodes:
            log.warning("messages to %d sites, or their replies, were lost: once more", len(nodes))
        return nodes

    def _await_back(self, done: set[int], needed: int, deadline: float) -> list[int]:
        """Return sites that are online and not done, once they are as many as needed."""
        log.warning("%d more replies are needed: waiting for sites that went away", needed)
        while time.monotonic() + POLL_SECONDS < deadline:
            time.sleep(POLL_SECONDS)
            nodes = set(self._grid.get_node_ids()) - done
            if len(nodes) >= needed:
                return sorted(nodes)
        return []

    def _mean_metrics(self, replies: list[Message]) -> dict[str, float]:
        """Average what sites measured, weighted by the rows each measured on."""
        records = [_metrics(reply) for reply in replies]
        rows = [cast("int", record[flower.VALIDATION_EXAMPLES]) for record in records]
        return {
            key: float(np.average([cast("float", record[key]) for record in records], weights=rows))
            for key in self._expected.measured
        }


def _is_lost(reply: Message) -> bool:
    return reply.has_error() and reply.error.code in LOST


def _lost(received: Iterable[Message], sent: Iterable[Message]) -> dict[int, Message]:
    """Return the replies that say that a message, or the reply to it, was lost, by its site."""
    # Of a message that it does not know any more, the SuperLink cannot tell whose it was.
    sites = {message.metadata.message_id: message.metadata.dst_node_id for message in sent}
    return {
        sites[reply.metadata.reply_to_message_id]: reply for reply in received if _is_lost(reply)
    }


@dataclass(frozen=True)
class Expected:
    """What replies have to carry."""

    data: DatasetSchema
    """The schema of the sites' data."""
    estimator: Estimator
    """What sites fit: whether they send weights, sums over their rows or trees."""
    parameters: Mapping[str, Any]
    """Of its constructor: how many trees of which depth."""
    reports: bool
    """Whether they carry metrics besides the number of rows, which is 1 otherwise."""

    @property
    def measured(self) -> dict[str, float]:
        """Names of what sites measure, and the largest value of each."""
        largest = 1.0 if self.data.task == "classification" else sys.float_info.max
        return {flower.QUALITY[self.data.task]: largest, flower.LOSS: sys.float_info.max}


def sorted_out(
    replies: Iterable[Message], expected: Expected, *, with_arrays: bool
) -> tuple[list[Message], list[str]]:
    """Return the replies that can be used, and why each of the others cannot, which is logged.

    Args:
        replies: of one round.
        expected: what they have to carry.
        with_arrays: whether that is more than metrics.
    """

    def check(content: RecordDict) -> None:
        if with_arrays:
            _check_arrays(content, expected)
        _check_metrics(content, expected)

    return _sorted_by(replies, check)


def _sorted_by(
    replies: Iterable[Message], check: Callable[[RecordDict], None]
) -> tuple[list[Message], list[str]]:
    valid, reasons = [], []
    for reply in replies:
        reason = _reason_against(reply, check)
        if reason is None:
            valid.append(reply)
        else:
            reasons.append(reason)
            log.warning("site %d: no valid reply: %s", reply.metadata.src_node_id, reason)
    return valid, reasons


def _reason_against(reply: Message, check: Callable[[RecordDict], None]) -> str | None:
    if reply.has_error():
        return told_reason(reply)
    try:
        check(reply.content)
    except Exception as error:  # noqa: BLE001 - a site can send anything, and fails alone
        return str(error) or type(error).__name__
    return None


def _check_moments(content: RecordDict, data: DatasetSchema) -> None:
    to_moments(_only_arrays(content, {flower.MOMENTS})).check(data)


def _check_arrays(content: RecordDict, expected: Expected) -> None:
    match expected.estimator.aggregation:
        case "statistics":
            to_sums(_only_arrays(content, {flower.SUMS})).check(expected.data)
        case "bagging":
            _check_trees(boosted(to_model(_only_arrays(content, BOOSTED_ARRAYS))), expected)
        case _:
            to_weights(_only_arrays(content, LINEAR_ARRAYS)).check(expected.data)


def _check_trees(trees: Trees, expected: Expected) -> None:
    depth = expected.parameters["max_depth"]
    n_trees = expected.parameters["n_estimators"] * expected.data.n_outputs
    # Before anything goes through nodes: there can be as many as a message holds.
    if len(trees.left) > n_trees * (2 ** (depth + 1) - 1):
        raise CloisterError(f"it has more nodes than {n_trees} trees of depth {depth} can have")
    trees.check_form(expected.data)
    if trees.n_trees != n_trees or trees.depth > depth:
        raise CloisterError(
            f"it has {trees.n_trees} trees of depth {trees.depth}, and {n_trees} of up to {depth} "
            "were asked for"
        )


def _only_arrays(content: RecordDict, names: AbstractSet[str]) -> ArrayRecord:
    # Flower averages whatever is there, and gives up where two sites differ in it.
    if set(content.array_records) != {flower.ARRAYS}:
        raise CloisterError(f"its array records are {sorted(content.array_records)}")
    record = content.array_records[flower.ARRAYS]
    if set(record) != names:
        raise CloisterError(f"its arrays are {sorted(record)}")
    return record


def _check_metrics(content: RecordDict, expected: Expected) -> None:
    if set(content.metric_records) != {flower.METRICS}:
        raise CloisterError(f"its metric records are {sorted(content.metric_records)}")
    record = content.metric_records[flower.METRICS]
    counted = {flower.EXAMPLES, flower.VALIDATION_EXAMPLES}
    if set(record) != (counted.union(expected.measured) if expected.reports else {flower.EXAMPLES}):
        raise CloisterError(f"its metrics are {sorted(record)}")
    if not expected.reports:
        if record[flower.EXAMPLES] != 1:
            raise CloisterError(f"its {flower.EXAMPLES} is not 1, as of every site's")
        return
    for key in counted:
        rows = record[key]
        if not isinstance(rows, int) or rows < 1:
            raise CloisterError(f"its {key} is not a number of rows")
    for key, high in expected.measured.items():
        value = record[key]
        if not isinstance(value, int | float) or not 0 <= value <= high:
            raise CloisterError(f"its {key} is not a number from 0 to {high:g}")


def _by_site(replies: Iterable[Message]) -> list[dict[str, Any]]:
    # JavaScript, which reads it in the end, rounds numbers as large as these.
    return [{"site": str(one.metadata.src_node_id), **_metrics(one)} for one in replies]


def _metrics(reply: Message) -> MetricRecord:
    return reply.content.metric_records[flower.METRICS]
