"""Encryptors at work: a thread for each, fed from one queue of rows."""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from cloister_keyholder.encryption.circuit import Circuit, Integers
from cloister_keyholder.encryption.client import SecretKey
from cloister_keyholder.errors import KeyholderError, KeyUnusable, WorkerLost
from cloister_keyholder.workers.encryptor import Decrypted, Encrypted, Encryptor, LocalEncryptor
from cloister_keyholder.workers.process import ProcessEncryptor
from cloister_shared.compact import Compact

ENCRYPT_NANOSECONDS = 100
"""About what Concrete takes for a word of a row's masks; a feature has one for every bit of the key
(measured: 74 at 784 features, 109 at 64)."""
WORTH_SECONDS = 1.5
"""Encryption below which one process more is not worth its start, which takes about a second."""

log = logging.getLogger(__name__)


class _Task:
    """Something to do with one encryptor, by its worker."""

    def __init__(self, work: "Callable[[_Worker], object]") -> None:
        self.future: Future[Any] = Future()
        self._work = work

    def do(self, worker: "_Worker") -> WorkerLost | None:
        """Do it; return the error if the encryptor is lost, which the caller has yet to report."""
        if not self.future.set_running_or_notify_cancel():
            return None
        try:
            result = self._work(worker)
        except WorkerLost as error:
            return error
        except BaseException as error:  # noqa: BLE001 - raised where the future is waited for
            self.future.set_exception(error)
        else:
            self.future.set_result(result)
        return None

    def fail(self, error: Exception) -> None:
        """Tell whoever waits that it will not be done."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class _Worker:
    """An encryptor, its thread, and what it alone can do: to use the keys that it keeps."""

    def __init__(self, submit: "Callable[[_Worker, _Task], None]") -> None:
        self.submit = partial(submit, self)
        self.own: deque[_Task] = deque()
        self.lost: WorkerLost | None = None
        self.encryptor: Encryptor
        self.thread: threading.Thread


class Sealed:
    """One encrypted row, whose key is with the encryptor that made it."""

    def __init__(self, encrypted: Encrypted, worker: _Worker) -> None:
        self._ticket: int | None = encrypted.ticket
        self._worker = worker
        self.ciphertext = encrypted.ciphertext
        """What is sent."""
        self.milliseconds = encrypted.milliseconds
        """Key generation and encryption."""

    def decrypt(self, result: bytes) -> Future[Decrypted]:
        """Decrypt the result and drop the key; the future raises as ``Encryptor.decrypt``.

        Raises:
            KeyUnusable: the key was dropped before.
        """
        ticket, self._ticket = self._ticket, None
        if ticket is None:
            raise KeyUnusable("the key of this query is dropped: encrypt the row again")
        task = _Task(lambda worker: worker.encryptor.decrypt(ticket, result))
        self._worker.submit(task)
        return task.future

    def discard(self) -> None:
        """Drop the key, unless a result was decrypted with it."""
        ticket, self._ticket = self._ticket, None
        if ticket is not None:
            self._worker.submit(_Task(lambda worker: worker.encryptor.discard(ticket)))


def discard(sealing: Future[Sealed]) -> None:
    """Drop the key of a row that was encrypted or will be."""
    if not sealing.cancel():
        sealing.add_done_callback(_discard_done)


def _discard_done(sealing: Future[Sealed]) -> None:
    if sealing.exception() is None:
        sealing.result().discard()


class Pool:
    """Encrypts rows with several encryptors; may be used from any number of threads.

    Args:
        make: an encryptor, which a thread of its own then starts and uses.
        fallback: one in this process, for where that cannot be started.
    """

    def __init__(self, make: Callable[[], Encryptor], fallback: Callable[[], Encryptor]) -> None:
        self._make = make
        self._fallback = fallback
        self._changed = threading.Condition()
        self._rows: deque[_Task] = deque()
        self._workers: list[_Worker] = []
        self._closed = False
        self._warned = False
        self._lost: WorkerLost | None = None

    @property
    def size(self) -> int:
        """Encryptors at work."""
        return len(self._workers)

    def staff(self, encryptors: int) -> None:
        """Start encryptors until there are so many."""
        with self._changed:
            while not self._closed and len(self._workers) < encryptors:
                worker = _Worker(self._submit)
                # A daemon: a model that was not closed must not keep the interpreter from ending.
                worker.thread = threading.Thread(
                    target=self._run, args=(worker,), name="encrypt", daemon=True
                )
                self._workers.append(worker)
                worker.thread.start()

    def encrypt(self, row: Integers, key: SecretKey | None = None) -> Future[Sealed]:
        """Encrypt one quantised row, shape (n_features,), when its turn comes.

        Its key is kept until its result is decrypted or it is discarded. The future raises as
        ``Encryptor.encrypt``.

        Args:
            row: to encrypt.
            key: a stored key to encrypt under; a new one by default.

        Raises:
            WorkerLost: every encryptor was lost.
            KeyholderError: the pool is closed.
        """
        task = _Task(lambda worker: Sealed(worker.encryptor.encrypt(row, key), worker))
        with self._changed:
            if self._closed:
                raise KeyholderError("nothing encrypts here any more: open the model again")
            if not self._workers and self._lost:
                raise WorkerLost(str(self._lost))
            self._rows.append(task)
            self._changed.notify_all()
        return task.future

    def close(self) -> None:
        """Drop what waits and all keys, end every encryptor, and return when they have ended."""
        with self._changed:
            self._closed = True
            workers, self._workers = self._workers, []
            waiting = [*self._rows, *(task for worker in workers for task in worker.own)]
            self._rows.clear()
            for worker in workers:
                worker.own.clear()
                if hasattr(worker, "encryptor"):
                    worker.encryptor.stop()
            self._changed.notify_all()
        for task in waiting:
            task.future.cancel()
        for worker in workers:
            # A finaliser may run in any thread, one of these too.
            if worker.thread is not threading.current_thread():
                worker.thread.join()

    def _run(self, worker: _Worker) -> None:
        """Use one encryptor until the pool is closed or the encryptor lost."""
        if not self._hire(worker):
            return
        try:
            while task := self._next(worker):
                if lost := task.do(worker):
                    # First, so that whoever learns of it finds another.
                    self._dismiss(worker, lost)
                    task.future.set_exception(lost)
                    return
                # What it holds is not kept while waiting for another.
                del task
        finally:
            worker.encryptor.close()

    def _hire(self, worker: _Worker) -> bool:
        """Give a worker its encryptor, started; False where the pool is closed."""
        for make in (self._make, self._fallback):
            encryptor = None
            try:
                encryptor = make()
                with self._changed:
                    if self._closed:
                        encryptor.close()
                        return False
                    worker.encryptor = encryptor
                encryptor.start()
            except (OSError, WorkerLost) as error:
                if encryptor:
                    encryptor.close()
                self._warn(error)
            else:
                return True
        raise AssertionError("unreachable: an encryptor in this process needs no start")

    def _warn(self, error: Exception) -> None:
        with self._changed:
            warned, self._warned = self._warned or self._closed, True
        if not warned:
            log.warning(
                "rows are encrypted in this process alone, on one core: no other could be started "
                "(%s)",
                error,
            )

    def _next(self, worker: _Worker) -> _Task | None:
        """Wait for something to do; None where the pool is closed.

        What only this worker can do comes first: results, which take little and end a query.
        """
        with self._changed:
            while not self._closed and not worker.own and not self._rows:
                self._changed.wait()
            if self._closed:
                return None
            return (worker.own or self._rows).popleft()

    def _submit(self, worker: _Worker, task: _Task) -> None:
        with self._changed:
            lost = worker.lost
            if not lost and not self._closed:
                worker.own.append(task)
                self._changed.notify_all()
                return
        task.fail(lost or KeyUnusable("the model is closed, and its keys are dropped"))

    def _dismiss(self, worker: _Worker, lost: WorkerLost) -> None:
        """Go on without a worker; what only it could do, or nobody now can, fails."""
        with self._changed:
            worker.lost = self._lost = lost
            if worker in self._workers:
                self._workers.remove(worker)
            failing = list(worker.own)
            worker.own.clear()
            if not self._workers:
                failing += self._rows
                self._rows.clear()
        for task in failing:
            task.fail(lost)


class Encryptors:
    """Encrypts on one core or on several, by how much there is to encrypt.

    Concrete's client needs a process for every core; the native one needs threads, which cost
    nothing to start.

    Args:
        circuit: to encrypt for.
        compact: how far to round, where messages are compact.
        processes: cores at most; with 1, everything is encrypted in one thread of this process.
            Processes are started when there are enough rows for them, and stay until ``close``.
    """

    def __init__(self, circuit: Circuit, compact: Compact | None, processes: int) -> None:
        local = partial(LocalEncryptor, circuit, compact)
        self._local = Pool(local, local)
        self._processes = Pool(partial(ProcessEncryptor, circuit), local)
        self._limit = processes
        self._is_native = circuit.client.name == "native"
        words = circuit.specs.n_features * circuit.specs.lwe_dimension
        self._row_seconds = words * ENCRYPT_NANOSECONDS * 1e-9

    def for_rows(self, rows: int) -> Pool:
        """Return the pool to encrypt so many rows with."""
        if self._is_native:
            self._local.staff(min(self._limit, rows))
            return self._local
        worth = min(self._limit, int(rows * self._row_seconds / WORTH_SECONDS))
        started = self._processes.size if rows > 1 else 0
        if max(worth, started) > 1:
            self._processes.staff(worth)
            return self._processes
        return self.here()

    def here(self) -> Pool:
        """Return the pool that encrypts in this process alone, with stored keys too."""
        self._local.staff(1)
        return self._local

    def close(self) -> None:
        """Drop all keys and end all processes."""
        self._local.close()
        self._processes.close()
