"""The fixed form of serialised inputs, to which the inference service holds every input."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cloister_compiler.runtime import FHEModelClient, FHEModelServer
from cloister_shared.errors import CloisterError
from cloister_shared.linear import SEEDED_LWE_BYTES

WORD_BYTES = 8
"""Cap'n Proto aligns all data to words (https://capnproto.org/encoding.html)."""


@dataclass(frozen=True)
class PayloadForm:
    """What all serialised inputs of a circuit share."""

    template: bytes
    """An input whose ciphertexts' own bytes are zero."""
    data_offset: int
    """Where the ciphertexts' own bytes begin."""
    data_bytes: int
    output_bytes: int
    evaluation_keys: bytes
    """The serialised empty set of evaluation keys."""


def payload_form(folder: Path, n_features: int) -> PayloadForm:
    """Find the form by encrypting under fresh keys and seeing which bytes differ.

    Args:
        folder: holds client.zip and server.zip.
        n_features: inputs of the circuit.

    Raises:
        CloisterError: the circuit needs evaluation keys, or its inputs differ in length or outside
            the ciphertexts' own bytes.
    """
    zeros = np.zeros((1, n_features), dtype=np.int64)
    payloads, key_sets = [], set()
    for _ in range(4):
        client = FHEModelClient(str(folder))
        client.generate_private_and_evaluation_keys()
        payloads.append(client.client.encrypt(zeros).serialize())
        key_sets.add(client.get_serialized_evaluation_keys())
        # The empty set is the same under every key.
        if len(key_sets) > 1:
            raise CloisterError(
                "this circuit needs evaluation keys; only linear models can be served"
            )
    template, offset, data_bytes = input_form(payloads, n_features)
    (evaluation_keys,) = key_sets
    output = FHEModelServer(str(folder)).run(payloads[0], evaluation_keys)
    return PayloadForm(template, offset, data_bytes, len(output), evaluation_keys)


def input_form(payloads: Sequence[bytes], n_features: int) -> tuple[bytes, int, int]:
    """Find the form of a circuit's inputs by seeing which bytes of several differ.

    Args:
        payloads: encryptions of the same values, each with randomness of its own.
        n_features: inputs of the circuit.

    Returns:
        An input whose ciphertexts' own bytes are zero, where these begin, and how many they are.

    Raises:
        CloisterError: the inputs differ in length or outside the ciphertexts' own bytes, or not at
            all.
    """
    if len({len(payload) for payload in payloads}) != 1:
        raise CloisterError("inputs of this circuit differ in length")
    stacked = np.stack([np.frombuffer(payload, dtype=np.uint8) for payload in payloads])
    differing = np.flatnonzero((stacked != stacked[0]).any(axis=0))
    if not differing.size:
        raise CloisterError("inputs of this circuit are equal under different keys: not encrypted")
    offset = int(differing[0]) // WORD_BYTES * WORD_BYTES
    data_bytes = SEEDED_LWE_BYTES * n_features
    if differing[-1] >= offset + data_bytes:
        raise CloisterError("inputs of this circuit differ outside their ciphertexts")
    stacked[:, offset : offset + data_bytes] = 0
    return stacked[0].tobytes(), offset, data_bytes
