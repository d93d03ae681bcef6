"""Holds a serialised input to its circuit's form before anything parses it.

Concrete's deserialisation is not made for hostile input: it accepts trailing bytes of any length,
and a corrupt segment size in the framing makes it run without end. All inputs of a circuit share
every byte except those of their ciphertexts (seeds and bodies, each value of which is valid), so
comparing the others with the artifact's template leaves nothing for it to trip over.
"""

import os

from cloister_inference.problems import MalformedRequestError
from cloister_shared.artifact import Circuit
from cloister_shared.errors import CloisterError


class PayloadForm:
    """The length and the fixed bytes of all serialised inputs of a circuit."""

    def __init__(self, template: bytes, circuit: Circuit) -> None:
        """Take the form from an artifact.

        Args:
            template: an input whose ciphertexts' own bytes are zero.
            circuit: where those bytes are.

        Raises:
            CloisterError: template and circuit disagree.
        """
        self._length = circuit.input_bytes
        self._data_start = circuit.input_data_offset
        self._data_end = circuit.input_data_offset + circuit.input_data_bytes
        if len(template) != self._length or self._data_end > self._length:
            raise CloisterError("the artifact's input template does not fit its circuit")
        self._before, self._after = template[: self._data_start], template[self._data_end :]

    def random(self) -> bytes:
        """Return an input of random ciphertexts, under a key that nobody has."""
        return self._before + os.urandom(self._data_end - self._data_start) + self._after

    def check(self, payload: bytes, index: int) -> None:
        """Raise unless ``payload`` has the form of an input.

        Args:
            payload: a serialised input, from anywhere.
            index: its place in the batch, for the message.

        Raises:
            MalformedRequestError: it has another length, or other fixed bytes.
        """
        if len(payload) != self._length:
            raise MalformedRequestError(
                f"element {index} has {len(payload)} bytes; an encrypted input of this model has "
                f"{self._length}"
            )
        if payload[: self._data_start] != self._before or payload[self._data_end :] != self._after:
            raise MalformedRequestError(
                f"element {index} is not an encrypted input of this model; encrypt it with this "
                "version's client.zip"
            )
