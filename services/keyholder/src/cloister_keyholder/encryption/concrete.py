"""Concrete's own client: for every circuit, and for evaluation keys.

Only Concrete's runtime is used: ``concrete.compiler`` loads in a second and without PyTorch.
"""

import numpy as np
import numpy.typing as npt
from concrete.compiler import ClientProgram, Keyset, ProgramInfo, TransportValue, Value

from cloister_keyholder.encryption.framing import is_one_message
from cloister_keyholder.encryption.parameters import ClientSpecs
from cloister_keyholder.errors import ClientUnavailable, InvalidResult, KeyUnusable
from cloister_shared.compact import Compact

Integers = npt.NDArray[np.int64]


class ConcreteClient:
    """See ``Client``."""

    name = "concrete"

    def __init__(self, specs: ClientSpecs) -> None:
        self._specs = specs
        self._info = ProgramInfo.deserialize(specs.program_info())

    def new_key(self) -> "ConcreteKey":
        """Make secret keys, and evaluation keys where the circuit needs them."""
        # Zero seeds make Concrete draw its own from the operating system or the processor.
        return self._key(Keyset(self._info, None, 0, 0, 0, 0, None))

    def read_key(self, serialised: bytes) -> "ConcreteKey":
        """See ``Client.read_key``."""
        try:
            if not is_one_message(serialised):
                raise RuntimeError("not one message")
            return self._key(Keyset.deserialize(serialised))
        except RuntimeError:
            raise KeyUnusable("these bytes are not a key of this circuit") from None

    def _key(self, keyset: Keyset) -> "ConcreteKey":
        program = ClientProgram.create_encrypted(self._info, keyset)
        return ConcreteKey(
            self._specs, keyset, program.get_client_circuit(self._specs.circuit_name)
        )


class ConcreteKey:
    """See ``SecretKey``."""

    def __init__(self, specs: ClientSpecs, keyset: Keyset, circuit: "ClientProgram") -> None:
        self._specs = specs
        self._keyset = keyset
        self._circuit = circuit

    def encrypt(self, row: Integers, compact: Compact | None = None) -> bytes:
        """See ``SecretKey.encrypt``."""
        _refuse(compact)
        # Concrete reads the buffer in row-major order whatever the array's own order is.
        values = np.ascontiguousarray(row[None, :], dtype=np.int64)
        ciphertext: bytes = self._circuit.prepare_input(Value(values), 0).serialize()
        return ciphertext

    def decrypt(self, result: bytes, compact: Compact | None = None) -> Integers:
        """See ``SecretKey.decrypt``."""
        _refuse(compact)
        specs = self._specs
        if not specs.result_data_bytes < len(result) <= specs.result_limit:
            raise InvalidResult(
                f"a result of this circuit has {specs.result_data_bytes} bytes of ciphertext; "
                f"{len(result)} bytes cannot be one"
            )
        if not is_one_message(result):
            raise InvalidResult("the result is not one whole message: it is damaged")
        try:
            value = TransportValue.deserialize(result)
            scores = self._circuit.process_output(value, 0).to_py_val()
        except RuntimeError:
            raise InvalidResult("the result is damaged, or of another circuit") from None
        integers = np.asarray(scores)
        if integers.shape != specs.output_shape or integers.dtype.kind not in "iu":
            raise InvalidResult(f"the result is not {specs.n_outputs} scores")
        row: Integers = integers.ravel().astype(np.int64)
        return row

    def export(self) -> bytes:
        """See ``SecretKey.export``."""
        serialised: bytes = self._keyset.serialize()
        return serialised

    def evaluation_keys(self) -> bytes:
        """See ``SecretKey.evaluation_keys``."""
        serialised: bytes = self._keyset.get_server_keys().serialize()
        return serialised

    def wipe(self) -> None:
        """See ``SecretKey.wipe``: Concrete frees a key with its last use, and overwrites none."""


def _refuse(compact: Compact | None) -> None:
    if compact:
        raise ClientUnavailable("Concrete's client does not know the compact form")
