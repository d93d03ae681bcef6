"""Waiting for sites, by a clock that stands still unless one sleeps."""

from collections.abc import Callable

import pytest

from cloister_shared.errors import CloisterError
from cloister_trainer.sites import POLL_SECONDS, wait_for_sites


class Waiting:
    """Sites that come (and go) at given seconds."""

    def __init__(self, online: Callable[[float], set[int]]) -> None:
        self.now = 500.0
        self.begun = self.now
        self.online = online

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds

    @property
    def waited(self) -> float:
        return self.now - self.begun

    def run(self, minimum: int = 2, deadline: float = 60.0, settle: float = 0.0) -> list[int]:
        return wait_for_sites(
            lambda: self.online(self.waited),
            expected=3,
            minimum=minimum,
            deadline=deadline,
            settle=settle,
            clock=lambda: self.now,
            sleep=self.sleep,
        )


def come(*seconds: float) -> Waiting:
    """Site n comes at the n-th of these seconds."""
    return Waiting(lambda now: {n for n, second in enumerate(seconds, 1) if now >= second})


def test_it_begins_at_once_when_all_are_there() -> None:
    waiting = come(0, 0, 0)
    assert waiting.run() == [1, 2, 3]
    assert waiting.waited == 0


def test_it_waits_for_the_last_expected_one() -> None:
    waiting = come(0, 7, 20)
    assert waiting.run() == [1, 2, 3]
    assert 20 <= waiting.waited <= 20 + POLL_SECONDS


def test_settling_lets_further_ones_in() -> None:
    waiting = come(0, 0, 1, 4, 8)
    assert waiting.run(settle=5) == [1, 2, 3, 4, 5]
    assert 13 <= waiting.waited <= 13 + 2 * POLL_SECONDS
    assert come(0, 0, 1, 4, 8).run(settle=2) == [1, 2, 3]


def test_newcomers_do_not_put_off_the_deadline() -> None:
    waiting = come(*range(100))
    assert len(waiting.run(settle=5, deadline=30)) >= 30
    assert waiting.waited <= 30 + POLL_SECONDS


def test_at_the_deadline_it_goes_on_with_enough_and_says_how_many_are_absent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    waiting = come(0, 10)
    assert waiting.run(minimum=2, deadline=60) == [1, 2]
    assert 60 <= waiting.waited <= 60 + POLL_SECONDS
    assert "1 of 3 sites are absent; going on with 2" in caplog.text


def test_at_the_deadline_with_too_few_it_names_the_settings() -> None:
    waiting = come(0, 61)
    with pytest.raises(CloisterError, match=r"only 1 of 3 sites came within 60 s, and 2") as few:
        waiting.run(minimum=2, deadline=60)
    for setting in ("CLOISTER_START_DEADLINE", "CLOISTER_CLIENTS", "CLOISTER_MIN_REPLIES"):
        assert setting in str(few.value)


def test_sites_that_have_gone_again_do_not_count() -> None:
    waiting = Waiting(lambda now: {1, 2} if now < 30 else {1})
    with pytest.raises(CloisterError, match="only 1 of 3"):
        waiting.run(minimum=2, deadline=60)
