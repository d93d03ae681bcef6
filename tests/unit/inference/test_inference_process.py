"""The service as a process of its own, over real connections."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import numpy as np
import pytest
from live_service import read_answer, until

GIB = 1 << 30
INFER = "/v2/models/digits/versions/1/infer"


class Process:
    """``python -m cloister_inference`` on a free port."""

    def __init__(self, artifacts: Path, tmp: Path, **settings: str) -> None:
        self.tmp = tmp
        environment = os.environ | {
            "CLOISTER_ARTIFACTS_DIR": str(artifacts),
            "CLOISTER_PORT": "0",
            "CLOISTER_METRICS_PORT": "0",
            "CLOISTER_DRAIN_SECONDS": "0",
            "TMPDIR": str(tmp),
        }
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "cloister_inference"],
            env=environment | settings,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        address = re.compile(r"http://127\.0\.0\.1:(\d+)[/a-z]*")
        match = address.search(self.wait_for_line("metrics at"))
        assert match
        self.metrics_url = match[0]
        match = address.search(self.wait_for_line("Uvicorn running"))
        assert match
        self.port = int(match[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def _read(self) -> None:
        assert self.popen.stderr
        for line in self.popen.stderr:
            self._lines.put(line)
        self._lines.put("")

    def wait_for_line(self, text: str) -> str:
        seen = []
        while line := self._lines.get(timeout=60):
            seen.append(line)
            if text in line:
                return line
        raise AssertionError(f"the process ended without {text!r}: {seen}")

    def end(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(timeout=30)
        self._reader.join(timeout=30)
        assert self.popen.stderr
        self.popen.stderr.close()


Start = Callable[..., Process]


@pytest.fixture(scope="module")
def start(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    started: list[Process] = []

    def start_(**settings: str) -> Process:
        process = Process(artifacts, tmp_path_factory.mktemp("process"), **settings)
        started.append(process)
        return process

    yield start_
    for process in started:
        process.end()


@pytest.fixture(scope="module")
def process(start: Start) -> Process:
    return start(CLOISTER_THREADS="4")


def test_concurrent_results_are_all_right(
    process: Process, digits: Any, protocol: Any, digits_rows: np.ndarray[Any, Any]
) -> None:
    rows = digits_rows[:24]
    payloads = [digits.encrypt(row) for row in rows]
    with httpx.Client(base_url=process.url, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        responses = list(
            pool.map(lambda p: protocol.raw(client, "digits", p, digits.digest), payloads)
        )
    assert [response.status_code for response in responses] == [200] * 24
    decrypted = [digits.decrypt(response.content) for response in responses]
    assert decrypted == [digits.expected(row) for row in rows]


def pieces(total: int) -> Iterator[bytes]:
    piece = bytes(1 << 20)
    return (piece for _ in range(total >> 20))


@pytest.mark.parametrize("size", [2 << 20, 20 << 20, GIB])
def test_httpx_sees_that_a_body_is_too_large(process: Process, protocol: Any, size: int) -> None:
    headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
    response = httpx.post(process.url + INFER, content=pieces(size), headers=headers, timeout=30)
    assert protocol.problem(response)[0] == 413


def test_httpx_sees_that_a_length_is_required(process: Process, protocol: Any) -> None:
    response = httpx.post(process.url + INFER, content=pieces(GIB), timeout=30)
    assert protocol.problem(response)[0] == 411


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_curl_sees_that_a_body_is_too_large(process: Process, tmp_path: Path, expect: str) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(GIB)
    command = [
        *("curl", "-sS", "-X", "POST", "-T", str(large), "-H", expect),
        *("-H", "Content-Type: application/octet-stream"),
        *("-o", os.devnull, "-w", "%{http_code} %{size_upload}", process.url + INFER),
    ]
    # A connection that is cut off too early shows only now and then.
    for _ in range(8):
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        status, uploaded = done.stdout.split()
        assert status == "413"
        # The answer came long before the body was through.
        assert int(uploaded) < GIB // 2


def test_the_answer_comes_without_any_of_the_body(process: Process) -> None:
    with socket.create_connection(("127.0.0.1", process.port), timeout=30) as connection:
        connection.sendall(request_head(GIB))
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def request_head(length: int, *headers: str) -> bytes:
    lines = [
        f"POST {INFER} HTTP/1.1",
        "Host: inference",
        "Content-Type: application/octet-stream",
        f"Content-Length: {length}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def read_response(connection: socket.socket) -> bytes:
    """Read until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def begin_request(process: Process, length: int) -> socket.socket:
    """Return a connection on which the service waits for a body."""
    connection = socket.create_connection(("127.0.0.1", process.port), timeout=30)
    connection.sendall(request_head(length, "Expect: 100-continue"))
    assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")
    return connection


