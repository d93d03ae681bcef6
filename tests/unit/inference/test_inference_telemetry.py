"""What can be seen of the service: metrics, log lines, request ids; and what cannot."""

import asyncio
import io
import json
import logging
import math
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request, Response
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from live_service import connect, read_answer, serving
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message, Receive, Scope, Send

from cloister_inference.app import create_app
from cloister_inference.lifecycle import Lifecycle
from cloister_inference.observability.exposition import exposed
from cloister_inference.observability.metrics import Metrics
from cloister_inference.observability.telemetry import Telemetry
from cloister_inference.options import Options
from cloister_shared.errors import CloisterError
from cloister_shared.logs import JsonFormatter
from cloister_shared.open_inference import encode_elements
from cloister_shared.registry import Registry

INFER_ROUTE = "/v2/models/{name}/versions/{version}/infer"


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def lifecycle() -> Lifecycle:
    return Lifecycle()


@pytest.fixture
def observed(artifacts: Path, metrics: Metrics, lifecycle: Lifecycle) -> Iterator[TestClient]:
    app = create_app(
        Registry(artifacts),
        Options(threads=2, max_batch=4),
        metrics=metrics,
        lifecycle=lifecycle,
    )

    @app.get("/defect")
    def defect() -> None:
        raise ZeroDivisionError("the secret of the house")

    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(metrics: Metrics) -> Samples:
    """What Prometheus sees, over HTTP."""
    with exposed(metrics.registry, "127.0.0.1", 0) as port:
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


class TestMetrics:
    def test_agree_with_the_requests_that_were_made(
        self, observed: TestClient, metrics: Metrics, protocol: Any, digits_payload: bytes
    ) -> None:
        raw = [protocol.raw(observed, "digits/versions/1", digits_payload) for _ in range(3)]
        elements = [digits_payload] * 4
        header = protocol.header(elements)
        framed = protocol.framed(observed, "digits/versions/1", header, encode_elements(elements))
        refused = protocol.raw(observed, "digits/versions/1", digits_payload[:-1])
        unknown = observed.get("/v2/models/nobody")
        answers = [*raw, framed, refused, unknown]
        assert [answer.status_code for answer in answers] == [200] * 4 + [400, 404]

        samples = scrape(metrics)
        requests = "cloister_requests_total"
        infer = {"method": "POST", "route": INFER_ROUTE}
        assert value(samples, requests, **infer, status="200") == 4
        assert value(samples, requests, **infer, status="400") == 1
        described = {"method": "GET", "route": "/v2/models/{name}", "status": "404"}
        assert value(samples, requests, **described) == 1
        seconds = "cloister_request_duration_seconds"
        assert value(samples, f"{seconds}_count", route=INFER_ROUTE) == 5
        assert value(samples, f"{seconds}_sum", route=INFER_ROUTE) > 0
        sent = sum(len(answer.request.content) for answer in answers)
        assert value(samples, "cloister_received_bytes_total") == sent
        received = sum(len(answer.content) for answer in answers)
        assert value(samples, "cloister_sent_bytes_total") == received
        assert value(samples, "cloister_queue_elements") == 0
        assert value(samples, "cloister_queue_limit_elements") == 256
        assert value(samples, "cloister_deadline_seconds") == 30
        assert value(samples, "cloister_queue_duration_seconds_count") == 7
        assert value(samples, "cloister_serialise_duration_seconds_count") == 1
        (evaluated,) = [
            (dict(labels), count)
            for (name, labels), count in samples.items()
            if name == "cloister_evaluate_duration_seconds_count"
        ]
        labels, count = evaluated
        assert (labels["model"], labels["version"], count) == ("digits", "1", 7)
        assert labels["evaluator"]

    def test_tell_of_the_process(self, metrics: Metrics) -> None:
        samples = scrape(metrics)
        assert value(samples, "process_resident_memory_bytes") > 0
        assert any(name == "python_info" for name, _ in samples)

    def test_tell_how_full_a_volume_is(self, metrics: Metrics, tmp_path: Path) -> None:
        metrics.watch_volume("artifacts", tmp_path)
        metrics.watch_volume("evaluation-keys", tmp_path / "missing")
        samples = scrape(metrics)
        usage = shutil.disk_usage(tmp_path)
        assert value(samples, "cloister_volume_size_bytes", volume="artifacts") == usage.total
        free = value(samples, "cloister_volume_free_bytes", volume="artifacts")
        # Others may write there meanwhile.
        assert 0 < free <= usage.total
        assert math.isnan(value(samples, "cloister_volume_free_bytes", volume="evaluation-keys"))

    def test_have_no_labels_that_clients_make(self, observed: TestClient, metrics: Metrics) -> None:
        for index in range(5):
            observed.get(f"/made/up/{index}")
            observed.request(f"MAKE{index}", "/v2")
            observed.get(f"/v2/models/{index}")
            observed.get("/v2/models/digits/versions/1/client", headers={"X": str(index)})
        labels = {
            label
            for (name, labels) in scrape(metrics)
            if name == "cloister_requests_total"
            for label in dict(labels).values()
        }
        assert not [label for label in labels if "made" in label or "MAKE" in label]
        assert labels == {
            *("GET", "other", "200", "404", "405"),
            *("/v2", "/v2/models/{name}", "/v2/models/{name}/versions/{version}/client"),
        }

    def test_count_a_defect(self, observed: TestClient, metrics: Metrics) -> None:
        observed.get("/defect")
        labels = {"method": "GET", "route": "/defect", "status": "500"}
        assert value(scrape(metrics), "cloister_requests_total", **labels) == 1

    def test_say_where_they_are(self, metrics: Metrics, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO), exposed(metrics.registry, "127.0.0.1", 0):
            address = caplog.messages[-1].split()[-1]
            assert httpx.get(address, timeout=30).is_success
        with pytest.raises(httpx.ConnectError):
            httpx.get(address, timeout=30)

    def test_need_a_port_of_their_own(self, metrics: Metrics) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with (
                pytest.raises(CloisterError, match=rf"port {port} .*CLOISTER_METRICS_PORT"),
                exposed(metrics.registry, "127.0.0.1", port),
            ):
                raise AssertionError("the port is taken")


