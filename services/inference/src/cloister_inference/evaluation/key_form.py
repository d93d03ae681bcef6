"""Holds evaluation keys to their circuit's form before anything parses them.

As with inputs (see ``payload``): all sets of a circuit share their length and every byte except
the keys' own, and any value of those is a key. The segment table of the Cap'n Proto message, a
wrong one of which makes Concrete's reader run without end, is among the shared bytes.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from cloister_shared.artifact import EvaluationKeyForm
from cloister_shared.errors import CloisterError

WORD_BYTES = 8


class KeyForm:
    """The length and the fixed bytes of all serialised evaluation keys of a circuit."""

    def __init__(self, form: EvaluationKeyForm, fixed: bytes) -> None:
        """Take the form from an artifact.

        Args:
            form: where the keys' own bytes are.
            fixed: every other byte, in order.

        Raises:
            CloisterError: the two disagree, or do not make one Cap'n Proto message.
        """
        self.length = form.length
        self._parts: list[tuple[int, bytes]] = []
        position = taken = 0
        for start, end in (*((v.offset, v.offset + v.length) for v in form.variable), (None, None)):
            stop = form.length if start is None else start
            if stop < position:
                raise CloisterError("the artifact's ranges of evaluation keys overlap")
            self._parts.append((position, fixed[taken : taken + stop - position]))
            taken += stop - position
            position = stop if end is None else end
        if taken != len(fixed) or position != form.length:
            raise CloisterError("the artifact's form of evaluation keys does not fit its circuit")
        if not _frames(self._parts[0][1], form.length):
            raise CloisterError("the artifact's form of evaluation keys is not one message")

    def matches(self, stream: BinaryIO) -> bool:
        """Whether the set of evaluation keys in a file has the form of the circuit's.

        Raises:
            OSError: the file cannot be read.
        """
        if stream.seek(0, 2) != self.length:
            return False
        return all(self._reads(stream))

    def _reads(self, stream: BinaryIO) -> Iterator[bool]:
        for offset, expected in self._parts:
            stream.seek(offset)
            yield stream.read(len(expected)) == expected


def _frames(head: bytes, length: int) -> bool:
    """Whether a segment table says that one Cap'n Proto message has ``length`` bytes.

    Source: https://capnproto.org/encoding.html#serialization-over-a-stream
    """
    if len(head) < WORD_BYTES:
        return False
    segments: int = struct.unpack_from("<I", head)[0] + 1
    table = -(-4 * (segments + 1) // WORD_BYTES) * WORD_BYTES
    if table > len(head):
        return False
    words: int = sum(struct.unpack_from(f"<{segments}I", head, 4))
    return table + WORD_BYTES * words == length
