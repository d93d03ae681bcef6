"""An encryptor in a process of its own."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np

from cloister_keyholder.encryption.circuit import Circuit, Integers
from cloister_keyholder.encryption.client import SecretKey
from cloister_keyholder.errors import InvalidResult, KeyholderError, KeyUnusable, WorkerLost
from cloister_keyholder.workers.channel import Channel, Kind, Message
from cloister_keyholder.workers.encryptor import Decrypted, Encrypted

ANSWER_SECONDS = 120.0
"""The longest silence of a worker; encrypting a row takes it a tenth of a second."""
EXIT_SECONDS = 2.0
"""What a worker that has closed its socket gets to end by itself, so that its exit code is seen."""

_REFUSALS = {error.__name__: error for error in (InvalidResult, KeyUnusable)}


class ProcessEncryptor:
    """Has a worker encrypt and decrypt.

    The worker is a program of its own, not a fork (Concrete has threads) and not one that imports
    the caller's main module again, so that it works in scripts without a guard and in notebooks.

    Args:
        circuit: to encrypt for.
        command: starts a worker; the number of its socket is appended.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, circuit: Circuit, command: tuple[str, ...] | None = None) -> None:
        self._circuit = circuit
        ours, theirs = socket.socketpair()
        ours.settimeout(ANSWER_SECONDS)
        self._channel = Channel(ours)
        try:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - this program, by its interpreter
                    [*(command or _command()), str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=_environment(),
                    # Ctrl-C at a terminal is this process's to answer.
                    process_group=0,
                )
        except BaseException:
            ours.close()
            raise

    @property
    def pid(self) -> int:
        """Number of the worker's process."""
        return self._process.pid

    def start(self) -> None:
        """Wait until the worker is ready.

        Raises:
            WorkerLost: it ended, or said nothing for ``ANSWER_SECONDS``.
        """
        self._ask(Message(Kind.SPECS, self._circuit.specs.program_info()), Kind.READY)

    def encrypt(self, row: Integers, key: SecretKey | None = None) -> Encrypted:
        """See ``Encryptor.encrypt``."""
        if key is not None:
            raise KeyholderError("a stored key stays in the process that holds it")
        # A row of another shape would arrive as one of another length.
        payload = np.ascontiguousarray(row.ravel(), dtype="<i8").tobytes()
        done = self._ask(Message(Kind.ENCRYPT, payload), Kind.ENCRYPTED)
        return Encrypted(done.ticket, done.payload, done.milliseconds)

    def decrypt(self, ticket: int, result: bytes) -> Decrypted:
        """See ``Encryptor.decrypt``."""
        done = self._ask(Message(Kind.DECRYPT, result, ticket), Kind.DECRYPTED)
        scores = np.frombuffer(done.payload, dtype="<i8").astype(np.int64)
        return Decrypted(scores, done.milliseconds)

    def discard(self, ticket: int) -> None:
        """See ``Encryptor.discard``."""
        # A worker that is gone has dropped its keys.
        with suppress(OSError):
            self._channel.send(Message(Kind.DISCARD, ticket=ticket))

    def stop(self) -> None:
        """Kill the worker: its keys are all that is lost, and they are to be."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """See ``Encryptor.close``."""
        self.stop()
        self._channel.close()

    def _ask(self, message: Message, expected: Kind) -> Message:
        try:
            self._channel.send(message)
            answer = self._channel.receive()
        except (OSError, EOFError) as error:
            raise WorkerLost(
                f"a process that encrypts rows is gone ({self._end(error)}), and the keys in it: "
                "query again; CLOISTER_PROCESSES=1 encrypts without such processes"
            ) from None
        if answer.kind == Kind.REFUSED:
            name, _, text = answer.payload.decode().partition("\n")
            raise _REFUSALS.get(name, KeyholderError)(text)
        if answer.kind != expected:
            self.stop()
            raise WorkerLost(f"a process that encrypts rows answered {answer.kind.name}")
        return answer

    def _end(self, error: Exception) -> str:
        """End the worker if it has not ended, and say how it came to its end."""
        if isinstance(error, TimeoutError):
            self.stop()
            return f"it said nothing for {ANSWER_SECONDS:g} s"
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(EXIT_SECONDS)
        self.stop()
        code = self._process.returncode
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _command() -> tuple[str, ...]:
    # A frozen program is its own interpreter, and would be started over.
    if not sys.executable or getattr(sys, "frozen", False):
        raise OSError("there is no Python interpreter to start")
    # -P: nothing is imported from the working folder that this process would not import from it.
    return (sys.executable, "-P", "-m", "cloister_keyholder.workers.worker")


def _environment() -> dict[str, str]:
    """Return an environment with which a worker imports what this process does."""
    folders = [str(Path.cwd()) if entry == "" else entry for entry in sys.path]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(folders),
        # Workers are one to a core.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
