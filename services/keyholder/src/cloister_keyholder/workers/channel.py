"""Messages between the key holder and the processes that encrypt for it."""

import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

_HEAD = struct.Struct("<BQdQ")
"""Kind, ticket, milliseconds, bytes that follow."""


# Python ignores SIGPIPE, but where a circuit was compiled in the same process, LLVM ends it on one.
_NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)


class Kind(IntEnum):
    """What a message asks for or says."""

    SPECS = 1
    """The circuit: its client.specs.json."""
    READY = 2
    ENCRYPT = 3
    """A row, as little-endian int64."""
    ENCRYPTED = 4
    """A ciphertext."""
    DECRYPT = 5
    """A result."""
    DECRYPTED = 6
    """Scores, as little-endian int64."""
    DISCARD = 7
    """The one request that is not answered."""
    REFUSED = 8
    """The name of an error, a line feed, and its message."""


@dataclass(frozen=True)
class Message:
    """One message; a field that its kind does not need is zero or empty."""

    kind: Kind
    payload: bytes = b""
    ticket: int = 0
    milliseconds: float = 0.0

    def __repr__(self) -> str:
        return f"Message({self.kind.name}, {len(self.payload)} bytes)"


class Channel:
    """One end of a connected pair of sockets, used by one thread at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            OSError: the other end is gone, or takes nothing for longer than the socket's timeout.
        """
        head = _HEAD.pack(message.kind, message.ticket, message.milliseconds, len(message.payload))
        self._connection.sendall(head + message.payload, _NO_SIGNAL)

    def receive(self) -> Message:
        """Wait for a message.

        Raises:
            EOFError: the other end is closed.
            OSError: nothing comes for longer than the socket's timeout.
        """
        kind, ticket, milliseconds, length = _HEAD.unpack(self._read(_HEAD.size))
        return Message(Kind(kind), self._read(length), ticket, milliseconds)

    def _read(self, length: int) -> bytes:
        data = bytearray(length)
        view, filled = memoryview(data), 0
        while filled < length:
            received = self._connection.recv_into(view[filled:])
            if not received:
                raise EOFError("the other end is closed")
            filled += received
        return bytes(data)

    def close(self) -> None:
        """Close this end."""
        self._connection.close()