def test_a_running_request_is_answered_before_the_process_ends(
    start: Start, digits: Any, digits_payload: bytes, digits_rows: np.ndarray[Any, Any]
) -> None:
    process = start()
    with begin_request(process, len(digits_payload)) as connection:
        process.popen.send_signal(signal.SIGTERM)
        process.wait_for_line("Shutting down")
        connection.sendall(digits_payload)
        head, _, body = read_response(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert digits.decrypt(body) == digits.expected(digits_rows[0])
    assert process.popen.wait(timeout=60) == 0
    assert not list(process.tmp.iterdir())


def test_a_request_that_does_not_end_is_given_up(start: Start) -> None:
    process = start(CLOISTER_SHUTDOWN_SECONDS="1")
    with begin_request(process, 1000):
        process.popen.send_signal(signal.SIGTERM)
        assert process.popen.wait(timeout=60) == 0
    assert not list(process.tmp.iterdir())


class Client:
    """Sends one request after another to the first service that says it is ready."""

    def __init__(self, balancer: "Balancer", payload: bytes) -> None:
        self.answers: list[bytes] = []
        self._balancer, self._payload = balancer, payload
        self._connections: dict[int, socket.socket] = {}
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self._balancer.done.is_set():
            port = self._balancer.port
            if port not in self._connections:
                self._connections[port] = socket.create_connection(("127.0.0.1", port), 60)
            connection = self._connections[port]
            connection.sendall(request_head(len(self._payload)) + self._payload)
            head, body = read_answer(connection)
            assert head.startswith(b"HTTP/1.1 200 "), head
            self.answers.append(body)
            if b"connection: close" in head:
                self._connections.pop(port).close()
        for connection in self._connections.values():
            connection.close()


class Balancer:
    """Finds the service that is ready, as a load balancer's health checks do."""

    def __init__(self, ports: list[int]) -> None:
        self.port = ports[0]
        self.done = threading.Event()
        self.switched = threading.Event()
        self.statuses: list[int] = []
        self._ports = ports
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        while not self.done.wait(0.05):
            answer = httpx.get(f"http://127.0.0.1:{self.port}/v2/health/ready", timeout=60)
            self.statuses.append(answer.status_code)
            if answer.status_code != 200:
                self.port = self._ports[1]
                self.switched.set()


def test_a_stop_under_load_loses_nothing(
    start: Start, digits: Any, digits_rows: np.ndarray[Any, Any]
) -> None:
    stopping = start(CLOISTER_DRAIN_SECONDS="2")
    other = start()
    for process in (stopping, other):
        assert httpx.get(process.url + "/v2/models/digits/ready", timeout=60).is_success
    rows = digits_rows[:4]
    balancer = Balancer([stopping.port, other.port])
    clients = [Client(balancer, digits.encrypt(row)) for row in rows]
    try:
        until(lambda: all(len(client.answers) > 5 for client in clients))
        stopping.popen.send_signal(signal.SIGTERM)
        assert balancer.switched.wait(60)
        assert stopping.popen.wait(timeout=60) == 0
        seen = [len(client.answers) for client in clients]
        until(
            lambda: all(
                len(client.answers) > before + 5
                for client, before in zip(clients, seen, strict=True)
            )
        )
    finally:
        balancer.done.set()
        for client in clients:
            client.thread.join(60)
        balancer.thread.join(60)
    assert balancer.statuses.count(404) == 1
    assert set(balancer.statuses) == {200, 404}
    for client, row in zip(clients, rows, strict=True):
        (answer,) = set(client.answers)
        assert digits.decrypt(answer) == digits.expected(row)


def test_while_it_drains_all_is_served_but_it_is_not_ready(
    start: Start, digits_payload: bytes, protocol: Any
) -> None:
    process = start(CLOISTER_DRAIN_SECONDS="60")
    with httpx.Client(base_url=process.url, timeout=60) as client:
        ready = client.get("/v2/health/ready")
        assert ready.status_code == 200
        assert "connection" not in ready.headers
        process.popen.send_signal(signal.SIGTERM)
        process.wait_for_line("stopping")
        for _ in range(3):
            ready = client.get("/v2/health/ready")
            status, detail = protocol.problem(ready)
            assert (status, detail.partition(":")[0]) == (404, "the service is stopping")
            assert ready.json()["ready"] is False
            live = client.get("/v2/health/live")
            answer = protocol.raw(client, "digits/versions/1", digits_payload)
            assert (live.status_code, answer.status_code) == (200, 200)
            for response in (ready, live, answer):
                assert response.headers["connection"] == "close"
        # It still holds what it has begun, and a second signal does not wait for it.
        with begin_request(process, len(digits_payload)):
            process.popen.send_signal(signal.SIGTERM)
            assert process.popen.wait(timeout=30) == 128 + signal.SIGTERM
    assert not list(process.tmp.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.05, 0.15, 0.3])
