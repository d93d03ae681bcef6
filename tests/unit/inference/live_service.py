"""The application on real connections inside the test's process, with evaluations that can wait."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from cloister_inference import app as application
from cloister_inference.api.connections import BoundedProtocol
from cloister_inference.evaluation.evaluator import Choice, Evaluator, EvaluatorSetting
from cloister_inference.serving.model import Model, load_model
from cloister_shared.registry import Version


class Gate:
    """Holds evaluations back until it is opened."""

    def __init__(self) -> None:
        self.entered: list[bytes] = []
        """Payloads whose evaluation has begun."""
        self._open = threading.Event()
        self._changed = threading.Condition()

    def wait_at(self, payload: bytes) -> None:
        """Wait until the gate is open."""
        with self._changed:
            self.entered.append(payload)
            self._changed.notify_all()
        assert self._open.wait(60)

    def open(self) -> None:
        """Let all evaluations go on, now and later."""
        self._open.set()

    def wait_entered(self, count: int) -> None:
        """Return when so many evaluations have begun."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.entered) >= count, 60)

    def hold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the gate before the circuit of every model that is loaded from now on."""

        def load(published: Version, work_dir: Path, evaluator: EvaluatorSetting) -> Model:
            model = load_model(published, work_dir, evaluator)
            return replace(model, evaluation=Choice(_Gated(self, model.circuit), "it is gated"))

        monkeypatch.setattr(application, "load_model", load)


class _Gated:
    def __init__(self, gate: Gate, circuit: Evaluator) -> None:
        self.name = circuit.name
        self._gate, self._circuit = gate, circuit

    def evaluate(self, payload: bytes) -> bytes:
        self._gate.wait_at(payload)
        result: bytes = self._circuit.evaluate(payload)
        return result


@contextmanager
def serving(app: FastAPI) -> Iterator[httpx.Client]:
    """Serve ``app`` at a free port, and give a client of it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, http=BoundedProtocol, loop="uvloop", ws="none", lifespan="on", log_config=None
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            until(lambda: server.started or not thread.is_alive())
            assert server.started
            with httpx.Client(
                base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60
            ) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join(60)


def until(condition: Callable[[], bool]) -> None:
    """Return when a condition holds, which it must before long."""
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.005)


def connect(client: httpx.Client) -> socket.socket:
    """Return a connection of one's own to the service of a client."""
    return socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=60)


def read_answer(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the head and the body of an answer that states its length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    (length,) = (
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    while len(body) < length:
        body += _receive(connection)
    return head, body


def _receive(connection: socket.socket) -> bytes:
    piece = connection.recv(1 << 16)
    assert piece, "the connection has ended"
    return piece
