"""Connections: what is no request, heads without end, connections without a request."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import Response
from live_service import connect, read_answer, serving
from uvicorn.server import ServerState

from cloister_inference.api import connections
from cloister_inference.api.connections import BoundedProtocol
from cloister_inference.app import create_app
from cloister_inference.options import Options
from cloister_shared.registry import Registry

HEAD = b"GET /v2 HTTP/1.1\r\nHost: inference\r\n"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[httpx.Client]:
    with serving(create_app(Registry(tmp_path), Options(threads=1, max_batch=1))) as client:
        yield client


def check_refused(connection: socket.socket) -> str:
    """Raise unless a 400 comes and the connection ends; return its detail."""
    head, body = read_answer(connection)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in head
    assert b"content-type: application/problem+json" in head
    problem = json.loads(body)
    assert problem["status"] == 400
    assert problem["error"] == problem["detail"]
    return str(problem["detail"])


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", HEAD + b"a\x01b: c\r\n\r\n"]
)
def test_what_is_no_request_is_answered_as_a_problem(live: httpx.Client, sent: bytes) -> None:
    with connect(live) as connection:
        connection.sendall(sent)
        assert check_refused(connection)


@pytest.mark.parametrize("piece", [b"X-Filler: " + b"x" * 998 + b"\r\n", b"x" * 1000])
def test_a_head_has_an_end(live: httpx.Client, piece: bytes) -> None:
    with connect(live) as connection:
        connection.sendall(HEAD + b"X-Long: ")
        # Reset, or refused and then reset: it is still sending.
        with suppress(ConnectionError):
            for _ in range(2000):
                connection.sendall(piece)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")


class Sent(asyncio.Transport):
    """Keeps what a protocol answers."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += bytes(data)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


@pytest.mark.parametrize(("header_bytes", "taken"), [(60_000, True), (70_000, False)])
def test_a_head_that_comes_in_one_read_has_an_end(
    tmp_path: Path, header_bytes: int, taken: bool
) -> None:
    async def answer() -> tuple[bytes, bool]:
        config = uvicorn.Config(create_app(Registry(tmp_path), Options(threads=1, max_batch=1)))
        config.load()
        sent = Sent()
        protocol = BoundedProtocol(config, ServerState(), {}, asyncio.get_running_loop())
        protocol.connection_made(sent)
        protocol.data_received(HEAD + b"X-Long: " + b"x" * header_bytes + b"\r\n\r\n")
        for _ in range(100):
            await asyncio.sleep(0.01)
            if sent.data:
                break
        answered = sent.data, sent.closed
        protocol.connection_lost(None)
        return answered

    data, closed = asyncio.run(answer())
    assert data.startswith(b"HTTP/1.1 200 " if taken else b"HTTP/1.1 400 ")
    assert closed is not taken


def test_long_heads_and_many_of_them_are_taken(live: httpx.Client) -> None:
    with connect(live) as connection:
        for _ in range(5):
            connection.sendall(HEAD + b"X-Long: " + b"x" * 30_000 + b"\r\n")
            connection.sendall(b"X-More: " + b"x" * 20_000 + b"\r\n\r\n")
            assert read_answer(connection)[0].startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + b"\r\n" + HEAD])
def test_a_connection_that_asks_for_nothing_is_closed(
    live: httpx.Client, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    with connect(live) as connection:
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert received.count(b"HTTP/1.1 200 ") == (1 if sent.endswith(HEAD) and sent != HEAD else 0)


def test_an_idle_connection_stays_open_between_requests(
    live: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.1)
    with connect(live) as connection:
        connection.sendall(HEAD + b"\r\n")
        read_answer(connection)
        connection.settimeout(0.4)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(60)
        connection.sendall(HEAD + b"\r\n")
        assert read_answer(connection)[0].startswith(b"HTTP/1.1 200 ")


class TestReading:
    """A client that reads an answer of some megabytes with long breaks, or not at all."""

    BODY = bytes(16 << 20)
    REQUEST = b"GET /large HTTP/1.1\r\nHost: inference\r\n\r\n"

    @pytest.fixture
    def large(self, tmp_path: Path) -> Iterator[socket.socket]:
        """A connection to a service with a long answer."""

        async def answer() -> Response:
            return Response(self.BODY)

        app = create_app(Registry(tmp_path), Options(threads=1, max_batch=1))
        app.add_api_route("/large", answer)
        with serving(app) as client, connect(client) as connection:
            yield connection

    def test_that_has_stopped_ends_the_connection(
        self, monkeypatch: pytest.MonkeyPatch, large: socket.socket
    ) -> None:
        monkeypatch.setattr(connections, "STALL_SECONDS", 0.2)
        large.sendall(self.REQUEST)
        time.sleep(2)
        received = 0
        # Reset, or ended after what the system had buffered.
        with suppress(ConnectionResetError):
            while piece := large.recv(1 << 16):
                received += len(piece)
        assert received < len(self.BODY)

    def test_that_goes_on_slowly_ends_well(
        self, monkeypatch: pytest.MonkeyPatch, large: socket.socket
    ) -> None:
        monkeypatch.setattr(connections, "STALL_SECONDS", 1.0)
        large.sendall(self.REQUEST)
        received = 0
        while received < len(self.BODY):
            time.sleep(0.3)
            pause = received + (2 << 20)
            while received < min(pause, len(self.BODY)):
                piece = large.recv(1 << 16)
                assert piece
                received += len(piece)
