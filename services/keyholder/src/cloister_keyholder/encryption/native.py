"""Our own client, for the circuits that it fits: linear, seeded, of one binary key."""

import math

import numpy as np
import numpy.typing as npt

from cloister_keyholder.encryption import wire
from cloister_keyholder.encryption.parameters import ClientSpecs
from cloister_keyholder.errors import InvalidResult, KeyUnusable
from cloister_lwe import Key, Scheme, kernels
from cloister_shared.compact import Compact

Integers = npt.NDArray[np.int64]


def misfit(specs: ClientSpecs) -> str | None:
    """Return why the native client does not fit a circuit, or None where it does."""
    if specs.needs_evaluation_keys:
        return "the circuit needs evaluation keys, and the native client is for linear circuits"
    if specs.input.encryption != specs.output.encryption:
        return "results are encrypted with other parameters than inputs"
    if not kernels():
        return "the native client was not built on this machine"
    return None


class NativeClient:
    """See ``Client``."""

    name = "native"

    def __init__(self, specs: ClientSpecs, kernel: str = "") -> None:
        """Take a circuit that the client fits.

        Args:
            specs: of the circuit.
            kernel: of the core; the fastest by default.

        Raises:
            ValueError: parameters below 128 bits of security, which ``specs`` do not have.
        """
        encoding = specs.output.encoding.integer
        self._specs = specs
        self._scheme = Scheme(
            dimension=specs.lwe_dimension,
            std=math.sqrt(specs.input.encryption.variance),
            input_width=specs.input.encoding.integer.width,
            output_width=encoding.width,
            output_is_signed=encoding.is_signed,
            kernel=kernel,
        )
        self._envelope = wire.input_envelope(specs)

    @property
    def kernel(self) -> str:
        """Name of the core's kernel."""
        return self._scheme.kernel

    def new_key(self) -> "NativeKey":
        """See ``Client.new_key``."""
        return self._key(self._scheme.new_key())

    def read_key(self, serialised: bytes) -> "NativeKey":
        """See ``Client.read_key``."""
        bits = wire.read_keyset(serialised, self._specs)
        return self._key(Key.from_bits(bits.astype(np.uint8)))

    def _key(self, key: Key) -> "NativeKey":
        return NativeKey(self._specs, self._scheme, self._envelope, key)


class NativeKey:
    """See ``SecretKey``."""

    def __init__(
        self, specs: ClientSpecs, scheme: Scheme, envelope: tuple[bytes, bytes], key: Key
    ) -> None:
        self._specs = specs
        self._scheme = scheme
        self._envelope = envelope
        self._key = key

    def encrypt(self, row: Integers, compact: Compact | None = None) -> bytes:
        """See ``SecretKey.encrypt``."""
        if compact:
            return self._scheme.encrypt_compact(self._key, row, compact.body_bits)
        head, tail = self._envelope
        return head + self._scheme.encrypt(self._key, row) + tail

    def decrypt(self, result: bytes, compact: Compact | None = None) -> Integers:
        """See ``SecretKey.decrypt``."""
        if compact:
            return self._decrypt_compact(result, compact)
        ciphertexts = wire.result_ciphertexts(result, self._specs)
        return self._scheme.decrypt(self._key, ciphertexts, self._specs.n_outputs)

    def _decrypt_compact(self, result: bytes, compact: Compact) -> Integers:
        specs = self._specs
        expected = compact.result_bytes(specs.n_outputs, specs.lwe_dimension)
        if len(result) != expected:
            raise InvalidResult(
                f"a compact result of this circuit has {expected} bytes; {len(result)} bytes "
                "cannot be one"
            )
        return self._scheme.decrypt_compact(self._key, result, specs.n_outputs, compact.word_bits)

    def export(self) -> bytes:
        """See ``SecretKey.export``."""
        return wire.write_keyset(self._specs, np.frombuffer(self._key.bits(), dtype=np.uint8))

    def evaluation_keys(self) -> bytes:
        """See ``SecretKey.evaluation_keys``."""
        raise KeyUnusable("a linear circuit needs no evaluation keys")

    def wipe(self) -> None:
        """See ``SecretKey.wipe``."""
        self._key.wipe()