def test_a_signal_while_models_are_loaded_ends_it_as_it_should(
    artifacts: Path, tmp_path: Path, number: signal.Signals, seconds: float
) -> None:
    # Concrete, while it compiles, has a handler of its own for SIGINT, which kills the process.
    settings = {"ARTIFACTS_DIR": str(artifacts), "PORT": "0", "METRICS_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "cloister_inference"],
        env=os.environ
        | {f"CLOISTER_{name}": value for name, value in settings.items()}
        | {"CLOISTER_DRAIN_SECONDS": "0", "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert any("serving with" in line for line in process.stderr)
    time.sleep(seconds)
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 0, rest
    assert not list(tmp_path.iterdir())


def test_a_second_signal_ends_a_shutdown(start: Start) -> None:
    process = start(CLOISTER_SHUTDOWN_SECONDS="600")
    with begin_request(process, 1000):
        process.popen.send_signal(signal.SIGINT)
        process.wait_for_line("Waiting for")
        process.popen.send_signal(signal.SIGINT)
        assert process.popen.wait(timeout=30) == 128 + signal.SIGINT
    assert not list(process.tmp.iterdir())


def test_log_lines_are_json_where_it_is_asked_for(start: Start) -> None:
    process = start(CLOISTER_LOG_FORMAT="json")
    httpx.get(process.url + "/v2", headers={"X-Request-Id": "mine"}, timeout=60)
    line = json.loads(process.wait_for_line("/v2"))
    assert (line["request_id"], line["route"], line["status"]) == ("mine", "/v2", 200)
    process.popen.send_signal(signal.SIGTERM)
    for text in ("stopping", "Shutting down", "Finished"):
        line = json.loads(process.wait_for_line(text))
        assert (line["level"], line["service"]) == ("INFO", "inference")
        assert text in line["message"]


def test_metrics_are_at_a_port_of_their_own(process: Process, digits_payload: bytes) -> None:
    answers = httpx.get(process.url + "/metrics", timeout=60)
    assert answers.status_code == 404
    text = httpx.get(process.metrics_url, timeout=60).text
    assert "cloister_queue_elements 0.0" in text
    assert "process_cpu_seconds_total" in text


def test_a_taken_port_for_metrics_is_named(process: Process) -> None:
    taken = httpx.URL(process.metrics_url).port
    done = subprocess.run(
        [sys.executable, "-m", "cloister_inference"],
        env=os.environ | {"CLOISTER_PORT": "0", "CLOISTER_METRICS_PORT": str(taken)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"port {taken}" in done.stderr
    assert "CLOISTER_METRICS_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_queue_that_no_batch_fits_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cloister_inference"],
        env=os.environ | {"CLOISTER_MAX_BATCH": "64", "CLOISTER_QUEUE": "63"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "CLOISTER_QUEUE is 63" in done.stderr


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cloister_inference"],
        env=os.environ | {"CLOISTER_MAX_BATCH": "0", "CLOISTER_THREADS": "many"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "CLOISTER_MAX_BATCH" in done.stderr
    assert "CLOISTER_THREADS" in done.stderr
    assert "Traceback" not in done.stderr


BROKEN = """
from contextlib import asynccontextmanager
from fastapi import FastAPI
import cloister_inference.__main__ as program

@asynccontextmanager
async def fail(app):
    raise OSError("the volume is full")
    yield

program.create_app = lambda *_, **__: FastAPI(lifespan=fail)
program.main()
"""


def test_a_service_that_cannot_start_does_not_end_well() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", BROKEN],
        env=os.environ | {"CLOISTER_PORT": "0", "CLOISTER_METRICS_PORT": "0"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "did not start" in ended.stderr


AFTER_A_CIRCUIT = """
import os, socket, sys, tempfile
from pathlib import Path
from cloister_inference.serving.model import load_model
from cloister_shared.registry import Registry
load_model(Registry(Path(sys.argv[1])).open("digits", 1), Path(tempfile.mkdtemp()))
ours, theirs = socket.socketpair()
theirs.close()
try:
    os.write(ours.fileno(), b"an answer that nobody reads")
except BrokenPipeError:
    print("goes on")
"""


def test_a_connection_that_ends_does_not_end_the_process(artifacts: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", AFTER_A_CIRCUIT, str(artifacts)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "goes on\n")
