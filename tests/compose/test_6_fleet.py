"""What the address of the fleet lets through, with HAProxy itself and a recorder behind it."""

import contextlib
import json
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificate import self_signed
from stack import Stack, reachable

NETWORK = "cloister-test-fleet"
RECORDER = Path(__file__).with_name("recorder.py")
PROBLEM = "application/problem+json"
BODY_BYTES = 300_000
ADDRESS_CONNECTIONS = 20
OWN_WORDS = {b"400", b"408", b"422"}
"""Statuses with which HAProxy refuses in its own words what it cannot read to the end."""
FLEET_PATHS = [
    f"/v1/fleet/{call}"
    for call in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "push-object",
        "pull-object",
        "confirm-message-received",
    )
]
GOOD = "/v1/fleet/pull-messages"
ENROL = "/enrolment/v1/nodes"


def docker(*arguments: str | Path, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout.strip()


@dataclass(frozen=True)
class Door:
    """The fleet's address in a container."""

    port: int
    folder: Path
    name: str = f"{NETWORK}-door"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "good.crt"))

    def connect(self) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return self.trust.wrap_socket(plain, server_hostname="127.0.0.1")

    def send(self, raw: bytes) -> bytes:
        """All that is answered until the connection is closed."""
        answer = b""
        # It may be closed before all is sent, or read.
        closed = contextlib.suppress(ConnectionError, ssl.SSLEOFError)
        with self.connect() as connection:
            with closed:
                connection.sendall(raw)
            with closed:
                while received := connection.recv(65536):
                    answer += received
        return answer

    def recorded(self) -> list[dict[str, Any]]:
        """Every request that came through so far."""
        return [json.loads(line) for line in docker("logs", f"{NETWORK}-behind").splitlines()]


def start(folder: Path, name: str, ca: str) -> Door:
    settings = {
        "HOST": "0.0.0.0",  # noqa: S104 - in a container
        "FLEET_TLS_PEM": "/tls/good.pem",
        "CA_PATH": f"/tls/{ca}",
        "FLEET_BODY_BYTES": BODY_BYTES,
        "FLEET_ADDRESS_CONNECTIONS": ADDRESS_CONNECTIONS,
        "FLEET_HEADER_SECONDS": 2,
        "FLEET_CLIENT_SECONDS": 4,
        "FLEET_QUEUE_SECONDS": 3,
        "LOG_FORMAT": "json",
    }
    environment = [f"--env=CLOISTER_{key}={value}" for key, value in settings.items()]
    docker(
        *("run", "--detach", "--name", name, "--network", NETWORK, "--publish", "127.0.0.1::8443"),
        *("--read-only", "--cap-drop=ALL", "--tmpfs=/tmp", f"--volume={folder}:/tls:ro"),
        *(*environment, "cloister/fleet"),
    )
    port = int(docker("port", name, "8443").rpartition(":")[2])
    return Door(port, folder, name)


