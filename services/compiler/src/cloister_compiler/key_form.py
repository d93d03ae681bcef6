"""The fixed form of serialised evaluation keys, to which the inference service holds every set.

All sets of a circuit share their length and every byte except the keys' own: a seed, and bodies
that may have any value. The form is found by comparing fresh sets, and must be the one that the
circuit's parameters say.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cloister_compiler.payload import WORD_BYTES
from cloister_shared.artifact import ByteRange, EvaluationKeyForm
from cloister_shared.errors import CloisterError

SEED_BYTES = 16


@dataclass(frozen=True)
class KeyForm:
    """What all serialised sets of evaluation keys of a circuit share."""

    form: EvaluationKeyForm
    fixed: bytes
    """Every byte outside the variable ranges, in order."""


def key_form(sets: Sequence[bytes], keyset: dict[str, Any]) -> KeyForm:
    """Find the form of evaluation keys by seeing which words of several fresh sets differ.

    Args:
        sets: serialised sets, at least two, of different secret keys.
        keyset: the member of that name of client.specs.json.

    Raises:
        CloisterError: the sets differ in length, or in other places than where the parameters say
            that keys lie.
    """
    if len({len(one) for one in sets}) != 1 or len(sets[0]) % WORD_BYTES:
        raise CloisterError("evaluation keys of this circuit differ in length, or are not words")
    words = np.stack([np.frombuffer(one, dtype="<u8") for one in sets])
    # A word of two keys is equal by chance once in 2^64.
    differing = (words != words[0]).any(axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], differing, [False]))))
    variable = [
        ByteRange(offset=int(start) * WORD_BYTES, length=int(end - start) * WORD_BYTES)
        for start, end in zip(edges[::2], edges[1::2], strict=True)
    ]
    if sorted(part.length for part in variable) != sorted(_data_bytes(keyset)):
        raise CloisterError(
            "evaluation keys of this circuit differ in other places than its parameters say; only "
            "seeded bootstrap and keyswitch keys are known"
        )
    return KeyForm(
        EvaluationKeyForm(length=len(sets[0]), variable=tuple(variable)),
        words[0][~differing].tobytes(),
    )


def _data_bytes(keyset: dict[str, Any]) -> Iterator[int]:
    """Bytes of each seeded key: a seed, then the bodies alone.

    A bootstrap key has one GGSW ciphertext for each bit of its input key, that is
    ``levels * (glwe_dimension + 1)`` GLWE ciphertexts with a body of ``polynomial_size`` words; a
    keyswitch key has ``levels`` LWE ciphertexts for each bit, with a body of one word
    (https://eprint.iacr.org/2018/421).
    """
    for key in keyset["lweBootstrapKeys"]:
        given = key["params"]
        bodies = given["levelCount"] * (given["glweDimension"] + 1) * given["polynomialSize"]
        yield SEED_BYTES + WORD_BYTES * given["inputLweDimension"] * bodies
    for key in keyset["lweKeyswitchKeys"]:
        given = key["params"]
        yield SEED_BYTES + WORD_BYTES * given["inputLweDimension"] * given["levelCount"]
