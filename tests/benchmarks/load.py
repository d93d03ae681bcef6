"""A load generator that costs little: blocking sockets, a thread a connection, prepared bytes."""

import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RECEIVE_BYTES = 1 << 18
TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Load:
    """What one run of requests took."""

    connections: int
    requests: int
    seconds: float
    milliseconds: list[float]
    """Of every request, from its first byte sent to its last byte received."""
    answers: list[bytes]
    """The body of each connection's first answer."""

    @property
    def per_second(self) -> float:
        """Requests a second, over all connections."""
        return self.requests / self.seconds

    def percentile(self, percent: float) -> float:
        """Milliseconds within which so many of the requests were answered."""
        return float(np.percentile(self.milliseconds, percent))


class Connection:
    """One connection over which requests go one after the other."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(RECEIVE_BYTES)

    def exchange(self, request: bytes) -> bytes:
        """Send a request and return the body of its answer.

        Raises:
            RuntimeError: the answer is not 200, or has no Content-Length.
        """
        self._socket.sendall(request)
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = bytes(received[:end]).lower()
        status = head.split(b" ", 2)[1]
        _, found, rest = head.partition(b"content-length:")
        if status != b"200" or not found:
            raise RuntimeError(f"answered {head[:200]!r}")
        length = end + 4 + int(rest.split(b"\r\n")[0])
        while len(received) < length:
            received += self._receive()
        return bytes(received[end + 4 :])

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _receive(self) -> memoryview:
        count = self._socket.recv_into(self._buffer)
        if not count:
            raise RuntimeError("the connection was closed")
        return memoryview(self._buffer)[:count]


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Return the bytes of a POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def run(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Send requests over so many connections for so long, each connection one after the other.

    Args:
        port: on loopback.
        requests: sent in turn, from the first by every connection.
        connections: at a time.
        seconds: after which no further request begins.
    """
    times: list[list[float]] = [[] for _ in range(connections)]
    answers: list[bytes] = [b""] * connections
    errors: list[Exception] = []
    start_together = threading.Barrier(connections + 1)

    def work(index: int) -> None:
        try:
            connection = Connection(port)
            start_together.wait()
            give_up = time.perf_counter() + seconds
            while time.perf_counter() < give_up:
                start = time.perf_counter()
                answer = connection.exchange(requests[len(times[index]) % len(requests)])
                times[index].append(1000 * (time.perf_counter() - start))
                answers[index] = answers[index] or answer
            connection.close()
        except Exception as error:  # noqa: BLE001 - raised again where it is seen
            errors.append(error)
            start_together.abort()

    threads = [threading.Thread(target=work, args=(index,)) for index in range(connections)]
    for thread in threads:
        thread.start()
    start_together.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - start
    if errors:
        raise errors[0]
    milliseconds = [value for each in times for value in each]
    return Load(connections, len(milliseconds), took, milliseconds, answers)
