"""Following a ServerApp by its events."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloister_trainer import following
from cloister_trainer.events import EventLog, run_events
from cloister_trainer.following import ServerAppDiedError, follow
from cloister_trainer.runs import FlowerRuns

RUN = 7

Acting = Callable[[int], None]


@pytest.fixture
def superexec() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.fixture
def on_read(monkeypatch: pytest.MonkeyPatch) -> Callable[[Acting], None]:
    """Do something just before events are read: after it was looked whether the ServerApp lives."""

    def install(act: Acting) -> None:
        reads = iter(range(1000))
        read = EventLog.read

        def acting(events: EventLog) -> list[dict[str, Any]]:
            act(next(reads))
            return read(events)

        monkeypatch.setattr(following, "POLL_SECONDS", 0)
        monkeypatch.setattr(EventLog, "read", acting)

    return install


def test_a_serverapp_that_starts_while_it_is_looked_for_is_alive(
    make_settings: Any,
    superexec: "subprocess.Popen[bytes]",
    on_read: Callable[[Acting], None],
    tmp_path: Path,
) -> None:
    settings = make_settings(start_deadline=60)
    events = run_events(settings.events_dir, RUN)
    held: list[int] = []

    def act(read: int) -> None:
        if read == 1:
            held.append(events.hold())
            events.write("started", sites=3, rounds=1)
        if read == 3:
            events.write("published", version=1)
            os.close(held.pop())

    on_read(act)
    seen: list[str] = []
    runs = FlowerRuns("sl:8000", tmp_path / "work")
    follow(settings, runs, RUN, superexec, lambda event: seen.append(event["event"]))
    assert seen == ["started", "published"]


def test_a_serverapp_that_ends_without_a_word_was_killed(
    make_settings: Any,
    superexec: "subprocess.Popen[bytes]",
    on_read: Callable[[Acting], None],
    tmp_path: Path,
) -> None:
    settings = make_settings(start_deadline=60)
    events = run_events(settings.events_dir, RUN)
    held = [events.hold()]
    events.write("started", sites=3, rounds=1)
    on_read(lambda read: os.close(held.pop()) if read == 3 else None)
    runs = FlowerRuns("sl:8000", tmp_path / "work")
    with pytest.raises(ServerAppDiedError):
        follow(settings, runs, RUN, superexec, lambda _event: None)
