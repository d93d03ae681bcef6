"""Encryption and decryption for one circuit.

A circuit that needs no evaluation keys has a fresh key for every query; one that does has a stored
key, see ``stored_key``.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloister_keyholder.encryption.client import ClientSetting, SecretKey, choose_client
from cloister_keyholder.encryption.parameters import ClientSpecs
from cloister_keyholder.errors import KeyholderError, KeyUnusable
from cloister_shared.compact import Compact

Integers = npt.NDArray[np.int64]


class Circuit:
    """The key holder's side of a circuit."""

    def __init__(self, specs: ClientSpecs, client: ClientSetting = "auto") -> None:
        """Take a circuit.

        Args:
            specs: of the circuit.
            client: what makes keys, encrypts and decrypts: see ``choose_client``.

        Raises:
            ClientUnavailable: the client that is asked for cannot serve.
        """
        self.specs = specs
        choice = choose_client(client, specs)
        self.client = choice.client
        self.client_reason = choice.reason

    def result_limit(self, compact: Compact | None) -> int:
        """The most bytes that a result may have, in the compact form or in Concrete's."""
        if compact:
            return compact.result_bytes(self.specs.n_outputs, self.specs.lwe_dimension)
        return self.specs.result_limit

    def encrypt(
        self,
        quantised: Integers,
        key: SecretKey | None = None,
        compact: Compact | None = None,
    ) -> "Query":
        """Encrypt one row.

        Args:
            quantised: integers, shape (n_features,).
            key: a stored key to encrypt under; a new one by default.
            compact: how far to round, where the service takes the compact form.

        Raises:
            KeyholderError: wrong shape, or an integer that the encoding does not hold.
        """
        low, high = self.specs.input_range
        if quantised.shape != (self.specs.n_features,):
            raise KeyholderError(
                f"a row has the shape {quantised.shape}, not ({self.specs.n_features},)"
            )
        if quantised.min() < low or quantised.max() > high:
            raise KeyholderError(f"quantised values must lie in [{low}, {high}]")
        is_stored = key is not None
        used = key or self.client.new_key()
        return Query(used.encrypt(quantised, compact), QueryKey(used, compact, is_stored=is_stored))

    def read_key(self, serialised: bytes) -> "QueryKey":
        """Return a key from ``QueryKey.export``.

        Raises:
            KeyUnusable: these bytes are not a key.
        """
        return QueryKey(self.client.read_key(serialised))


class QueryKey:
    """The secret key of one query, good for one result.

    A service that could make a key decrypt results of its own making, and learn what came out,
    would recover the key in a few of them. So a key opens one result and is dropped with it,
    whether that result was good or not.
    """

    def __init__(
        self, key: SecretKey, compact: Compact | None = None, *, is_stored: bool = False
    ) -> None:
        self._key: SecretKey | None = key
        self._compact = compact
        self._is_stored = is_stored

    def decrypt(self, result: bytes) -> Integers:
        """Decrypt the query's result and drop the key.

        Args:
            result: as the service answered it; it need not be trusted.

        Returns:
            The circuit's integer scores, shape (n_outputs,).

        Raises:
            InvalidResult: these bytes cannot be a result of the circuit.
            KeyUnusable: the key was dropped before.
        """
        key = self._held()
        try:
            return key.decrypt(result, self._compact)
        finally:
            self.drop()

    def drop(self) -> None:
        """Overwrite the key, unless it is a stored one; it is of no use afterwards."""
        key, self._key = self._key, None
        if key and not self._is_stored:
            key.wipe()

    def export(self) -> bytes:
        """Return the key as bytes, for a result that another process will decrypt.

        Raises:
            KeyUnusable: the key was dropped before.
        """
        return self._held().export()

    def _held(self) -> SecretKey:
        if self._key is None:
            raise KeyUnusable("this key has decrypted its one result: encrypt the row again")
        return self._key


@dataclass(frozen=True)
class Query:
    """One encrypted row, and the only key that opens its result."""

    ciphertext: bytes
    """What is sent."""
    key: QueryKey
    """What is kept."""

    def decrypt(self, result: bytes) -> Integers:
        """See ``QueryKey.decrypt``."""
        return self.key.decrypt(result)
