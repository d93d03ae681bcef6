"""Trainings, by the events that the trainer writes."""

import fcntl
import json
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from cloister_console.lines import read_lines
from cloister_shared.errors import CloisterError

READ_BYTES = 256 << 10
"""Of events at a time: a thousand or two."""
LISTED = 200
"""Trainings that are listed, those that were written last."""

_FILE = re.compile(r"run-([0-9]{1,20})\.jsonl")

State = Literal["running", "interrupted", "published", "failed"]


class Summary(BaseModel):
    """One training, in a list."""

    id: str
    """Of its run."""
    state: State
    """Interrupted: nobody writes it any more, and it says neither that it failed nor what it
    published."""
    began: str | None
    """ISO 8601, UTC."""
    model: str | None
    """Name under which it publishes; None: the trainer did not say so."""
    estimator: str | None
    round: int
    """Rounds done."""
    rounds: int | None
    """In all, once it has started."""


class Events(BaseModel):
    """A stretch of the events of one training."""

    events: list[dict[str, Any]]
    """As the trainer wrote them."""
    offset: int
    """Where to go on."""
    more: bool
    """Whether there are events from there on."""
    restarted: bool
    """Whether these are the first ones though others were asked for: the file is a new one."""
    skipped: int
    """Lines that are no events."""
    writing: bool
    """Whether the process that writes them is alive."""


class NoTrainingError(CloisterError):
    """There is no such training, or its events were deleted."""


@dataclass
class _Known:
    """What has been read of a file for the list."""

    inode: int
    offset: int = 0
    """Up to which the file was read."""
    began: str | None = None
    model: str | None = None
    estimator: str | None = None
    round: int = 0
    rounds: int | None = None
    last: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, event: dict[str, Any]) -> None:
        """Take over what an event tells."""
        kind = str(event.get("event"))
        self.began = self.began or _text(event.get("time"))
        match kind:
            case "waiting":
                self.model = _text(event.get("model"))
                self.estimator = _text(event.get("estimator"))
            case "started" | "resumed" | "round":
                self.rounds = _count(event.get("rounds")) or self.rounds
                done = event.get("after" if kind == "resumed" else "round")
                self.round = max(self.round, _count(done) or 0)
        if kind != "log":
            self.last = kind


class Trainings:
    """Reads a folder of events, which others write and delete.

    What was read for the list is remembered, so that only what is new is read again. For use from
    any number of threads.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, _Known] = {}

    def summaries(self) -> list[Summary]:
        """Return the trainings, that which was written last first; none where there is no folder.

        Raises:
            OSError: the folder cannot be read.
        """
        found = sorted(self._files(), reverse=True)[:LISTED]
        known = {}
        summaries = []
        for _, run, inode, size in found:
            reading = self._known.get(run)
            if reading is None or reading.inode != inode or size < reading.offset:
                reading = _Known(inode)
            known[run] = reading
            try:
                summaries.append(self._summary(run, reading))
            except OSError:
                # Deleted meanwhile, or not for this process to read.
                continue
        self._known = known
        return summaries

    def events(self, run: str, offset: int) -> Events:
        """Return events of a training.

        Args:
            run: its id.
            offset: where to begin, 0 or what an earlier answer said.

        Raises:
            NoTrainingError: there are no events of it.
            OSError: they cannot be read.
        """
        path = self._path(run)
        try:
            # Before its events: who has written is there before, and its last event is read.
            writing = _has_writer(path)
            restarted = offset > path.stat().st_size
            chunk = read_lines(path, 0 if restarted else offset, READ_BYTES)
        except FileNotFoundError:
            raise NoTrainingError(f"there are no events of run {run}: were they deleted?") from None
        events = list(_parsed(chunk.lines))
        return Events(
            events=events,
            offset=chunk.offset,
            more=chunk.more,
            restarted=restarted,
            skipped=chunk.skipped + len(chunk.lines) - len(events),
            writing=writing,
        )

    def _files(self) -> Iterator[tuple[int, str, int, int]]:
        try:
            paths = list(self._folder.iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            match = _FILE.fullmatch(path.name)
            if match is None:
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            yield status.st_mtime_ns, match[1], status.st_ino, status.st_size

    def _path(self, run: str) -> Path:
        name = f"run-{run}.jsonl"
        if not _FILE.fullmatch(name):
            raise NoTrainingError(f"{run[:20]!r} is no run: they have numbers")
        return self._folder / name

    def _summary(self, run: str, known: _Known) -> Summary:
        path = self._path(run)
        writing = _has_writer(path)
        with known.lock:
            more = path.stat().st_size > known.offset
            while more:
                chunk = read_lines(path, known.offset, READ_BYTES)
                known.offset, more = chunk.offset, chunk.more
                for event in _parsed(chunk.lines):
                    known.take(event)
            return Summary(
                id=run,
                state=_state(known.last, writing=writing),
                began=known.began,
                model=known.model,
                estimator=known.estimator,
                round=known.round,
                rounds=known.rounds,
            )


def _parsed(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            event = json.loads(line, parse_constant=_refused)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            yield event


def _refused(_constant: str) -> None:
    # NaN and the infinities are no JSON, and no browser would read them.
    raise ValueError


def _state(last: str, *, writing: bool) -> State:
    if last == "published":
        return "published"
    if last == "failed":
        return "failed"
    return "running" if writing else "interrupted"


def _has_writer(path: Path) -> bool:
    """Return whether the process that writes it is alive, which holds a lock on it."""
    with path.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
