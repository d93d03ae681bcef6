"""Work in processes of its own: one warm process forks a child for each piece of it."""

import gc
import logging
import os
import signal
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

Work = Callable[[list[bytes]], list[bytes]]
Aside = Callable[[list[bytes]], None]

FIRST_TO_GO = "1000"
"""Where memory is short, Linux kills the process with the highest of these first."""
_LENGTH = struct.Struct("!Q")
_NUMBER = struct.Struct("!q")

log = logging.getLogger(__name__)


class WorkFailedError(Exception):
    """A piece of work has no result; the message is the reason, for people."""


class WorkerGoneError(Exception):
    """The warm process has ended: there will be no more results."""


class Worker:
    """Runs one piece of work at a time, each in a child forked from a warm process.

    What takes long to import is imported once, by whoever makes the worker, and a child is ready
    within milliseconds. A child begins with what was in memory when the worker was made, and what
    ``before`` and ``afterwards`` left there: make it before a secret is read. It can exhaust its
    memory, exit or crash, and ends alone. When the process that made the worker ends, however it
    does, so do the children.

    Making one forks, so that no other thread may be running.
    """

    def __init__(
        self, work: Work, before: Aside = lambda _: None, afterwards: Aside = lambda _: None
    ) -> None:
        """Start the warm process.

        Args:
            work: what each child does, from job to result.
            before: what the warm process does with a job before it forks a child for it.
            afterwards: what it does with a job once its result is handed over. Children find in
                memory what the two leave there. An error of theirs is only logged.
        """
        self._control, theirs = Pipe()
        # Frozen objects are touched by no garbage collection, here or there, and the pages with
        # them stay shared.
        gc.collect()
        gc.freeze()
        self._pid = os.fork()
        if self._pid == 0:
            self._control.close()
            _be(lambda: _fork_for_each(theirs, work, before, afterwards))
        theirs.close()

    def run(self, job: list[bytes], seconds: float) -> list[bytes]:
        """Do one piece of work and return its result.

        Args:
            job: what the work is given.
            seconds: after which it is given up, and its process killed; so is the warm process if
                it has not even begun by then.

        Raises:
            WorkFailedError: it took too long, or its process ended without a result.
            WorkerGoneError: the warm process has ended.
        """
        try:
            # The warm process may be busy with what comes after the job before.
            with _killed_after(self._pid, seconds):
                self._control.send_bytes(join(job))
                child = _NUMBER.unpack(self._control.recv_bytes())[0]
            with _killed_after(child, seconds) as late:
                code = _NUMBER.unpack(self._control.recv_bytes())[0]
                result = self._control.recv_bytes()
        except (EOFError, OSError):
            raise WorkerGoneError("the warm process has ended") from None
        if late.is_set():
            raise WorkFailedError(f"it was not done within {seconds:g} s")
        if code == -signal.SIGKILL:
            raise WorkFailedError("its process was killed, probably for want of memory")
        if code < 0:
            raise WorkFailedError(f"its process was ended by {signal.Signals(-code).name}")
        try:
            return split(result)
        except ValueError:
            raise WorkFailedError(f"its process ended with code {code} and no result") from None

    def close(self) -> None:
        """End the warm process at once; with it goes a child that is at work."""
        self._control.close()
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()


def join(parts: list[bytes]) -> bytes:
    """Return these parts as one, for ``split``."""
    return b"".join(piece for part in parts for piece in (_LENGTH.pack(len(part)), part))


def split(joined: bytes) -> list[bytes]:
    """Return the parts that were joined.

    Raises:
        ValueError: there are none, or the last is cut short.
    """
    parts, start = [], 0
    while start < len(joined):
        body = start + _LENGTH.size
        if body > len(joined):
            raise ValueError("cut short")
        start = body + _LENGTH.unpack_from(joined, start)[0]
        parts.append(joined[body:start])
    if start != len(joined) or not parts:
        raise ValueError("cut short")
    return parts


@contextmanager
def _killed_after(pid: int, seconds: float) -> Iterator[threading.Event]:
    """Kill a process after some time, and when the context is left by an exception.

    Yields:
        Set once the time is over.
    """
    late = threading.Event()

    def kill() -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def give_up() -> None:
        late.set()
        kill()

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield late
    except BaseException:
        kill()
        raise
    finally:
        timer.cancel()


def _be(run: Callable[[], None]) -> NoReturn:
    """Run as the whole of a forked process: nothing of its parent's is cleaned up here."""
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        run()
        code = 0
    except BaseException:  # noqa: BLE001 - it must not return into its parent's code
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _fork_for_each(control: Connection, work: Work, before: Aside, afterwards: Aside) -> None:
    # The other end is closed: the node has ended.
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = control.recv_bytes()
            _aside(before, job)
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(reader)
                _be(lambda: _work(control, writer, work, job))  # noqa: B023 - runs now
            os.close(writer)
            control.send_bytes(_NUMBER.pack(child))
            with os.fdopen(reader, "rb") as stream:
                result = stream.read()
            _, status = os.waitpid(child, 0)
            control.send_bytes(_NUMBER.pack(os.waitstatus_to_exitcode(status)))
            control.send_bytes(result)
            # No later child begins with it.
            result = b""
            if status == 0:
                _aside(afterwards, job)


def _aside(what: Aside, job: bytes) -> None:
    try:
        what(split(job))
    except Exception:
        log.exception("what the warm process does beside a piece of work failed")


def _work(control: Connection, writer: int, work: Work, job: bytes) -> None:
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(FIRST_TO_GO)
    threading.Thread(target=_end_with, args=(control,), daemon=True).start()
    result = join(work(split(job)))
    with os.fdopen(writer, "wb") as stream:
        stream.write(result)


def _end_with(control: Connection) -> NoReturn:
    """End this process when the other end is closed: nothing else comes during the work."""
    wait([control])
    os._exit(1)
