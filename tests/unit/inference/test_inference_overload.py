"""More requests than can be evaluated: refused, given up or dropped, and never at others' cost."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_service import Gate, connect, read_answer, serving, until

from cloister_inference.api.body import HELD_BYTES, HeldBytes
from cloister_inference.app import create_app
from cloister_inference.observability.metrics import Metrics
from cloister_inference.options import Options
from cloister_shared.open_inference import encode_elements
from cloister_shared.registry import Registry

MODEL = "digits/versions/1"
INFER = f"/v2/models/{MODEL}/infer"


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    gate.hold(monkeypatch)
    return gate


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def busy(gate: Gate, metrics: Metrics, artifacts: Path) -> Iterator[httpx.Client]:
    """A service with room for two ciphertexts, which it evaluates one by one, with patience."""
    options = Options(threads=1, max_batch=2, queue=2, deadline_seconds=600)
    with serving(create_app(Registry(artifacts), options, metrics=metrics)) as client:
        yield client
        gate.open()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


def framed(protocol: Any, client: httpx.Client, elements: list[bytes], **parameters: object) -> Any:
    header = protocol.header(elements, parameters=parameters)
    return protocol.framed(client, MODEL, header, encode_elements(elements))


def queued(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("cloister_queue_elements")


def check_busy(protocol: Any, response: httpx.Response) -> str:
    """Raise unless the answer says when to come again; return its detail."""
    status, detail = protocol.problem(response)
    assert status == 503
    assert int(response.headers["retry-after"]) >= 1
    return str(detail)


def test_a_full_queue_refuses_at_once_and_hurts_nothing_else(
    busy: httpx.Client,
    gate: Gate,
    pool: ThreadPoolExecutor,
    protocol: Any,
    digits: Any,
    digits_rows: Any,
) -> None:
    payloads = [digits.encrypt(row) for row in digits_rows[:2]]
    accepted = pool.submit(framed, protocol, busy, payloads)
    gate.wait_entered(1)
    assert "busy" in check_busy(protocol, protocol.raw(busy, MODEL, payloads[0]))
    assert "busy" in check_busy(protocol, framed(protocol, busy, payloads))
    assert busy.get("/v2/health/ready").status_code == 200
    gate.open()
    _, results = protocol.unframe(accepted.result())
    assert [digits.decrypt(result) for result in results] == [
        digits.expected(row) for row in digits_rows[:2]
    ]
    assert protocol.raw(busy, MODEL, payloads[0]).status_code == 200


def test_a_full_queue_refuses_before_the_body_comes_and_keeps_the_connection(
    busy: httpx.Client,
    gate: Gate,
    pool: ThreadPoolExecutor,
    protocol: Any,
    digits_payload: bytes,
) -> None:
    accepted = pool.submit(framed, protocol, busy, [digits_payload] * 2)
    gate.wait_entered(1)
    head = (
        f"POST {INFER} HTTP/1.1\r\nHost: inference\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {len(digits_payload)}\r\n\r\n"
    ).encode()
    with connect(busy) as connection:
        connection.sendall(head)
        answer, _ = read_answer(connection)
        assert answer.startswith(b"HTTP/1.1 503 ")
        gate.open()
        assert accepted.result().status_code == 200
        # The body that was not wanted is skipped, and the next request is understood.
        connection.sendall(digits_payload + head + digits_payload)
        answer, _ = read_answer(connection)
        assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_batch_that_fits_partly_is_refused_as_a_whole(
    busy: httpx.Client,
    gate: Gate,
    pool: ThreadPoolExecutor,
    protocol: Any,
    digits_payload: bytes,
) -> None:
    accepted = pool.submit(protocol.raw, busy, MODEL, digits_payload)
    gate.wait_entered(1)
    check_busy(protocol, framed(protocol, busy, [digits_payload] * 2))
    beside = pool.submit(protocol.raw, busy, MODEL, digits_payload)
    gate.open()
    assert [accepted.result().status_code, beside.result().status_code] == [200, 200]
    assert len(gate.entered) == 2


def test_a_request_is_given_up_at_the_deadline(
    gate: Gate, metrics: Metrics, artifacts: Path, protocol: Any, digits_payload: bytes
) -> None:
    options = Options(threads=1, max_batch=2, deadline_seconds=0.3)
    with serving(create_app(Registry(artifacts), options, metrics=metrics)) as client:
        client.get("/v2/models/digits/ready")
        detail = check_busy(protocol, framed(protocol, client, [digits_payload] * 2))
        assert "in the time" in detail
        # That which has begun goes on, the other one is dropped.
        assert queued(metrics) == 1
        gate.open()
        until(lambda: queued(metrics) == 0)
    assert len(gate.entered) == 1


class TestTimeout:
    def test_gives_a_request_less_time(
        self, busy: httpx.Client, gate: Gate, protocol: Any, digits_payload: bytes
    ) -> None:
        check_busy(protocol, framed(protocol, busy, [digits_payload], timeout=50_000))
        gate.open()
        assert framed(protocol, busy, [digits_payload]).status_code == 200

    @pytest.mark.parametrize("timeout", [0, 60_000_000, (1 << 64) - 1])
    def test_may_be_none_or_long(
        self, busy: httpx.Client, gate: Gate, protocol: Any, digits_payload: bytes, timeout: int
    ) -> None:
        gate.open()
        assert framed(protocol, busy, [digits_payload], timeout=timeout).status_code == 200

    def test_does_not_extend_the_services(
        self, gate: Gate, artifacts: Path, protocol: Any, digits_payload: bytes
    ) -> None:
        options = Options(threads=1, max_batch=1, deadline_seconds=0.2)
        with serving(create_app(Registry(artifacts), options)) as client:
            client.get("/v2/models/digits/ready")
            check_busy(protocol, framed(protocol, client, [digits_payload], timeout=60_000_000))
            gate.open()

    @pytest.mark.parametrize("timeout", [-1, 1 << 64, 10**400, 0.5, "1", None, True])
    def test_is_a_number_of_microseconds(
        self, service: Any, protocol: Any, digits_payload: bytes, timeout: object
    ) -> None:
        response = framed(protocol, service, [digits_payload], timeout=timeout)
        status, detail = protocol.problem(response)
        assert status == 400
        assert "timeout" in detail


def test_what_a_client_that_leaves_has_sent_is_dropped(
    busy: httpx.Client,
    gate: Gate,
    metrics: Metrics,
    pool: ThreadPoolExecutor,
    protocol: Any,
    digits_payload: bytes,
) -> None:
    with connect(busy) as leaving:
        leaving.sendall(
            f"POST {INFER} HTTP/1.1\r\nHost: inference\r\n"
            "Content-Type: application/octet-stream\r\n"
            f"Content-Length: {len(digits_payload)}\r\n\r\n".encode()
            + digits_payload
        )
        gate.wait_entered(1)
        waiting = pool.submit(protocol.raw, busy, MODEL, digits_payload)
        until(lambda: queued(metrics) == 2)
    gone = {"method": "POST", "route": "/v2/models/{name}/versions/{version}/infer"}
    until(
        lambda: (
            metrics.registry.get_sample_value("cloister_requests_total", gone | {"status": "499"})
            == 1
        )
    )
    gate.open()
    assert waiting.result().status_code == 200
    assert queued(metrics) == 0


def test_elements_of_a_client_that_leaves_are_not_begun(
    busy: httpx.Client, gate: Gate, metrics: Metrics, protocol: Any, digits_payload: bytes
) -> None:
    busy.get("/v2/models/digits/ready")
    with (
        pytest.raises(httpx.ReadTimeout),
        httpx.Client(base_url=busy.base_url, timeout=0.5) as impatient,
    ):
        framed(protocol, impatient, [digits_payload] * 2)
    until(lambda: queued(metrics) == 1)
    gate.open()
    until(lambda: queued(metrics) == 0)
    assert len(gate.entered) == 1


def test_a_large_batch_lets_single_ciphertexts_pass(
    gate: Gate,
    metrics: Metrics,
    artifacts: Path,
    pool: ThreadPoolExecutor,
    protocol: Any,
    digits: Any,
    digits_rows: Any,
) -> None:
    *large, single = [digits.encrypt(row) for row in digits_rows[:9]]
    with serving(
        create_app(Registry(artifacts), Options(threads=1, max_batch=8), metrics=metrics)
    ) as client:
        batch = pool.submit(framed, protocol, client, large)
        gate.wait_entered(1)
        alone = pool.submit(protocol.raw, client, MODEL, single)
        until(lambda: queued(metrics) == 9)
        gate.open()
        assert digits.decrypt(alone.result().content) == digits.expected(digits_rows[8])
        _, results = protocol.unframe(batch.result())
        assert [digits.decrypt(result) for result in results] == [
            digits.expected(row) for row in digits_rows[:8]
        ]
    # Its turn comes before the rest of the batch.
    assert gate.entered.index(single) <= 2


def request_head(length: int) -> bytes:
    return (
        f"POST {INFER} HTTP/1.1\r\nHost: inference\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def test_bodies_that_arrive_together_hold_no_more_than_their_limit(
    artifacts: Path, protocol: Any, digits_payload: bytes
) -> None:
    app = create_app(Registry(artifacts), Options(threads=1, max_batch=1))
    held: HeldBytes = app.state.held
    others = HELD_BYTES - len(digits_payload) - 500
    with serving(app) as client:
        client.get("/v2/models/digits/ready")
        with connect(client) as slow:
            slow.sendall(request_head(len(digits_payload)) + digits_payload[:1000])
            until(lambda: held.held == 1000)
            held.add(others)
            assert "hold" in check_busy(protocol, protocol.raw(client, MODEL, digits_payload))
            held.release(others)
            assert protocol.raw(client, MODEL, digits_payload).status_code == 200
            slow.sendall(digits_payload[1000:])
            assert read_answer(slow)[0].startswith(b"HTTP/1.1 200 ")
        until(lambda: held.held == 0)


def test_a_body_for_which_memory_runs_out_on_the_way_is_refused(
    artifacts: Path, digits_payload: bytes
) -> None:
    app = create_app(Registry(artifacts), Options(threads=1, max_batch=1))
    held: HeldBytes = app.state.held
    with serving(app) as client, connect(client) as slow:
        slow.sendall(request_head(len(digits_payload)) + digits_payload[:1000])
        until(lambda: held.held == 1000)
        held.add(HELD_BYTES - 1000)
        slow.sendall(digits_payload[1000:])
        assert read_answer(slow)[0].startswith(b"HTTP/1.1 503 ")
        # All of it has come, and the connection is as good as before.
        held.release(HELD_BYTES - 1000)
        slow.sendall(request_head(len(digits_payload)) + digits_payload)
        assert read_answer(slow)[0].startswith(b"HTTP/1.1 200 ")
        until(lambda: held.held == 0)


def test_an_answer_is_held_until_it_is_read(
    artifacts: Path, protocol: Any, digits: Any, digits_payload: bytes, digits_rows: Any
) -> None:
    app = create_app(Registry(artifacts), Options(threads=1, max_batch=64))
    held: HeldBytes = app.state.held
    elements = [digits_payload] * 64
    data = encode_elements(elements)
    header = json.dumps(protocol.header(elements)).encode()
    with serving(app) as client, socket.socket() as slow:
        # Else the system buffers all of it.
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((client.base_url.host, client.base_url.port))
        head = request_head(len(header) + len(data)).removesuffix(b"\r\n")
        length = f"Inference-Header-Content-Length: {len(header)}\r\n\r\n".encode()
        slow.sendall(head + length + header + data)
        output_bytes = client.get("/v2/models/digits").json()["parameters"]["output_bytes"]
        until(lambda: held.held > 64 * output_bytes)
        answer, body = read_answer(slow)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert digits.decrypt(body[-output_bytes:]) == digits.expected(digits_rows[0])
        until(lambda: held.held == 0)
