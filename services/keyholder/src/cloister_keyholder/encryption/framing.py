"""The outer form of a serialised value: one Cap'n Proto message, and nothing after it.

Concrete's own reader hangs on some segment sizes that the data does not have, and takes no notice
of trailing bytes, so that a message is held to its form before it gets there.
Source: https://capnproto.org/encoding.html#serialization-over-a-stream
"""

import struct

WORD_BYTES = 8
SEGMENTS_LIMIT = 512
"""The most segments that Cap'n Proto's own stream reader accepts."""


def is_one_message(data: bytes) -> bool:
    """Whether ``data`` is exactly one Cap'n Proto message by its segment table.

    The table is the number of segments minus one and then each segment's length in words, all
    little-endian uint32, padded to a whole word; the segments follow.
    """
    if len(data) < WORD_BYTES:
        return False
    segments: int = struct.unpack_from("<I", data)[0] + 1
    table = -(-4 * (segments + 1) // WORD_BYTES) * WORD_BYTES
    if segments > SEGMENTS_LIMIT or table > len(data):
        return False
    words: int = sum(struct.unpack_from(f"<{segments}I", data, 4))
    return table + WORD_BYTES * words == len(data)