class TestRequestId:
    @pytest.mark.parametrize("stated", ["42", "x" * 128, "a b", "!~"])
    def test_comes_back(self, observed: TestClient, stated: str) -> None:
        response = observed.get("/v2", headers={"X-Request-Id": stated})
        assert response.headers.get_list("x-request-id") == [stated]

    @pytest.mark.parametrize("stated", [b"", b"x" * 129, b"\xc3\xa9", b"a\tb", b"\x7f"])
    def test_is_made_where_there_is_none_that_can_be_used(
        self, observed: TestClient, stated: bytes
    ) -> None:
        headers = [(b"x-request-id", stated)]
        made = [observed.get("/v2", headers=headers).headers["x-request-id"] for _ in range(2)]
        assert made[0] != made[1]
        for request_id in made:
            assert request_id.encode() != stated
            assert 1 <= len(request_id) <= 128

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/v2/models/nobody", 404),
            ("/nothing", 404),
            ("/defect", 500),
            ("/v2/health/ready", 404),
        ],
    )
    def test_comes_with_errors_too(
        self,
        observed: TestClient,
        lifecycle: Lifecycle,
        protocol: Any,
        path: str,
        status: int,
    ) -> None:
        lifecycle.stopping = True
        response = observed.get(path, headers={"X-Request-Id": "mine"})
        assert protocol.problem(response)[0] == status
        assert response.headers["x-request-id"] == "mine"


def lines_of(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.records
        if record.name == "cloister_inference.observability.telemetry"
    ]


def as_json(record: logging.LogRecord) -> dict[str, Any]:
    text = JsonFormatter("inference").format(record)
    assert "\n" not in text
    line: dict[str, Any] = json.loads(text)
    return line


