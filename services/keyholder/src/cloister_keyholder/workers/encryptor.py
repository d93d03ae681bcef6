"""What encrypts rows and opens their results: in this process, or in one of its own."""

import time
from dataclasses import dataclass
from itertools import count
from typing import Protocol

from cloister_keyholder.encryption.circuit import Circuit, Integers, QueryKey
from cloister_keyholder.encryption.client import SecretKey
from cloister_keyholder.errors import KeyUnusable
from cloister_shared.compact import Compact


@dataclass(frozen=True)
class Encrypted:
    """One encrypted row, whose key stays with the encryptor."""

    ticket: int
    """Names the key to its encryptor."""
    ciphertext: bytes
    milliseconds: float
    """Key generation, where the key is new, and encryption."""


@dataclass(frozen=True)
class Decrypted:
    """One opened result."""

    integer_scores: Integers
    """Shape (n_outputs,)."""
    milliseconds: float


class Encryptor(Protocol):
    """Encrypts rows and keeps what opens their results; does one thing at a time."""

    def start(self) -> None:
        """Get ready.

        Raises:
            WorkerLost: it cannot.
        """

    def encrypt(self, row: Integers, key: SecretKey | None = None) -> Encrypted:
        """Encrypt one quantised row, shape (n_features,).

        Args:
            row: to encrypt.
            key: a stored key to encrypt under, which only an encryptor in the process that
                holds it takes; a new key of the row's own by default.

        Raises:
            KeyholderError: wrong shape, or an integer that the encoding does not hold.
            WorkerLost: the process that does it is gone.
        """

    def decrypt(self, ticket: int, result: bytes) -> Decrypted:
        """Decrypt a query's result and drop its hold on the key, whether the result is good or not.

        Raises:
            InvalidResult: these bytes cannot be a result of the circuit.
            KeyUnusable: the key was dropped before.
            WorkerLost: the process that held the key is gone.
        """

    def discard(self, ticket: int) -> None:
        """Drop the key of a query whose result will not come; nothing if it is dropped already."""

    def stop(self) -> None:
        """Break off what is being done, if that can be; for other threads to call."""

    def close(self) -> None:
        """Drop all keys."""


class LocalEncryptor:
    """An encryptor in this process.

    Concrete's client holds the interpreter's lock while it encrypts, so that threads gain nothing;
    the native one does not.
    """

    def __init__(self, circuit: Circuit, compact: Compact | None = None) -> None:
        self._circuit = circuit
        self._compact = compact
        self._keys: dict[int, QueryKey] = {}
        self._tickets = count()

    def start(self) -> None:
        """See ``Encryptor.start``."""

    def encrypt(self, row: Integers, key: SecretKey | None = None) -> Encrypted:
        """See ``Encryptor.encrypt``."""
        start = time.perf_counter()
        query = self._circuit.encrypt(row, key, self._compact)
        milliseconds = 1000 * (time.perf_counter() - start)
        ticket = next(self._tickets)
        self._keys[ticket] = query.key
        return Encrypted(ticket, query.ciphertext, milliseconds)

    def decrypt(self, ticket: int, result: bytes) -> Decrypted:
        """See ``Encryptor.decrypt``."""
        start = time.perf_counter()
        key = self._keys.pop(ticket, None)
        if key is None:
            raise KeyUnusable("the key of this query is dropped: encrypt the row again")
        scores = key.decrypt(result)
        return Decrypted(scores, 1000 * (time.perf_counter() - start))

    def discard(self, ticket: int) -> None:
        """See ``Encryptor.discard``."""
        key = self._keys.pop(ticket, None)
        if key:
            key.drop()

    def stop(self) -> None:
        """See ``Encryptor.stop``: a row or a result takes milliseconds."""

    def close(self) -> None:
        """See ``Encryptor.close``."""
        for ticket in list(self._keys):
            self.discard(ticket)
