"""The service as a process of its own, over real connections."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import numpy as np
import pytest

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
        match = re.search(r"http://127\.0\.0\.1:(\d+)", self.wait_for_line("Uvicorn running"))
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
