"""The Open Inference Protocol v2 with its binary tensor extension, for ciphertexts.

A ciphertext is one element of a BYTES tensor. In the binary extension a body is a JSON header,
whose length the HTTP header ``Inference-Header-Content-Length`` gives, and then the tensors' data;
every BYTES element is preceded by its length as a little-endian uint32.
Source: https://github.com/kserve/open-inference-protocol and
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

import struct
from collections.abc import Sequence

from cloister_shared.errors import CloisterError

HEADER_LENGTH = "Inference-Header-Content-Length"
CLIENT_DIGEST = "Cloister-Client-Digest"
"""The SHA-256 of the client.zip that a ciphertext was encrypted for, where the body is raw."""
CLIENT_DIGEST_PARAMETER = "client_digest"
"""The same as a request parameter, where the body has a JSON header."""
EVALUATION_KEY = "Cloister-Evaluation-Key"
"""The SHA-256 of the uploaded evaluation keys to evaluate with, for circuits that need keys."""
EVALUATION_KEY_PARAMETER = "evaluation_key"
"""The same as a request parameter."""
OCTETS = "application/octet-stream"
"""The media type of a raw ciphertext or result in Concrete's form."""
COMPACT_TYPE = "application/vnd.cloister.compact"
"""The same in the compact form: of a body as its Content-Type, of an answer as what is accepted."""
FORM_PARAMETER = "form"
"""Of a tensor, where the body has a JSON header: ``concrete``, the default, or ``compact``."""
INPUT_NAME = "ciphertext"
OUTPUT_NAME = "result"

_LENGTH = struct.Struct("<I")


def encode_elements(elements: Sequence[bytes]) -> bytes:
    """Return the binary data of a BYTES tensor.

    Raises:
        CloisterError: an element has 4 GiB or more.
    """
    parts: list[bytes] = []
    for element in elements:
        if len(element) >= 1 << 32:
            raise CloisterError("an element of a BYTES tensor must be below 4 GiB")
        parts += (_LENGTH.pack(len(element)), element)
    return b"".join(parts)


def decode_elements(data: bytes | memoryview, count: int) -> list[bytes]:
    """Return the ``count`` elements of a BYTES tensor's binary data.

    Raises:
        CloisterError: ``count`` is negative, or the data ends early or goes on after the last
            element.
    """
    if count < 0:
        raise CloisterError(f"a tensor cannot have {count} elements")
    view = memoryview(data).cast("B")
    elements: list[bytes] = []
    position = 0
    for index in range(count):
        if position + _LENGTH.size > len(view):
            raise CloisterError(f"the tensor's data ends before element {index} of {count}")
        (length,) = _LENGTH.unpack_from(view, position)
        position += _LENGTH.size
        if position + length > len(view):
            raise CloisterError(
                f"element {index} is said to have {length} bytes; {len(view) - position} follow"
            )
        elements.append(bytes(view[position : position + length]))
        position += length
    if position != len(view):
        raise CloisterError(f"{len(view) - position} bytes follow the last of {count} elements")
    return elements
