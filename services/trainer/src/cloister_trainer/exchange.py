"""Sending messages to sites, and hearing of their replies soon after they are there."""

import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

import httpx
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from cloister_shared.errors import CloisterError

POLL_SECONDS = 0.2
SITES_PER_POLL = 25
"""Replies that are outstanding for a poll every ``POLL_SECONDS``; with more it is the rarer, since
the SuperLink looks up every one of them."""
RETRY_SECONDS = 1.0
AWAY_SECONDS = 60.0
"""For which a question without a deadline of its own is repeated."""

Result = TypeVar("Result")
OnReplies = Callable[[int, int, float], None]
"""Told how many sites have replied, of how many, and seconds since they were asked."""

log = logging.getLogger(__name__)


def _tell_nobody(_replied: int, _asked: int, _seconds: float) -> None:
    pass


def _is_refusal(error: Exception) -> bool:
    return isinstance(error, httpx.HTTPStatusError) and not error.response.is_server_error


class Exchange(Grid):
    """A grid whose ``send_and_receive`` asks for replies often, and tells of them.

    Flower's own looks every 3 seconds, which alone is most of a fast round. All else is the inner
    grid's. Flower's grid repeats by itself whatever fails because the SuperLink is away, without
    an end; what it does not repeat (an internal error of a SuperLink that is just going down or
    coming up, or that it does not take a part of a message which it has, where its answer was lost)
    is repeated here until the deadline. Sending twice is harmless: the SuperLink knows a message by
    its id.
    """

    def __init__(
        self,
        grid: Grid,
        on_replies: OnReplies = _tell_nobody,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._grid = grid
        self._on_replies = on_replies
        self._clock = clock
        self._sleep = sleep

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Send messages and return the replies, as far as they are there in time.

        Args:
            messages: at most one a site.
            timeout: seconds; None waits without an end.

        Returns:
            Replies, with an error in the place of one to a message that the SuperLink refused, as
            it does for a site that it no longer knows.

        Raises:
            CloisterError: the messages are too large.
            httpx.HTTPError: the SuperLink refuses, or does not answer until the deadline.
            ObjectPushError: it does not take a part of a message until then.
        """
        began = self._clock()
        deadline = None if timeout is None else began + timeout
        sent = list(messages)
        if not sent:
            return []
        accepted = list(self._persist(partial(self._grid.push_messages, sent), deadline))
        if len(accepted) != len(sent):
            # So Flower's grid says it, beside a line in its log.
            raise CloisterError(f"the SuperLink takes no {len(sent)} messages at once: too large")
        replies = [
            Message(
                Error(ErrorCode.NODE_UNAVAILABLE, "the SuperLink does not know the site"),
                reply_to=message,
            )
            for message, message_id in zip(sent, accepted, strict=True)
            if not message_id
        ]
        missing = {message_id for message_id in accepted if message_id}
        while missing:
            pulled = self._persist(partial(self._pull, frozenset(missing)), deadline)
            replies += pulled
            missing -= {reply.metadata.reply_to_message_id for reply in pulled}
            now = self._clock()
            self._on_replies(len(replies), len(sent), now - began)
            if deadline is not None and now >= deadline:
                break
            if missing:
                pause = POLL_SECONDS * max(1.0, len(missing) / SITES_PER_POLL)
                self._sleep(pause if deadline is None else min(pause, deadline - now))
        return replies

    def _pull(self, message_ids: Iterable[str]) -> list[Message]:
        return list(self._grid.pull_messages(message_ids))

    def _persist(self, call: Callable[[], Result], deadline: float | None) -> Result:
        while True:
            try:
                return call()
            except (httpx.HTTPError, ObjectPushError) as error:
                over = deadline is not None and self._clock() + RETRY_SECONDS >= deadline
                if over or _is_refusal(error):
                    raise
                log.warning("the SuperLink does not answer as it should: %s; asking again", error)
            self._sleep(RETRY_SECONDS)

    def get_node_ids(self) -> list[int]:
        """Return the ids of the sites that are online."""
        deadline = self._clock() + AWAY_SECONDS
        return list(self._persist(self._grid.get_node_ids, deadline))

    # All else is the inner grid's.

    def set_run(self, run: Any) -> None:
        """Set the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """The run."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        return self._grid.pull_messages(message_ids)
