"""Concrete's messages for linear circuits, written and read without Concrete.

Each is one Cap'n Proto message of Concrete 2.10's schema (concrete-protocol.capnp), in the very
layout that its builder gives it, of which a circuit's parameters decide every byte but those of the
ciphertexts or the key. So a message is written by filling in these bytes, and read
by comparing them: one of another layout is refused, and none is walked through.

Sources: https://capnproto.org/encoding.html;
https://github.com/zama-ai/concrete, compilers/concrete-protocol.
"""

import math
import struct

import numpy as np
import numpy.typing as npt

from cloister_keyholder.encryption.parameters import Ciphertext, ClientSpecs
from cloister_keyholder.errors import InvalidResult, KeyUnusable

Bits = npt.NDArray[np.uint8]

WORD_BYTES = 8
PRECISION = 64
"""Bits of an integer."""
BYTES, INTEGERS, POINTERS, STRUCTS = 2, 4, 6, 7
"""Kinds of a list's elements: 1, 4 and 8 bytes; structs of one size, after a word that tells it."""
EMPTY_STRUCT = struct.pack("<iHH", -4, 0, 0)
"""A pointer to a struct without a word; one with an offset of 0 would stand for none."""
SECOND_SEGMENT = struct.pack("<II", 2, 1)
"""A pointer to the start of the second segment, where what it stands for is told."""
FIRST_SEGMENT_WORDS = 1024
"""Of a message that is built without saying how long it will be: Cap'n Proto's default."""
SEED, NONE = 1, 0
"""Of how ciphertexts are compressed."""


def input_envelope(specs: ClientSpecs) -> tuple[bytes, bytes]:
    """Return what is before and after the ciphertexts of a serialised input."""
    return _envelope(specs.input, SEED)


def result_ciphertexts(result: bytes, specs: ClientSpecs) -> memoryview:
    """Return the ciphertexts in a serialised result, ``specs.result_data_bytes`` of them.

    Raises:
        InvalidResult: it is of another length or form.
    """
    head, tail = _envelope(specs.output, NONE)
    expected = len(head) + specs.result_data_bytes + len(tail)
    if len(result) != expected:
        raise InvalidResult(
            f"a result of this circuit has {expected} bytes; {len(result)} bytes cannot be one"
        )
    if not result.startswith(head) or not result.endswith(tail):
        raise InvalidResult("the result is damaged, or of another circuit")
    return memoryview(result)[len(head) : len(result) - len(tail)]


def write_keyset(specs: ClientSpecs, bits: Bits) -> bytes:
    """Return a key as Concrete's serialised key set, without evaluation keys.

    Args:
        specs: of the circuit, which has one key.
        bits: of the key, 0 or 1, shape (n,).
    """
    return _keyset_head(specs) + bits.astype("<u8").tobytes()


def read_keyset(serialised: bytes, specs: ClientSpecs) -> Bits:
    """Return the bits of the key in a serialised key set, shape (n,).

    Raises:
        KeyUnusable: these bytes are not a key of this circuit.
    """
    head = _keyset_head(specs)
    if (
        len(serialised) == len(head) + WORD_BYTES * specs.lwe_dimension
        and serialised.startswith(head)
        and (words := np.frombuffer(serialised, dtype="<u8", offset=len(head))).max() <= 1
    ):
        return words.astype(np.uint8)
    raise KeyUnusable("these bytes are not a key of this circuit")


def write_secret_key(specs: ClientSpecs, bits: Bits) -> bytes:
    """Return a key as Concrete's cache of keys keeps it, in a file ``secretKey_<id>``."""
    return _secret_key_head(specs) + bits.astype("<u8").tobytes()


def read_any_key(serialised: bytes, specs: ClientSpecs) -> Bits:
    """Return the bits of a key in either of Concrete's files; raises as ``read_keyset``."""
    head = _secret_key_head(specs)
    if serialised.startswith(head):
        serialised = _keyset_head(specs) + serialised[len(head) :]
    return read_keyset(serialised, specs)


