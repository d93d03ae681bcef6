"""A program that encrypts and decrypts for the key holder: ``cloister_keyholder.workers.worker``.

Keys are made, used and dropped here, and never leave; the process that talks to the service holds
none. It serves the socket whose number it is started with, and ends when the other end is closed,
however that came about.
"""

import socket
import sys
from contextlib import suppress

import numpy as np

from cloister_keyholder.encryption.circuit import Circuit
from cloister_keyholder.encryption.parameters import read_specs
from cloister_keyholder.errors import KeyholderError
from cloister_keyholder.workers.channel import Channel, Kind, Message
from cloister_keyholder.workers.encryptor import LocalEncryptor
from cloister_shared.concrete import contain_concrete


def serve(channel: Channel) -> None:
    """Answer messages until the other end is closed.

    Raises:
        EOFError: it is closed.
        OSError: it was closed while an answer was on the way.
    """
    encryptor = LocalEncryptor(Circuit(read_specs(channel.receive().payload), "concrete"))
    channel.send(Message(Kind.READY))
    while True:
        message = channel.receive()
        try:
            answer = _answer(encryptor, message)
        except KeyholderError as error:
            answer = Message(Kind.REFUSED, f"{type(error).__name__}\n{error}".encode())
        if answer is not None:
            channel.send(answer)


def _answer(encryptor: LocalEncryptor, message: Message) -> Message | None:
    match message.kind:
        case Kind.ENCRYPT:
            row = np.frombuffer(message.payload, dtype="<i8").astype(np.int64)
            done = encryptor.encrypt(row)
            return Message(Kind.ENCRYPTED, done.ciphertext, done.ticket, done.milliseconds)
        case Kind.DECRYPT:
            opened = encryptor.decrypt(message.ticket, message.payload)
            scores = opened.integer_scores.astype("<i8").tobytes()
            return Message(Kind.DECRYPTED, scores, message.ticket, opened.milliseconds)
        case Kind.DISCARD:
            encryptor.discard(message.ticket)
            return None
        case _:
            raise ValueError(f"a worker takes no {message.kind.name}")


def main() -> None:
    """Serve the socket whose file descriptor is the only argument."""
    contain_concrete()
    with socket.socket(fileno=int(sys.argv[1])) as connection, suppress(EOFError, OSError):
        serve(Channel(connection))


if __name__ == "__main__":
    main()