class TestAccessLine:
    @pytest.fixture(autouse=True)
    def _info(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)

    def test_tells_of_a_request(
        self,
        observed: TestClient,
        protocol: Any,
        digits_payload: bytes,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        stated = {"X-Request-Id": "mine", "Authorization": "Bearer hush"}
        response = protocol.raw(observed, "digits/versions/1", digits_payload, **stated)
        (record,) = lines_of(caplog)
        line = as_json(record)
        milliseconds = line.pop("milliseconds")
        assert milliseconds > 0
        assert line.pop("time").endswith("+00:00")
        assert line.pop("message") == record.getMessage()
        assert line == {
            "level": "INFO",
            "logger": "cloister_inference.observability.telemetry",
            "service": "inference",
            "method": "POST",
            "path": "/v2/models/digits/versions/1/infer",
            "route": INFER_ROUTE,
            "status": 200,
            "received_bytes": len(digits_payload),
            "sent_bytes": len(response.content),
            "request_id": "mine",
            "owner": "anonymous",
        }
        assert record.getMessage() == (
            f"POST /v2/models/digits/versions/1/infer 200 in {milliseconds:.3f} ms, "
            f"{len(digits_payload)} bytes in, {len(response.content)} out, "
            'owner "anonymous", id "mine"'
        )

    def test_names_the_owner(self, observed: TestClient, caplog: pytest.LogCaptureFixture) -> None:
        async def mine(request: Request) -> Response:
            request.state.owner = "a hospital"
            return Response()

        app: Any = observed.app
        app.add_api_route("/mine", mine)
        observed.get("/mine")
        (record,) = lines_of(caplog)
        assert as_json(record)["owner"] == "a hospital"
        assert 'owner "a hospital"' in record.getMessage()

    def test_shares_its_id_with_all_lines_about_the_request(
        self, observed: TestClient, json_lines: Callable[[], list[dict[str, Any]]]
    ) -> None:
        async def told(request: Request) -> Response:
            await asyncio.to_thread(logging.getLogger("elsewhere").info, "at work")
            return Response()

        app: Any = observed.app
        app.add_api_route("/told", told)
        observed.get("/told", headers={"X-Request-Id": "mine"})
        logging.getLogger("elsewhere").info("idle")
        lines = {line["message"]: line for line in json_lines()}
        assert lines["at work"]["request_id"] == "mine"
        assert "request_id" not in lines["idle"]

    def test_is_left_out_for_health_checks(
        self, observed: TestClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        observed.get("/v2/health/live")
        observed.get("/v2/health/ready")
        assert lines_of(caplog) == []
        caplog.set_level(logging.DEBUG)
        observed.get("/v2/health/live")
        assert len(lines_of(caplog)) == 1

    def test_leaves_the_query_out(
        self, observed: TestClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        observed.get("/v2?key=hush")
        assert "hush" not in JsonFormatter("x").format(lines_of(caplog)[0])

    def test_tells_of_a_defect_with_its_traceback(
        self, observed: TestClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        observed.get("/defect", headers={"X-Request-Id": "mine"})
        failed, access = map(as_json, lines_of(caplog))
        assert failed["request_id"] == access["request_id"] == "mine"
        assert failed["level"] == "ERROR"
        assert "ZeroDivisionError" in failed["exc_info"]
        assert access["status"] == 500


@given(
    path=st.text(),
    raw_path=st.none() | st.binary(),
    request_id=st.binary(),
    method=st.sampled_from(["GET", "M-SEARCH"]),
)
def test_nothing_that_a_client_sends_breaks_a_log_line(
    path: str, raw_path: bytes | None, request_id: bytes, method: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 404})
        await send({"type": "http.response.body"})

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None: ...

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("cloister_inference.observability.telemetry")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": raw_path,
        "headers": [(b"x-request-id", request_id)],
    }
    try:
        asyncio.run(Telemetry(app, Metrics(), Lifecycle())(scope, receive, send))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    (line, end) = stream.getvalue().split("\n")
    assert end == ""
    assert line.isascii()
    assert line.isprintable()
    assert line.startswith(f"{method} ")


def test_a_line_break_in_a_path_stays_encoded(
    artifacts: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    app = create_app(Registry(artifacts), Options(threads=1, max_batch=1))
    with serving(app) as client, connect(client) as connection:
        connection.sendall(b"GET /v2/%0aERROR%1b[31m HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_answer(connection)[0].startswith(b"HTTP/1.1 404 ")
    assert [record.getMessage().split()[1] for record in lines_of(caplog)] == [
        "/v2/%0aERROR%1b[31m"
    ]
