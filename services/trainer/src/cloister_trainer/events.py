"""The course of a training as JSON lines, for people and programs to follow."""

import fcntl
import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


class EventLog:
    """Appends events of one training to a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, event: str, **fields: Any) -> None:
        """Append one event with the time and the given fields; it is on disk at once."""
        line = json.dumps({"time": datetime.now(UTC).isoformat(), "event": event, **fields})
        with self._path.open("a") as stream:
            stream.write(line + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Return all events written so far, without one that is just being written."""
        if not self._path.is_file():
            return []
        return [json.loads(line) for line in self._path.read_text().split("\n")[:-1]]

    def hold(self) -> int:
        """Be the one that writes, which ``has_writer`` tells to others.

        Returns:
            The file descriptor that does it until it is closed, as the end of the process does,
            however it ends.
        """
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return descriptor

    def has_writer(self) -> bool:
        """Return whether a process that holds it is alive."""
        with self._path.open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


class EventHandler(logging.Handler):
    """Writes log records as events.

    Flower keeps what a ServerApp prints to itself; this way the trainer can tell it.
    """

    def __init__(self, events: EventLog) -> None:
        super().__init__(logging.INFO)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        self._events.write("log", level=record.levelno, message=record.getMessage())


def run_events(events_dir: Path, run_id: int) -> EventLog:
    """Return the event log of a Flower run."""
    return EventLog(events_dir / f"run-{run_id}.jsonl")
