"""Retries, errors and limits of the HTTP layer."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from fake_service import problem

from cloister_keyholder import InvalidAnswer, KeyholderError, RequestRefused, ServiceUnavailable
from cloister_keyholder.service.transport import ANSWER_SECONDS, RETRY_AFTER_LIMIT, Transport
from cloister_keyholder.service.waiting import wait_for_model

URL = "http://service.test:8080"
Handler = Callable[[httpx.Request], httpx.Response]


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def answers(*given: httpx.Response | Exception) -> Handler:
    """Answer each request with the next of these, the last one for ever."""
    left = list(given)

    def handler(_request: httpx.Request) -> httpx.Response:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler


def transport(handler: Handler, clock: Clock, retry_seconds: float = 60) -> Transport:
    return Transport(
        URL,
        retry_seconds=retry_seconds,
        transport=httpx.MockTransport(handler),
        sleep=clock.sleep,
        clock=clock,
    )


def ok() -> httpx.Response:
    return httpx.Response(200, content=b"ok")


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("gone"),
        httpx.ReadTimeout("slow"),
        problem(502, "x"),
        problem(503, "x"),
        problem(504, "x"),
        problem(429, "x"),
    ],
    ids=str,
)
def test_what_may_pass_is_tried_again(failure: httpx.Response | Exception) -> None:
    clock = Clock()
    reply = transport(answers(failure, failure, ok()), clock).post("/x", b"body", {}, limit=10)
    assert reply.body == b"ok"
    assert len(clock.slept) == 2


def test_a_request_has_an_id_which_its_repetitions_keep_and_no_other_has() -> None:
    clock, seen = Clock(), list[str]()

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["X-Request-Id"])
        return ok() if len(seen) % 3 == 0 else problem(503, "x")

    sender = transport(handler, clock)
    for _ in range(2):
        sender.post("/x", b"body", {}, limit=10)
    assert len(seen) == 6
    assert len(set(seen[:3])) == len(set(seen[3:])) == 1
    assert len(set(seen)) == 2


def test_one_that_is_given_up_is_told_with_its_id() -> None:
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["X-Request-Id"])
        return problem(503, "x")

    with pytest.raises(ServiceUnavailable) as given_up:
        transport(handler, Clock()).get("/x", limit=10)
    assert f"request {seen[0]}" in str(given_up.value)


def test_a_refused_connection_for_a_while_is_outlasted() -> None:
    clock = Clock()

    def handler(_request: httpx.Request) -> httpx.Response:
        if clock.now < 40:
            raise httpx.ConnectError("refused")
        return ok()

    assert transport(handler, clock).get("/x", limit=10).body == b"ok"
    assert 40 <= clock.now <= 60
    assert all(
        0.5 * min(8, 0.25 * 2**i) <= slept <= min(8, 0.25 * 2**i)
        for i, slept in enumerate(clock.slept)
    )


def test_retrying_ends() -> None:
    clock = Clock()
    with pytest.raises(ServiceUnavailable, match=r"service\.test:8080.*refused.*CLOISTER_URL"):
        transport(answers(httpx.ConnectError("refused")), clock).get("/x", limit=10)
    assert 40 <= clock.now <= 60


def test_no_retries_if_none_are_allowed() -> None:
    clock = Clock()
    with pytest.raises(ServiceUnavailable):
        transport(answers(httpx.ConnectError("no"), ok()), clock, 0).get("/x", limit=10)
    assert not clock.slept


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("7", 7, 7),
        ("100000", RETRY_AFTER_LIMIT, RETRY_AFTER_LIMIT),
        ("-5", 0, 0.25),
        ("soon", 0, 0.25),
        ("9" * 400, RETRY_AFTER_LIMIT, RETRY_AFTER_LIMIT),
    ],
)
def test_retry_after_is_honoured_up_to_a_limit(value: str, low: float, high: float) -> None:
    clock = Clock()
    busy = problem(503, "busy", **{"Retry-After": value})
    transport(answers(busy, ok()), clock).get("/x", limit=10)
    assert low <= clock.slept[0] <= high


def test_retry_after_may_be_a_date() -> None:
    clock = Clock()
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=3600), usegmt=True)
    busy = problem(503, "busy", **{"Retry-After": at})
    transport(answers(busy, ok()), clock).get("/x", limit=10)
    assert clock.slept == [RETRY_AFTER_LIMIT]


@pytest.mark.parametrize("status", [301, 400, 404, 409, 413, 415, 422, 500])
def test_an_error_is_raised_at_once_with_its_detail(status: int) -> None:
    clock = Clock()
    with pytest.raises(RequestRefused) as caught:
        transport(answers(problem(status, "because")), clock).get("/x", limit=10)
    assert (caught.value.status, caught.value.detail) == (status, "because")
    assert str(status) in str(caught.value)
    assert not clock.slept


def test_an_error_of_another_form_has_its_reason() -> None:
    page = httpx.Response(404, html="<h1>nothing</h1>")
    with pytest.raises(RequestRefused, match="Not Found"):
        transport(answers(page), Clock()).get("/x", limit=10)


def test_a_detail_cannot_steer_the_terminal() -> None:
    with pytest.raises(RequestRefused) as caught:
        transport(answers(problem(400, "\x1b[2J\r\nfine" + "x" * 9999)), Clock()).get("/", limit=1)
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) <= 500


def test_an_answer_may_have_as_many_bytes_as_allowed() -> None:
    exact = httpx.Response(200, content=bytes(10))
    assert transport(answers(exact), Clock()).get("/x", limit=10).body == bytes(10)
    with pytest.raises(InvalidAnswer, match="more than 9 bytes"):
        transport(answers(exact), Clock()).get("/x", limit=9)


def test_an_answer_without_end_is_left() -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        while True:
            sent.append(1)
            yield bytes(100)

    with pytest.raises(InvalidAnswer):
        transport(answers(httpx.Response(200, content=endless())), Clock()).get("/x", limit=1000)
    assert len(sent) <= 12


def test_an_answer_that_drips_is_left() -> None:
    clock = Clock()

    def dripping() -> Iterator[bytes]:
        while True:
            clock.now += 10
            yield b"x"

    with pytest.raises(InvalidAnswer, match="took more"):
        transport(answers(httpx.Response(200, content=dripping())), clock).get("/", limit=1 << 20)
    assert clock.now <= ANSWER_SECONDS + 20


def test_a_compressed_answer_is_refused() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return httpx.Response(
            200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"x")
        )

    with pytest.raises(InvalidAnswer, match="compressed"):
        transport(handler, Clock()).get("/x", limit=1 << 20)


@pytest.mark.parametrize(
    "url", ["", "service", "localhost:8080", "ftp://x", "http://", "http://x:y"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(KeyholderError, match="http://host:port"):
        Transport(url, retry_seconds=0)


def test_credentials_in_the_address_are_not_shown() -> None:
    connection = Transport(
        "http://me:secret@service.test/",
        retry_seconds=0,
        transport=httpx.MockTransport(answers(httpx.ConnectError("no"))),
    )
    assert connection.url == "http://service.test"
    with pytest.raises(ServiceUnavailable) as caught:
        connection.get("/x", limit=1)
    assert "secret" not in str(caught.value)


def wait(handler: Handler, clock: Clock, seconds: float = 600) -> None:
    wait_for_model(
        URL,
        "digits",
        seconds,
        transport=httpx.MockTransport(handler),
        sleep=clock.sleep,
        clock=clock,
    )


def test_waiting_ends_when_the_model_is_there(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="cloister_keyholder")
    clock = Clock()

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v2/models/digits/ready"
        if clock.now < 100:
            raise httpx.ConnectError("refused")
        return problem(404, "no") if clock.now < 200 else httpx.Response(200, json={})

    wait(handler, clock)
    assert 200 <= clock.now <= 202
    messages = [record.message for record in caplog.records]
    assert "inference service at http://service.test:8080 to be ready" in messages[0]
    assert "model digits to be published" in messages[-1]
    assert len(messages) == 8


def test_waiting_has_an_end() -> None:
    clock = Clock()
    with pytest.raises(ServiceUnavailable, match="after 600 s still waiting for model digits"):
        wait(answers(problem(404, "no")), clock)
    assert clock.now == pytest.approx(600)


def test_waiting_does_not_hide_other_errors() -> None:
    with pytest.raises(RequestRefused):
        wait(answers(problem(401, "who are you")), Clock())
