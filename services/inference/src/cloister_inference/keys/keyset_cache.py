"""Circuits with the evaluation keys that were used last, within a limit of memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from cloister_inference.evaluation.circuit import EncryptedCircuit

EXPANSION = 7
"""Bytes in memory for a byte of serialised keys, once they have been used: Concrete keeps what it
computes from them, expanded from its seeds and in the Fourier domain (6.4 was measured)."""

Key = tuple[str, int, str]
"""Name and version of the model, and digest of the evaluation keys."""


class KeysetCache:
    """Keeps circuits bound to evaluation keys, since a first evaluation takes several times longer.

    May be used from any number of threads. What is in use stays in memory beyond the limit.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Keep at most ``limit_bytes`` of memory, by the estimate of ``EXPANSION``."""
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._entries: OrderedDict[Key, tuple[EncryptedCircuit, int]] = OrderedDict()
        self._changing = threading.Lock()
        self._loading = threading.Lock()

    def get(self, key: Key, size: int, load: Callable[[], EncryptedCircuit]) -> EncryptedCircuit:
        """Return a circuit with its keys, loading it where it is not kept.

        Args:
            key: names it.
            size: bytes of its serialised keys.
            load: makes it; one at a time, since it takes memory that is not counted yet.
        """
        found = self._kept(key)
        if found is not None:
            return found
        with self._loading:
            found = self._kept(key)
            if found is None:
                found = load()
                self._keep(key, found, size * EXPANSION)
            return found

    def retain(self, digests: set[str]) -> None:
        """Drop the keys that are not among these."""
        with self._changing:
            for key in [key for key in self._entries if key[2] not in digests]:
                self._bytes -= self._entries.pop(key)[1]

    def _kept(self, key: Key) -> EncryptedCircuit | None:
        with self._changing:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
            return entry[0]

    def _keep(self, key: Key, circuit: EncryptedCircuit, size: int) -> None:
        with self._changing:
            self._entries[key] = circuit, size
            self._bytes += size
            while self._bytes > self._limit_bytes:
                _, (_, freed) = self._entries.popitem(last=False)
                self._bytes -= freed
