"""Encryption and decryption for one circuit.

A circuit that needs no evaluation keys has a fresh key for every query; one that does has a stored
key, see ``stored_key``.

Only Concrete's runtime is used: ``concrete.compiler`` loads in a second and without PyTorch.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from concrete.compiler import ClientProgram, Keyset, ProgramInfo, TransportValue, Value

from cloister_keyholder.errors import InvalidResult, KeyholderError, KeyUnusable
from cloister_keyholder.framing import is_one_message
from cloister_keyholder.parameters import ClientSpecs

Integers = npt.NDArray[np.int64]

ENVELOPE_LIMIT = 4096
"""The most bytes around a result's ciphertexts; Concrete's envelope has 264."""


class Circuit:
    """The key holder's side of a circuit."""

    def __init__(self, specs: ClientSpecs) -> None:
        self.specs = specs
        self._info = ProgramInfo.deserialize(specs.program_info())

    @property
    def result_limit(self) -> int:
        """The most bytes that a serialised result may have."""
        return self.specs.result_data_bytes + ENVELOPE_LIMIT

    def new_keyset(self) -> Keyset:
        """Make secret keys, and evaluation keys where the circuit needs them."""
        # Zero seeds make Concrete draw its own from the operating system or the processor.
        return Keyset(self._info, None, 0, 0, 0, 0, None)

    def encrypt(self, quantised: Integers, keyset: Keyset | None = None) -> "Query":
        """Encrypt one row.

        Args:
            quantised: integers, shape (n_features,).
            keyset: stored keys to encrypt under; new ones by default.

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
        if keyset is None:
            keyset = self.new_keyset()
        # Concrete reads the buffer in row-major order whatever the array's own order is.
        row = np.ascontiguousarray(quantised[None, :], dtype=np.int64)
        ciphertext = self._client(keyset).prepare_input(Value(row), 0).serialize()
        return Query(ciphertext, QueryKey(self, keyset))

    def read_key(self, serialised: bytes) -> "QueryKey":
        """Return a key from ``QueryKey.export``.

        Raises:
            KeyUnusable: these bytes are not a key.
        """
        try:
            if not is_one_message(serialised):
                raise RuntimeError("not one message")
            keyset = Keyset.deserialize(serialised)
            self._client(keyset)
        except RuntimeError:
            raise KeyUnusable("these bytes are not a key of this circuit") from None
        return QueryKey(self, keyset)

    def _client(self, keyset: Keyset) -> "ClientProgram":
        program = ClientProgram.create_encrypted(self._info, keyset)
        return program.get_client_circuit(self.specs.circuit_name)

    def decrypt(self, keyset: Keyset, result: bytes) -> Integers:
        """Decrypt one result; callers use ``QueryKey.decrypt``, which drops the key.

        Raises:
            InvalidResult: these bytes cannot be a result of the circuit.
        """
        specs = self.specs
        if not specs.result_data_bytes < len(result) <= self.result_limit:
            raise InvalidResult(
                f"a result of this circuit has {specs.result_data_bytes} bytes of ciphertext; "
                f"{len(result)} bytes cannot be one"
            )
        if not is_one_message(result):
            raise InvalidResult("the result is not one whole message: it is damaged")
        try:
            value = TransportValue.deserialize(result)
            scores = self._client(keyset).process_output(value, 0).to_py_val()
        except RuntimeError:
            raise InvalidResult("the result is damaged, or of another circuit") from None
        integers = np.asarray(scores)
        if integers.shape != specs.output_shape or integers.dtype.kind not in "iu":
            raise InvalidResult(f"the result is not {specs.n_outputs} scores")
        row: Integers = integers.ravel().astype(np.int64)
        return row


class QueryKey:
    """The secret key of one query, good for one result.

    A service that could make a key decrypt results of its own making, and learn what came out,
    would recover the key in a few of them. So a key opens one result and is dropped with it,
    whether that result was good or not.
    """

    def __init__(self, circuit: Circuit, keyset: Keyset) -> None:
        self._circuit = circuit
        self._keyset: Keyset | None = keyset

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
        keyset = self._held()
        self._keyset = None
        return self._circuit.decrypt(keyset, result)

    def export(self) -> bytes:
        """Return the key as bytes, for a result that another process will decrypt.

        Raises:
            KeyUnusable: the key was dropped before.
        """
        serialised: bytes = self._held().serialize()
        return serialised

    def _held(self) -> Keyset:
        if self._keyset is None:
            raise KeyUnusable("this key has decrypted its one result: encrypt the row again")
        return self._keyset


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
