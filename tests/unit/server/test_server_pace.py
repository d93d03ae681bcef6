"""What is done now and then, whoever asks for it how often."""

import threading
from typing import Any

import pytest
from flwr.supercore.corestate import sql_corestate

from cloister_server.pace import at_most_every


def test_it_is_done_at_once_and_then_after_so_long() -> None:
    times = iter([10.0, 10.5, 10.99, 11.0, 11.5, 30.0])
    done: list[Any] = []
    method = at_most_every(1.0, done.append, lambda: next(times))
    for owner in "abcdef":
        method(owner)
    assert done == ["a", "d", "f"]


def test_what_fails_is_told_and_tried_again_later() -> None:
    times = iter([0.0, 0.5, 1.0])

    def fail(_owner: Any) -> None:
        raise ValueError("locked")

    method = at_most_every(1.0, fail, lambda: next(times))
    with pytest.raises(ValueError, match="locked"):
        method(None)
    method(None)
    with pytest.raises(ValueError, match="locked"):
        method(None)


def test_of_many_threads_one_does_it() -> None:
    done: list[Any] = []
    method = at_most_every(3600, done.append)
    threads = [threading.Thread(target=method, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1


def test_flower_has_the_method_that_is_paced() -> None:
    assert callable(sql_corestate.SqlCoreState._cleanup_expired_task_tokens)
