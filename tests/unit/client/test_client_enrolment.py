"""Enrolling until it is accepted, at an enrolment of which a test decides the answers."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from cloister_client.joining import enrolment as module
from cloister_client.joining.enrolment import Enrolment
from cloister_client.joining.node_key import NodeKey, ensure_node_key

WAIT = 60.0
ACCEPTED = httpx.Response(201, json={"node_id": "7"})
AGAIN = httpx.Response(200, json={"node_id": "7"})
REVOKED = httpx.Response(403, json={"detail": "this site's key was revoked"})
BAD_TOKEN = httpx.Response(401, json={"detail": "this join token is not known here"})
AWAY = httpx.ConnectError("connection refused")

Answer = httpx.Response | Exception


class Service:
    """Answers in this order, and with the last of them for ever.

    Attributes:
        asked: every request.
    """

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.all_given = threading.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if len(self._answers) == 1:
            self.all_given.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("FIRST_RETRY_SECONDS", "LAST_RETRY_SECONDS", "REFUSED_SECONDS"):
        monkeypatch.setattr(module, name, 0.001)
    caplog.set_level(logging.INFO, "cloister_client")


@pytest.fixture
def key(tmp_path: Path) -> NodeKey:
    return ensure_node_key(tmp_path)


MakeEnrolment = Callable[[Service], Enrolment]


@pytest.fixture
def make_enrolment(tmp_path: Path, key: NodeKey) -> Iterator[MakeEnrolment]:
    token = tmp_path / "join.token"
    token.write_text("cloister_join_1\n")
    clients = []

    def make(service: Service) -> Enrolment:
        client = httpx.Client(
            base_url="https://enrolment.example", transport=httpx.MockTransport(service)
        )
        clients.append(client)
        return Enrolment(client, token, key, "site-a")

    yield make
    for client in clients:
        client.close()


def test_it_sends_token_key_and_name_and_says_as_what_it_is_known(
    make_enrolment: MakeEnrolment, key: NodeKey, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(ACCEPTED)
    make_enrolment(service).admit(threading.Event())
    (request,) = service.asked
    assert str(request.url) == "https://enrolment.example/enrolment/v1/nodes"
    assert request.headers["authorization"] == "Bearer cloister_join_1"
    assert json.loads(request.content) == {"public_key": key.public_key, "name": "site-a"}
    assert f"enrolled as site-a, node 7, key {key.fingerprint}" in caplog.text


@pytest.mark.parametrize(
    ("stands_in_the_way", "told"),
    [
        (AWAY, "https://enrolment.example cannot be reached (connection refused)"),
        (httpx.ReadTimeout("timed out"), "cannot be reached (timed out)"),
        (httpx.Response(503, json={"detail": "the SuperLink is away"}), "the SuperLink is away"),
        (httpx.Response(502, content=b"<html>"), "it answers 502"),
        (httpx.Response(200, content=b"<html>"), "it answers 200"),
        (BAD_TOKEN, "this join token is not known here"),
        (REVOKED, "enrolment refuses this site: this site's key was revoked"),
        (httpx.Response(409, json={"detail": "name is taken"}), "refuses this site: name is taken"),
        (httpx.Response(422, json={"detail": "no EC key"}), "refuses this site: no EC key"),
    ],
)
def test_it_goes_on_until_it_is_accepted_and_tells_each_reason_once(
    make_enrolment: MakeEnrolment,
    stands_in_the_way: Answer,
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service = Service(*[stands_in_the_way] * 5, AGAIN)
    make_enrolment(service).admit(threading.Event())
    assert len(service.asked) == 6
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert told in warnings[0]


def test_different_reasons_are_each_told(
    make_enrolment: MakeEnrolment, caplog: pytest.LogCaptureFixture
) -> None:
    make_enrolment(Service(AWAY, BAD_TOKEN, BAD_TOKEN, REVOKED, ACCEPTED)).admit(threading.Event())
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * 3 + [logging.INFO]


def test_a_new_token_takes_effect(make_enrolment: MakeEnrolment, tmp_path: Path) -> None:
    path = tmp_path / "join.token"
    path.unlink()

    class Replacing(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            del timeout
            path.write_text("cloister_join_2")
            return False

    service = Service(ACCEPTED)
    make_enrolment(service).admit(Replacing())
    (request,) = service.asked
    assert request.headers["authorization"] == "Bearer cloister_join_2"


@pytest.mark.parametrize("content", ["", "\n", "tok\nen", "tökén", "a\0b"])
def test_a_file_that_is_no_token_is_not_sent(
    make_enrolment: MakeEnrolment, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "join.token").write_text(content)

    class Once(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            del timeout
            self.set()
            return True

    service = Service(ACCEPTED)
    make_enrolment(service).admit(Once())
    assert service.asked == []
    assert "CLOISTER_JOIN_TOKEN_PATH" in caplog.text


def test_a_stop_ends_the_waiting(make_enrolment: MakeEnrolment) -> None:
    service, stop = Service(REVOKED), threading.Event()
    thread = threading.Thread(target=make_enrolment(service).admit, args=(stop,))
    thread.start()
    assert service.all_given.wait(WAIT)
    stop.set()
    thread.join(WAIT)
    assert not thread.is_alive()


@pytest.mark.parametrize("answer", [AWAY, BAD_TOKEN, httpx.Response(503, content=b"")])
def test_one_that_was_accepted_leaves_it_to_the_superlink_where_nothing_says_it_is_out(
    make_enrolment: MakeEnrolment, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(ACCEPTED, answer)
    enrolment = make_enrolment(service)
    enrolment.admit(threading.Event())
    enrolment.admit(threading.Event())
    assert len(service.asked) == 2
    assert "not enrolled again, which the SuperLink may not need" in caplog.text


def test_one_that_was_revoked_is_not_let_in_because_it_once_was(
    make_enrolment: MakeEnrolment, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(ACCEPTED, REVOKED, REVOKED, AGAIN)
    enrolment = make_enrolment(service)
    enrolment.admit(threading.Event())
    enrolment.admit(threading.Event())
    assert len(service.asked) == 4


def test_another_key_was_not_accepted(make_enrolment: MakeEnrolment, key: NodeKey) -> None:
    enrolment = make_enrolment(Service(ACCEPTED))
    enrolment.admit(threading.Event())
    key.path.unlink()
    other = ensure_node_key(key.path.parent)
    service = Service(AWAY, ACCEPTED)
    with httpx.Client(
        base_url="https://enrolment.example", transport=httpx.MockTransport(service)
    ) as client:
        Enrolment(client, enrolment.token_path, other, "site-a").admit(threading.Event())
    assert len(service.asked) == 2


def test_the_token_is_in_no_message(
    make_enrolment: MakeEnrolment, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    make_enrolment(Service(AWAY, BAD_TOKEN, REVOKED, ACCEPTED)).admit(threading.Event())
    assert "cloister_join_1" not in caplog.text
