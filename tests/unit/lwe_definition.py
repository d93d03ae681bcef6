"""Binary LWE by its definition, in Python's own integers and numpy: what the core is held to."""

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

Words = npt.NDArray[np.uint64]
Bits = npt.NDArray[np.uint8]

MODULUS = 1 << 64


def keystream(seed: bytes, blocks: int) -> bytes:
    """AES-128 of 0, 1, 2, ... as little-endian blocks."""
    counters = b"".join(block.to_bytes(16, "little") for block in range(blocks))
    encryptor = Cipher(algorithms.AES128(seed), modes.ECB()).encryptor()  # noqa: S305 - the definition
    return encryptor.update(counters)


def mask(seed: bytes, n: int) -> Words:
    """Words of the keystream from its second byte on, shape (n,)."""
    return np.frombuffer(keystream(seed, n // 2 + 1)[1 : 1 + 8 * n], dtype="<u8")


def phase(seed: bytes, body: int, key: Bits) -> int:
    """body - <mask, key>, modulo 2^64."""
    product = int(mask(seed, len(key))[key == 1].sum(dtype=np.uint64))
    return (body - product) % MODULUS


def phases(ciphertexts: bytes, key: Bits) -> list[int]:
    """Of seeded ciphertexts of 24 bytes each."""
    return [
        phase(lwe[:16], int.from_bytes(lwe[16:], "little"), key)
        for lwe in (ciphertexts[at : at + 24] for at in range(0, len(ciphertexts), 24))
    ]


def centred(value: int) -> int:
    """The representative of a value modulo 2^64 that is nearest to zero."""
    return (value + MODULUS // 2) % MODULUS - MODULUS // 2


def decode(phase_: int, width: int, *, is_signed: bool) -> int:
    """The nearest integer, as Concrete takes it from width + 1 bits."""
    unit = 1 << (63 - width)
    value = (phase_ + unit // 2) // unit % (2 << width)
    if is_signed and value >= 1 << (width - 1):
        return value % (1 << width) - (1 << width)
    return value


def pack(values: list[int], bits: int) -> bytes:
    """Values of so many bits, without gaps, lowest bits first."""
    stream = sum(value << (at * bits) for at, value in enumerate(values))
    return stream.to_bytes(-(-len(values) * bits // 8), "little")


def unpack(packed: bytes, bits: int) -> list[int]:
    """The values of ``pack``, and what padding is left."""
    stream = int.from_bytes(packed, "little")
    return [stream >> at & ((1 << bits) - 1) for at in range(0, 8 * len(packed) - bits + 1, bits)]
