"""Progress for whoever watches: a bar on a terminal, a line now and then in a log."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

Report = Callable[[int, int], None]
"""Called with the number done and the number to do."""


@contextmanager
def show_progress(what: str) -> Iterator[Report]:
    """Show progress on standard error."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: _log_tenths(what, done, total)
        return
    with Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _log_tenths(what: str, done: int, total: int) -> None:
    if done * 10 // total != (done - 1) * 10 // total:
        log.info("%s: %d of %d", what, done, total)