@pytest.fixture(scope="module")
def door(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = reachable(tmp_path_factory.mktemp("tls"))
    for which in ("good", "other"):
        called = ("DNS:server", "DNS:enrolment", "DNS:fleet", "IP:127.0.0.1")
        certificate, key = self_signed(folder, which, *called)
        pem = folder / f"{which}.pem"
        pem.write_bytes(certificate.read_bytes() + key.read_bytes())
        pem.chmod(0o644)
    names = [f"{NETWORK}-{name}" for name in ("behind", "door", "misled")]
    docker("rm", "--force", *names)
    docker("network", "rm", "--force", NETWORK)
    docker("network", "create", NETWORK)
    try:
        docker(
            *("run", "--detach", "--init", "--name", names[0], "--network", NETWORK),
            *("--network-alias=server", "--network-alias=enrolment"),
            *(f"--volume={RECORDER}:/recorder.py:ro", f"--volume={folder}:/tls:ro"),
            *("cloister/fleet", "python", "/recorder.py", "/tls/good.pem"),
        )
        found = start(folder, names[1], "good.crt")
        stack.until(lambda: is_ready(found), "readiness")
        yield found
    finally:
        docker("rm", "--force", *names)
        docker("network", "rm", NETWORK)


def is_ready(door: Door) -> bool:
    """Whether /fleet/health says that SuperLink and enrolment answer."""
    url = "http://127.0.0.1:8002/fleet/health"
    code = f"import urllib.request as u; print(u.urlopen('{url}').read().decode())"
    return docker("exec", door.name, "python", "-c", code, check=False) == '{"ready":true}'


def listens(door: Door) -> bool:
    """Whether it has started."""
    try:
        door.connect().close()
    except OSError:
        return False
    return True


def post(door: Door, path: str, content: bytes = b"", **options: Any) -> httpx.Response:
    return httpx.post(door.url + path, content=content, verify=door.trust, timeout=30, **options)


def request(start: str, *headers: str, body: bytes = b"") -> bytes:
    """A request as it is on the wire, after which the connection is closed."""
    lines = [start, "Host: fleet:8443", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@pytest.mark.parametrize("path", FLEET_PATHS)
def test_what_a_site_calls_passes_and_its_body_with_it(door: Door, path: str) -> None:
    signed = {"flwr-signature": "c2lnbmF0dXJl", "X-Forwarded-For": "192.0.2.1", "Forwarded": "x"}
    response = post(door, path, b"protobuf", headers=signed)
    assert (response.status_code, response.text) == (200, path)
    assert "server" not in response.headers
    last = door.recorded()[-1]
    assert (last["method"], last["path"], last["body"]) == ("POST", path, 8)
    assert last["headers"]["flwr-signature"] == "c2lnbmF0dXJl"
    # Who it is, is not for the site to say.
    assert last["headers"]["x-forwarded-for"] != "192.0.2.1"
    assert "forwarded" not in last["headers"]


def test_enrolment_passes_and_its_health_can_be_asked(door: Door) -> None:
    response = post(door, ENROL, b"{}", headers={"Authorization": "Bearer t"})
    assert (response.status_code, response.text) == (200, ENROL)
    assert door.recorded()[-1]["headers"]["authorization"] == "Bearer t"
    assert httpx.get(f"{door.url}/enrolment/health", verify=door.trust).is_success


OTHER_PATHS = [
    "/v1/control/start-run",
    "/v1/control/list-runs",
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/v1/runtime/push-object",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/",
    "/v1/fleet",
    "/health",
    "/",
    "/docs",
    "/openapi.json",
    "/metrics",
    "/fleet/health",
    "/enrolment/v1/nodes/1",
    "/enrolment/",
    # Another spelling of what passes.
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages/.",
    "/v1/fleet/pull-messages?x=1",
    "/v1/fleet/pull-messages?",
    "/v1/fleet/pull-messages;x=1",
    "/v1/fleet/pull-messages#x",
    "/V1/fleet/pull-messages",
    "/v1/fleet/Pull-Messages",
    "//v1/fleet/pull-messages",
    "/v1//fleet/pull-messages",
    "/v1/fleet\\pull-messages",
    "/v1/fleet/pull%2Dmessages",
    "/v1/%66leet/pull-messages",
    "/v1%2Ffleet%2Fpull-messages",
    "/v1/fleet/pull-messages%00",
    "/v1/fleet/pull-messages%20",
    "/./v1/fleet/pull-messages",
    # What passes, and from there elsewhere.
    "/v1/fleet/../control/start-run",
    "/v1/fleet/pull-messages/../../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/..%2Fcontrol/start-run",
    "/v1/fleet/%252e%252e/control/start-run",
    "/enrolment/../v1/control/start-run",
    # A host in front.
    "http://server:8000/v1/control/start-run",
    "http://fleet:8443/v1/fleet/pull-messages",
    "https://fleet:8443/v1/fleet/pull-messages",
    "fleet:8443",
    "*",
    "v1/fleet/pull-messages",
]


def refused(door: Door, raw: bytes) -> set[int]:
    """Statuses of the answers to what must not pass; nothing of it may reach the recorder."""
    before = len(door.recorded())
    answer = door.send(raw)
    assert door.recorded()[before:] == []
    heads = re.findall(rb"HTTP/1\.[01] \d{3} .*?\r\n\r\n", answer, re.DOTALL)
    assert all(PROBLEM.encode() in h or h.split()[1] in OWN_WORDS for h in heads)
    return {int(head.split()[1]) for head in heads}


@pytest.mark.parametrize("path", OTHER_PATHS)
def test_every_other_path_is_refused(door: Door, path: str) -> None:
    assert refused(door, request(f"POST {path} HTTP/1.1", "Content-Length: 0")) <= {400, 404}


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post", "PROPFIND"]
)
def test_every_other_method_is_refused(door: Door, method: str) -> None:
    for path in (GOOD, ENROL):
        assert refused(door, request(f"{method} {path} HTTP/1.1", "Content-Length: 0")) <= {
            400,
            404,
        }


SMUGGLED = b"POST /v1/control/start-run HTTP/1.1\r\nHost: server\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"0\r\n\r\n"
OTHER_REQUESTS = {
    "HTTP/1.0": request(f"POST {GOOD} HTTP/1.0", "Content-Length: 0"),
    "HTTP/0.9": f"POST {GOOD}\r\n\r\n".encode(),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "HTTP/3.1": request(f"POST {GOOD} HTTP/3.1", "Content-Length: 0"),
    "a tunnel": request("CONNECT server:8000 HTTP/1.1"),
    "a tunnel by a good path": request(f"CONNECT {GOOD} HTTP/1.1"),
    "a WebSocket": request(f"POST {GOOD} HTTP/1.1", "Upgrade: websocket", "Content-Length: 0"),
    "HTTP/2 by upgrade": request(
        f"POST {GOOD} HTTP/1.1", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk", "Content-Length: 0"
    ),
    "chunks": request(f"POST {GOOD} HTTP/1.1", "Transfer-Encoding: chunked", body=CHUNKED),
    "a length and chunks": request(
        f"POST {GOOD} HTTP/1.1",
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        body=CHUNKED + SMUGGLED,
    ),
    "chunks and a length": request(
        f"POST {GOOD} HTTP/1.1",
        "Transfer-Encoding: chunked",
        f"Content-Length: {len(CHUNKED + SMUGGLED)}",
        body=CHUNKED + SMUGGLED,
    ),
    "a coding nobody knows": request(
        f"POST {GOOD} HTTP/1.1", "Transfer-Encoding: xchunked", body=CHUNKED + SMUGGLED
    ),
    "two codings": request(
        f"POST {GOOD} HTTP/1.1",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked",
        body=CHUNKED + SMUGGLED,
    ),
    "a coding in capitals": request(
        f"POST {GOOD} HTTP/1.1", "TRANSFER-ENCODING: CHUNKED", body=CHUNKED + SMUGGLED
    ),
    "a space before the colon": request(
        f"POST {GOOD} HTTP/1.1", "Transfer-Encoding : chunked", body=CHUNKED + SMUGGLED
    ),
    "a coding after a tab": request(
        f"POST {GOOD} HTTP/1.1", "Transfer-Encoding:\tchunked", body=CHUNKED + SMUGGLED
    ),
    "a coding with a control character": request(
        f"POST {GOOD} HTTP/1.1", "Transfer-Encoding: \x0bchunked", body=CHUNKED + SMUGGLED
    ),
    "a folded header": request(
        f"POST {GOOD} HTTP/1.1", "Transfer-Encoding:\r\n chunked", body=CHUNKED + SMUGGLED
    ),
    "two lengths": request(
        f"POST {GOOD} HTTP/1.1", "Content-Length: 0", "Content-Length: 5", body=SMUGGLED
    ),
    "lengths in a list": request(f"POST {GOOD} HTTP/1.1", "Content-Length: 0, 5", body=SMUGGLED),
    "a length with a sign": request(f"POST {GOOD} HTTP/1.1", "Content-Length: +0", body=SMUGGLED),
    "a negative length": request(f"POST {GOOD} HTTP/1.1", "Content-Length: -1", body=SMUGGLED),
    "a hexadecimal length": request(f"POST {GOOD} HTTP/1.1", "Content-Length: 0x0", body=SMUGGLED),
    "a length beyond all numbers": request(
        f"POST {GOOD} HTTP/1.1", "Content-Length: 99999999999999999999", body=SMUGGLED
    ),
    "a null in a header": request(f"POST {GOOD} HTTP/1.1", "X: a\x00b", "Content-Length: 0"),
    "a null in the path": request(f"POST {GOOD}\x00 HTTP/1.1", "Content-Length: 0"),
    "a space in the path": request(f"POST {GOOD} x HTTP/1.1", "Content-Length: 0"),
    "bytes that are not ASCII": request(f"POST {GOOD}\xe9 HTTP/1.1", "Content-Length: 0"),
    "bytes that are not ASCII in a header": request(f"POST {GOOD} HTTP/1.1", "X: \xe9"),
    "two hosts": request(f"POST {GOOD} HTTP/1.1", "Host: server:8000", "Content-Length: 0"),
    "large headers": request(f"POST {GOOD} HTTP/1.1", f"X: {'a' * 20_000}", "Content-Length: 0"),
    "very large headers": request(f"POST {GOOD} HTTP/1.1", f"X: {'a' * 200_000}"),
    "very many headers": request(f"POST {GOOD} HTTP/1.1", *(f"X-{n}: a" for n in range(200))),
    "no request": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("what", OTHER_REQUESTS)
def test_what_could_get_behind_the_rules_is_refused(door: Door, what: str) -> None:
    assert refused(door, OTHER_REQUESTS[what]) <= {400, 404, 411, 413, 422}


def test_a_second_request_in_the_same_breath_is_judged_for_itself(door: Door) -> None:
    before = len(door.recorded())
    good = f"POST {GOOD} HTTP/1.1\r\nHost: fleet\r\nContent-Length: 2\r\n\r\n{{}}".encode()
    answer = door.send(good + SMUGGLED + good)
    assert re.findall(rb"HTTP/1.1 (\d{3})", answer)[:2] == [b"200", b"404"]
    assert {recorded["path"] for recorded in door.recorded()[before:]} == {GOOD}


@pytest.mark.parametrize(
    ("path", "limit"),
    [("/v1/fleet/push-object", BODY_BYTES), (GOOD, 80 << 10), (ENROL, 8 << 10)],
)
def test_a_body_has_a_limit_by_path(door: Door, path: str, limit: int) -> None:
    assert post(door, path, bytes(limit)).status_code == 200
    assert door.recorded()[-1]["body"] == limit
    before = len(door.recorded())
    response = post(door, path, bytes(limit + 1))
    assert (response.status_code, response.headers["content-type"]) == (413, PROBLEM)
    assert door.recorded()[before:] == []


def test_a_slow_peer_is_given_up_and_what_it_began_reaches_nothing(door: Door) -> None:
    started = f"POST {GOOD} HTTP/1.1\r\nHost: fleet\r\n".encode()
    assert refused(door, started) == {408}
    assert refused(door, started + b"Content-Length: 100\r\n\r\nabc") == {408}
    assert refused(door, b"") == {408}


def test_one_address_cannot_take_all_connections(door: Door) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(ADDRESS_CONNECTIONS):
            held.enter_context(door.connect())
        # Reset, or closed within the handshake.
        with pytest.raises(OSError, match=r"reset|EOF|closed"):
            door.connect()
    assert post(door, GOOD).status_code == 200


def test_a_request_waits_for_a_superlink_that_starts_anew(stack: Stack, door: Door) -> None:
    behind = f"{NETWORK}-behind"
    docker("stop", "--time", "1", behind)
    response = post(door, GOOD)
    assert (response.status_code, response.headers["content-type"]) == (503, PROBLEM)
    assert int(response.headers["retry-after"]) > 0
    stack.until(lambda: not is_ready(door), "not ready")

    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(post(door, GOOD).status_code))
    waiting.start()
    time.sleep(1)
    assert not answers
    docker("start", behind)
    waiting.join()
    assert answers == [200]
    stack.until(lambda: is_ready(door), "readiness")


def test_only_tls_from_1_2_on_is_spoken(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=30) as plain:
        plain.sendall(request(f"POST {GOOD} HTTP/1.1", "Content-Length: 0"))
        assert not plain.recv(65536).startswith(b"HTTP")
    old = door.trust
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", door.port), timeout=30) as plain,
        pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"),
    ):
        old.wrap_socket(plain, server_hostname="127.0.0.1")


def test_a_server_with_another_cas_certificate_is_told_nothing(stack: Stack, door: Door) -> None:
    misled = start(door.folder, f"{NETWORK}-misled", "other.crt")
    stack.until(lambda: listens(misled), "start")
    before = len(door.recorded())
    assert post(misled, GOOD).status_code == 503
    assert door.recorded()[before:] == []
    assert not is_ready(misled)


def test_the_log_tells_what_failed_and_no_secret(door: Door) -> None:
    headers = {"Authorization": "Bearer a-secret-token", "flwr-signature": "a-secret-signature"}
    post(door, f"{GOOD}?token=another-secret", headers=headers)
    post(door, ENROL, b"a-secret-body", headers=headers)
    before = docker("logs", door.name)
    post(door, GOOD, headers=headers)
    log = docker("logs", door.name)
    # Polls are not told of, one by one.
    assert log == before
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert [(line["path"], line["status"], line["by"]) for line in lines[-2:]] == [
        (GOOD, 404, "sites"),
        (ENROL, 200, "enrolment"),
    ]
    assert "secret" not in log
