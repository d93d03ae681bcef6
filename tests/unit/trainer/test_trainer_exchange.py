"""Messages and replies, by a clock that stands still unless one sleeps."""

from collections.abc import Callable, Iterable

import httpx
import pytest
from federation import LocalGrid
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from cloister_shared.errors import CloisterError
from cloister_trainer.exchange import POLL_SECONDS, Exchange


class Timed(LocalGrid):
    """Sites 1 to n, of which each replies some seconds after it was asked."""

    def __init__(self, *seconds: float) -> None:
        super().__init__(dict.fromkeys(range(1, len(seconds) + 1), self._echo))
        self.seconds = seconds
        self.now = 500.0
        self.pulls: list[float] = []
        self.told: list[tuple[int, int, float]] = []
        self.pushing: list[Exception] = []
        self.pulling: list[Exception] = []
        self.unknown: set[int] = set()

    @staticmethod
    def _echo(message: Message) -> Message:
        return Message(RecordDict(), reply_to=message)

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        if self.pushing:
            raise self.pushing.pop(0)
        asked = list(messages)
        self.due = {m.metadata.dst_node_id: self.now + self.seconds[i] for i, m in enumerate(asked)}
        return [
            "" if message.metadata.dst_node_id in self.unknown else message_id
            for message, message_id in zip(asked, super().push_messages(asked), strict=True)
        ]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        self.pulls.append(self.now)
        if self.pulling:
            raise self.pulling.pop(0)
        nodes = {m.metadata.message_id: m.metadata.dst_node_id for m in self.sent}
        return super().pull_messages(
            [one for one in message_ids if self.due[nodes[one]] <= self.now + 1e-9]
        )

    def exchange(self, timeout: float | None = 60.0) -> list[int]:
        """Ask every site, and return those that replied without an error."""
        exchange = Exchange(
            self,
            lambda *told: self.told.append(told),
            clock=lambda: self.now,
            sleep=self.sleep,
        )
        messages = [
            Message(RecordDict(), dst_node_id=node, message_type="train") for node in self.sites
        ]
        self.replies = exchange.send_and_receive(messages, timeout=timeout)
        return sorted(reply.metadata.src_node_id for reply in self.replies if not reply.has_error())


def test_it_ends_soon_after_the_last_reply() -> None:
    grid = Timed(1.0, 3.05, 2.0)
    assert grid.exchange() == [1, 2, 3]
    assert 503.05 <= grid.now <= 503.05 + POLL_SECONDS


@pytest.mark.parametrize("timeout", [10.0, None])
def test_it_tells_how_many_have_replied(timeout: float | None) -> None:
    grid = Timed(1.0, 3.0, 2.0)
    grid.exchange(timeout)
    first = {replied: seconds for replied, _, seconds in reversed(grid.told)}
    assert {replied: round(seconds) for replied, seconds in first.items()} == {
        0: 0,
        1: 1,
        2: 2,
        3: 3,
    }
    assert {asked for _, asked, _ in grid.told} == {3}


def test_what_is_missing_at_the_deadline_is_left_out() -> None:
    grid = Timed(1.0, 61.0, 60.0)
    assert grid.exchange() == [1, 3]
    assert grid.now == pytest.approx(560.0)


def test_with_many_outstanding_it_asks_more_seldom() -> None:
    def pulls(sites: int) -> int:
        grid = Timed(*[10.0] * sites)
        assert len(grid.exchange()) == sites
        return len(grid.pulls)

    assert pulls(10) == pulls(1)
    assert pulls(100) < pulls(10) / 3


def test_without_messages_nobody_is_asked() -> None:
    grid = Timed()
    assert grid.exchange() == []
    assert grid.pulls == []


def test_a_message_that_is_refused_is_an_error_of_its_site() -> None:
    grid = Timed(1.0, 1.0, 1.0)
    grid.unknown = {2}
    assert grid.exchange() == [1, 3]
    (error,) = [reply for reply in grid.replies if reply.has_error()]
    assert error.metadata.src_node_id == 2
    assert "does not know" in str(error.error.reason)


def status(code: int) -> Exception:
    request = httpx.Request("POST", "http://superlink")
    return httpx.HTTPStatusError(str(code), request=request, response=httpx.Response(code))


def internal() -> Exception:
    return status(500)


@pytest.mark.parametrize("error", [internal, lambda: httpx.ConnectError("refused")])
def test_a_superlink_that_is_away_for_a_while_loses_nothing(
    error: Callable[[], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    grid = Timed(1.0, 2.0)
    grid.pushing = [error() for _ in range(5)]
    grid.pulling = [error() for _ in range(20)]
    assert grid.exchange() == [1, 2]
    assert "asking again" in caplog.text


def test_messages_of_which_a_part_is_not_taken_begin_anew() -> None:
    # It was stored by a SuperLink that was killed before it could say so.
    grid = Timed(1.0, 2.0)
    grid.pushing = [ObjectPushError("part", 1, "session")]
    assert grid.exchange() == [1, 2]
    assert grid.pushing == []


def test_one_that_stays_away_ends_it_at_the_deadline() -> None:
    grid = Timed(1.0)
    grid.pulling = [internal() for _ in range(1000)]
    with pytest.raises(httpx.HTTPStatusError):
        grid.exchange()
    assert 555 <= grid.now <= 560


def test_what_the_superlink_refuses_is_not_repeated() -> None:
    grid = Timed(1.0)
    grid.pushing = [status(400)]
    with pytest.raises(httpx.HTTPStatusError, match="400"):
        grid.exchange()
    assert grid.now == 500.0


def test_messages_that_are_too_large_fail_with_the_reason() -> None:
    grid = Timed(1.0, 1.0)
    grid.push_messages = lambda _: []  # type: ignore[assignment, method-assign]
    with pytest.raises(CloisterError, match="2 messages at once: too large"):
        grid.exchange()


def test_who_is_online_is_asked_again_while_the_superlink_is_away() -> None:
    grid = Timed(0.0, 0.0)
    away: list[Exception] = [internal() for _ in range(20)]

    def online() -> Iterable[int]:
        if away:
            raise away.pop(0)
        return {1, 2}

    grid.get_node_ids = online  # type: ignore[method-assign]
    exchange = Exchange(grid, clock=lambda: grid.now, sleep=grid.sleep)
    assert exchange.get_node_ids() == [1, 2]
    away += [internal() for _ in range(200)]
    with pytest.raises(httpx.HTTPStatusError):
        exchange.get_node_ids()
    assert grid.now < 600