def _envelope(ciphertext: Ciphertext, compression: int) -> tuple[bytes, bytes]:
    """Write Value around its payload: pointers to it and to what follows, RawInfo and TypeInfo."""
    encryption, encoding = ciphertext.encryption, ciphertext.encoding.integer
    concrete = ciphertext.concrete_shape.dimensions
    words = math.prod(concrete)
    raw_info = struct.pack("<II", PRECISION, 0) + _shape(concrete)
    abstract_shape = _shape(ciphertext.abstract_shape.dimensions)[WORD_BYTES:]
    concrete_shape = _shape(concrete)[WORD_BYTES:]
    modulus = _struct(0, 1, 1) + bytes(WORD_BYTES) + EMPTY_STRUCT
    encryption_info = (
        struct.pack("<IId", encryption.key_id, encryption.lwe_dimension, encryption.variance)
        + modulus
    )
    shapes = len(abstract_shape + concrete_shape) // WORD_BYTES
    type_info = b"".join(
        (
            bytes(WORD_BYTES),
            _struct(0, 1, 4),
            struct.pack("<IHH", PRECISION, compression, 0),
            _struct(3, 0, 1),
            _struct(2 + len(abstract_shape) // WORD_BYTES, 0, 1),
            _struct(1 + shapes, 2, 1),
            SECOND_SEGMENT,
            abstract_shape,
            concrete_shape,
            encryption_info,
        )
    )
    value = (
        _struct(0, 0, 3)
        + _struct(2, 0, 1)
        + _struct(3 + words, 1, 1)
        + _struct(2 + words + len(raw_info) // WORD_BYTES, 1, 1)
        + _list(0, POINTERS, 1)
        + _list(0, BYTES, WORD_BYTES * words)
    )
    encoding_info = _struct(0, 1, 1) + struct.pack("<II", encoding.width, encoding.is_signed)
    first = len(value + raw_info + type_info) // WORD_BYTES + words
    second = encoding_info + EMPTY_STRUCT
    return (
        _segments(first, len(second) // WORD_BYTES) + value,
        raw_info + type_info + second,
    )


def _keyset_head(specs: ClientSpecs) -> bytes:
    """Keyset up to the words of the key: no evaluation keys, one secret key."""
    no_key = _struct(0, 0, 2)
    first = b"".join(
        (
            _struct(0, 0, 2),
            _struct(1, 0, 3),
            _struct(6, 0, 1),
            3 * _list(2, STRUCTS, 0),
            3 * no_key,
            # A list of one struct of two pointers, told by the word before it.
            _list(0, STRUCTS, 2),
            _struct(1, 0, 2),
            _secret_key(specs),
        )
    )
    return _before_key(specs, first)


def _secret_key_head(specs: ClientSpecs) -> bytes:
    """LweSecretKey up to the words of the key."""
    return _before_key(specs, _struct(0, 0, 2) + _secret_key(specs))


def _secret_key(specs: ClientSpecs) -> bytes:
    """The members of LweSecretKey: what is known of it, and a payload in the second segment."""
    key = specs.keyset.lwe_secret_keys[0]
    return b"".join(
        (
            _struct(1, 1, 1),
            _struct(4, 0, 1),
            struct.pack("<II", key.id, 0),
            _struct(0, 2, 0),
            struct.pack("<IIQ", key.params.lwe_dimension, PRECISION, 0),
            _list(0, POINTERS, 1),
        )
    )


def _before_key(specs: ClientSpecs, members: bytes) -> bytes:
    """Return a message of which the words of the key are missing at the end.

    The key follows in the first segment where that has room, else it has a second one.
    """
    key = _list(0, BYTES, WORD_BYTES * specs.lwe_dimension)
    words = len(members + key) // WORD_BYTES
    if words + specs.lwe_dimension <= FIRST_SEGMENT_WORDS:
        return struct.pack("<II", 0, words + specs.lwe_dimension) + members + key
    return _segments(words, 1 + specs.lwe_dimension) + members + SECOND_SEGMENT + key


def _segments(first: int, second: int) -> bytes:
    """Return the table of two segments of so many words."""
    return struct.pack("<IIII", 1, first, second, 0)


def _struct(offset: int, data_words: int, pointers: int) -> bytes:
    """Return a pointer to a struct that begins so many words after it."""
    return struct.pack("<iHH", offset << 2, data_words, pointers)


def _list(offset: int, kind: int, count: int) -> bytes:
    """Return a pointer to a list of so many elements, or, of structs, words."""
    return struct.pack("<iI", offset << 2 | 1, count << 3 | kind)


def _shape(dimensions: tuple[int, ...]) -> bytes:
    """Return a pointer to a Shape, and the Shape, right after it."""
    numbers = struct.pack(f"<{len(dimensions)}I", *dimensions)
    padding = bytes(-len(numbers) % WORD_BYTES)
    return _struct(0, 0, 1) + _list(0, INTEGERS, len(dimensions)) + numbers + padding
