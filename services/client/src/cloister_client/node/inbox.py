"""Answering the messages that come for this site, one at a time."""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from cloister_client.node.bundle import ForeignBundleError, check_bundle, check_digest
from cloister_client.node.clientapp import (
    NO_STATE,
    AppFailedError,
    State,
    Task,
    from_result,
    to_job,
)
from cloister_client.node.envelope import Envelope, seal
from cloister_client.node.fleet import FailedRequestError, Fleet, Pulled, RunOverError
from cloister_client.node.worker import Worker, WorkerGoneError, WorkFailedError
from cloister_client.site import NodeConfig
from cloister_shared.logs import about

RUNS_KEPT = 4
"""Runs of which the state is kept: more are not at work at the same time."""
SHORTEST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 3.0
PAUSE_SHARE = 0.2
"""Of the time since the last message, the pause before asking again: what waiting costs stays
small beside what a round takes, and many nodes do not ask a SuperLink to death."""
SURE_SHARE = 0.5
"""Of the shortest of the last times from an answer to the next message: before that much has
passed, no message is expected."""
GAPS_KEPT = 4
"""Secure aggregation sends as many messages a round, with times between them that differ much."""
FORGET_SECONDS = 60.0
"""Without a message; then the SuperLink is asked whether the runs go on."""
REASON_LENGTH = 1000

log = logging.getLogger(__name__)


@dataclass
class _Run:
    refusal: str | None
    """Why no message of this run is answered with anything else."""
    state: State = NO_STATE


class Inbox:
    """Answers messages.

    A message of a run whose bundle is not this image's own is answered with an error, and so is
    one on which the worker fails; nothing that a run can send ends the node.
    """

    def __init__(
        self,
        fleet: Fleet,
        worker: Worker,
        node_config: NodeConfig,
        message_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare.

        Args:
            fleet: the connection.
            worker: does the work of ``clientapp.work_of``.
            node_config: what the ClientApp is told of this site.
            message_seconds: longest time for the work on one message.
            clock: seconds, monotonic.
        """
        self._fleet = fleet
        self._worker = worker
        self._node_config = node_config
        self._message_seconds = message_seconds
        self._clock = clock
        self._runs: OrderedDict[int, _Run] = OrderedDict()
        self._answered = False
        self._gaps: deque[float] = deque(maxlen=GAPS_KEPT)
        self._last_message = self._last_check = clock()

    def step(self) -> float:
        """Answer the next message, if there is one.

        Returns:
            Seconds to wait before the next step.

        Raises:
            RefusedError: the SuperLink does not know this node any more.
            FailedRequestError: it refuses to say whether there is a message.
            WorkerGoneError: the worker has ended.
        """
        began = self._clock()
        pulled = self._fleet.pull()
        if pulled is not None:
            if self._answered:
                self._gaps.append(began - self._last_message)
            self._answered = True
            run_id = pulled.message.metadata.run_id
            with about(run_id=run_id):
                self._answer_or_leave(pulled, run_id, began)
            self._last_message = self._last_check = self._clock()
        elif self._runs and self._clock() - self._last_check >= FORGET_SECONDS:
            self._forget_ended()
            self._last_check = self._clock()
        return min(max(self._pause(), SHORTEST_PAUSE_SECONDS), LONGEST_PAUSE_SECONDS)

    def _answer_or_leave(self, pulled: Pulled, run_id: int, began: float) -> None:
        try:
            self._answer(pulled, began)
        except RunOverError:
            log.info("run %d is over; its message is left", run_id)
            self._runs.pop(run_id, None)
        except FailedRequestError as error:
            log.warning("run %d: no answer: %s", run_id, error)

    def _pause(self) -> float:
        idle = self._clock() - self._last_message
        sure = SURE_SHARE * min(self._gaps, default=0.0) - idle
        return max(sure, PAUSE_SHARE * idle)

    def _answer(self, pulled: Pulled, began: float) -> None:
        metadata = pulled.message.metadata
        run = self._run(metadata.run_id)
        if run.refusal is not None:
            log.warning("run %d: a message is refused: %s", metadata.run_id, run.refusal)
            self._fleet.confirm(pulled)
            self._fleet.push(_error(pulled, ErrorCode.INVALID_FAB, run.refusal), 0.0)
            return
        objects = self._fleet.objects(pulled)
        self._fleet.confirm(pulled)
        received = self._clock()
        reply = self._work(pulled, run, objects)
        worked = self._clock()
        self._fleet.push(reply, worked - received)
        log.info(
            "run %d: %s message answered%s: received in %.3f s, worked %.3f s, sent in %.3f s",
            metadata.run_id,
            metadata.message_type,
            " with an error" if reply.header.HasField("error") else "",
            received - began,
            worked - received,
            self._clock() - worked,
        )

    def _run(self, run_id: int) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            run = self._runs[run_id] = _Run(self._refusal(run_id))
            while len(self._runs) > RUNS_KEPT:
                self._runs.popitem(last=False)
        self._runs.move_to_end(run_id)
        return run

    def _refusal(self, run_id: int) -> str | None:
        try:
            digest = self._fleet.bundle_digest(run_id)
            check_digest(digest)
            check_bundle(self._fleet.bundle(run_id, digest))
        except ForeignBundleError as error:
            return str(error)
        return None

    def _work(self, pulled: Pulled, run: _Run, objects: dict[str, bytes]) -> Envelope:
        task = Task(
            run_id=pulled.message.metadata.run_id,
            node_id=self._fleet.node_id,
            message_id=pulled.tree.object_id,
            objects=objects,
            state=run.state,
            node_config=self._node_config,
        )
        try:
            reply, run.state = from_result(self._worker.run(to_job(task), self._message_seconds))
        except AppFailedError as error:
            return _error(pulled, ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error))
        except WorkFailedError as error:
            log.warning("run %d: the work on a message failed: %s", task.run_id, error)
            return _crash(pulled)
        except WorkerGoneError:
            self._fleet.push(_crash(pulled), 0.0)
            raise
        return reply

    def _forget_ended(self) -> None:
        """Forget the runs that are over, and with them what their ClientApp kept."""
        for run_id in list(self._runs):
            try:
                self._fleet.bundle_digest(run_id)
            except (RunOverError, FailedRequestError):
                log.info("run %d is over", run_id, extra={"run_id": run_id})
                del self._runs[run_id]


def _crash(pulled: Pulled) -> Envelope:
    # How it failed depends on the rows, and under differential privacy nothing may tell of them.
    reason = "the work on the message failed; the site's own log says why"
    return _error(pulled, ErrorCode.CLIENT_APP_CRASHED, reason)


def _error(pulled: Pulled, code: int, reason: str) -> Envelope:
    return seal(Message(Error(code, reason[:REASON_LENGTH]), reply_to=pulled.message))
