"""Following a run until it has ended, whichever way it ends."""

import logging
import subprocess
import time
from collections.abc import Callable

from cloister_shared.errors import CloisterError
from cloister_trainer.events import run_events
from cloister_trainer.progress import Event, text
from cloister_trainer.runs import COMPLETED, FlowerRuns
from cloister_trainer.settings import Settings

POLL_SECONDS = 0.5
STATE_SECONDS = 20.0
"""Between two questions to the SuperLink, which alone knows of a run that somebody stopped."""
UNANSWERED_SECONDS = 90.0
"""A SuperLink that restarts with its database goes on with the run, and is back within this."""

EVENT = "training"
"""Member of a JSON line with all of an event of the training, which its message only words."""

log = logging.getLogger(__name__)


class ServerAppDiedError(CloisterError):
    """The ServerApp's process ended without a word."""


def follow(
    settings: Settings,
    runs: FlowerRuns,
    run_id: int,
    superexec: subprocess.Popen[bytes],
    on_event: Callable[[Event], None],
) -> None:
    """Return when the run has completed, and tell of its course meanwhile.

    The ServerApp's own events tell at once how it ended, and so does its end without one. The
    SuperLink would notice that only when heartbeats stay away, within a minute; it is asked now and
    then, in case that somebody stopped the run.

    Args:
        settings: of the training.
        runs: at the SuperLink.
        run_id: of the run.
        superexec: the process that starts the ServerApp.
        on_event: called with every event once.

    Raises:
        ServerAppDiedError: the ServerApp was killed.
        CloisterError: the run failed, with the reason, or the SuperLink is gone.
    """
    events = run_events(settings.events_dir, run_id)
    submitted = asked = answered = time.monotonic()
    told = 0
    while True:
        time.sleep(POLL_SECONDS)
        # In this order: who has written is there before, and what it wrote before its end is read.
        ended = told > 0 and not events.has_writer()
        happened = events.read()
        for event in happened[told:]:
            _tell(event)
            on_event(event)
            if event["event"] == "failed":
                raise CloisterError(f"the training failed: {event['reason']}")
        told = len(happened)
        if ended:
            if happened[-1]["event"] == "published":
                return
            raise ServerAppDiedError("the ServerApp ended without a word: it was killed")
        if superexec.poll() is not None and not happened:
            raise CloisterError(f"the SuperExec ended with code {superexec.returncode}")
        if not happened and time.monotonic() - submitted >= settings.start_deadline:
            raise CloisterError(
                f"the run did not start within {settings.start_deadline:.0f} s: is another trainer "
                "at work, or CLOISTER_START_DEADLINE too short for this machine?"
            )
        if time.monotonic() - asked >= STATE_SECONDS:
            asked = time.monotonic()
            try:
                state = runs.state(run_id)
            except CloisterError as error:
                if asked - answered >= UNANSWERED_SECONDS:
                    raise
                log.warning("%s; asking again", error)
                continue
            answered = asked
            if state.status == COMPLETED:
                return
            if state.is_finished:
                raise CloisterError(f"the run ended as {state.status}: {state.details}")


def _tell(event: Event) -> None:
    if event["event"] == "log":
        log.log(event["level"], "%s", event["message"])
    elif (told := text(event)) is not None:
        log.info("%s", told, extra={EVENT: event})
