"""A node's connection to a SuperLink whose answers the tests choose."""

import base64
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID
from flwr.app import Message, RecordDict
from flwr.proto.fab_pb2 import GetFabResponse
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse, PushMessagesResponse
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import PullObjectResponse, PushObjectRequest, PushObjectResponse
from flwr.proto.run_pb2 import GetRunResponse
from flwr.proto.run_pb2 import Run as RunProto
from flwr.supercore.task_identity import TaskIdentity

from cloister_client.joining.connection import Connection
from cloister_client.node import fleet
from cloister_client.node.envelope import Envelope, seal
from cloister_client.node.fleet import FailedRequestError, Fleet, Pulled, RefusedError, RunOverError
from cloister_shared.errors import CloisterError

Answer = tuple[int, bytes]
NODE = 77
PROBLEM = b'{"code": 2004, "detail": "SuperNode activation failed"}'


@dataclass
class SuperLink:
    """Answers every path with what is set for it, one after the other, and then the last again."""

    address: str = ""
    answers: dict[str, list[Answer]] = field(
        default_factory=lambda: defaultdict(lambda: [(200, b"")])
    )
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked if path != "send-node-heartbeat"]

    def answer(self, path: str, content: bytes, headers: dict[str, str]) -> Answer:
        self.asked.append((path, content))
        self.headers.append(headers)
        answers = self.answers[path]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def link() -> SuperLink:
    made = SuperLink()
    made.answers["activate-node"] = [(200, ActivateNodeResponse(node_id=NODE).SerializeToString())]
    known = SendNodeHeartbeatResponse(success=True).SerializeToString()
    made.answers["send-node-heartbeat"] = [(200, known)]
    return made


Serve = Callable[..., None]


@pytest.fixture
def serve(link: SuperLink) -> Iterator[Serve]:
    """Make the SuperLink listen."""
    servers: list[ThreadingHTTPServer] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            path = self.path.removeprefix("/v1/fleet/")
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body = link.answer(path, content, headers)
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    def start(port: int = 0, context: ssl.SSLContext | None = None) -> None:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        link.address = f"127.0.0.1:{server.server_address[1]}"
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@dataclass
class Sleep:
    """Notes the pauses, and does something at the first."""

    seconds: list[float] = field(default_factory=list)
    then: Callable[[], None] = lambda: None

    def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if len(self.seconds) == 1:
            self.then()


@pytest.fixture
def sleep() -> Sleep:
    return Sleep()


@pytest.fixture
def node(serve: Serve, link: SuperLink, sleep: Sleep) -> Iterator[Fleet]:
    serve()
    with Fleet(Connection(link.address), sleep) as made:
        yield made


@pytest.fixture
def pulled(monkeypatch: pytest.MonkeyPatch) -> Pulled:
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    message = Message(RecordDict(), dst_node_id=NODE, message_type="train")
    return Pulled(message, seal(message).tree)


@pytest.fixture
def reply(pulled: Pulled) -> Envelope:
    return seal(Message(RecordDict(), reply_to=pulled.message))


def test_it_comes_online_and_says_goodbye(node: Fleet, link: SuperLink) -> None:
    assert node.node_id == NODE
    node.__exit__(None, None, None)
    assert link.paths()[:4] == [
        "register-node",
        "activate-node",
        "deactivate-node",
        "unregister-node",
    ]


def test_every_request_is_signed_with_the_key_it_comes_online_with(
    node: Fleet, link: SuperLink
) -> None:
    assert node.pull() is None
    activated = next(content for path, content in link.asked if path == "activate-node")
    pem = ActivateNodeRequest.FromString(activated).public_key
    public = serialization.load_pem_public_key(pem)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    for headers in link.headers:
        assert base64.b64decode(headers["flwr-public-key"]) == pem
        signature = base64.b64decode(headers["flwr-signature"])
        public.verify(signature, headers["flwr-timestamp"].encode(), ec.ECDSA(hashes.SHA256()))
        signed = datetime.fromisoformat(headers["flwr-timestamp"])
        assert abs(datetime.now(UTC) - signed) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (412, PROBLEM, "412 SuperNode activation failed.*not enrolled"),
        (403, b"<html>", "403 Forbidden"),
        (401, b"", "does not accept this node's key"),
    ],
)
def test_a_node_that_is_not_taken_says_why(
    serve: Serve, link: SuperLink, status: int, body: bytes, reason: str
) -> None:
    link.answers["activate-node"] = [(status, body)]
    serve()
    with pytest.raises(RefusedError, match=reason), Fleet(Connection(link.address)):
        pass
    assert "deactivate-node" not in link.paths()


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_superlink_that_is_busy_is_asked_again(
    node: Fleet, link: SuperLink, sleep: Sleep, status: int
) -> None:
    link.answers["pull-messages"] = [(status, b""), (status, b""), (200, b"")]
    assert node.pull() is None
    first, second = sleep.seconds
    assert 0 < first < second


def test_one_that_is_gone_is_asked_until_it_is_back(
    serve: Serve, link: SuperLink, sleep: Sleep
) -> None:
    # A port that nothing listens at, until something does.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    sleep.then = lambda: serve(port)
    with Fleet(Connection(f"127.0.0.1:{port}"), sleep) as node:
        assert node.node_id == NODE


def test_a_key_that_was_revoked_ends_the_node(node: Fleet, link: SuperLink) -> None:
    link.answers["pull-messages"] = [(401, b"")]
    with pytest.raises(RefusedError, match="was revoked"):
        node.pull()


def test_a_request_that_is_refused_is_told_apart_from_a_run_that_is_over(
    node: Fleet, link: SuperLink, reply: Envelope
) -> None:
    link.answers["push-messages"] = [(403, PROBLEM)]
    with pytest.raises(RunOverError):
        node.push(reply, 1.0)
    link.answers["push-messages"] = [(400, PROBLEM)]
    with pytest.raises(FailedRequestError, match="400 SuperNode activation failed"):
        node.push(reply, 1.0)


def test_a_node_that_may_not_ask_for_messages_hears_why(node: Fleet, link: SuperLink) -> None:
    link.answers["pull-messages"] = [(403, b"")]
    with pytest.raises(FailedRequestError, match="403 Forbidden"):
        node.pull()


def test_a_heartbeat_that_is_not_known_ends_the_node(
    serve: Serve, link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "HEARTBEAT_SECONDS", 0.01)
    link.answers["send-node-heartbeat"] = [(200, b"")]
    serve()
    with Fleet(Connection(link.address)) as node:
        node._heart.join(30)
        with pytest.raises(RefusedError, match="does not know this node any more"):
            node.pull()


def test_heartbeats_outlive_a_superlink_that_fails_for_a_while(
    serve: Serve, link: SuperLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(fleet, "LAST_RETRY_SECONDS", 0.01)
    # The last but one is no answer of a SuperLink's at all.
    link.answers["send-node-heartbeat"] = [
        *((503, b""), (500, b""), (400, b""), (200, b"<html>"), (401, b""))
    ]
    serve()
    with Fleet(Connection(link.address)) as node:
        node._heart.join(30)
        assert len(link.asked) == 2 + 5
        with pytest.raises(RefusedError):
            node.pull()


def test_a_run_is_known_by_the_digest_of_its_bundle(node: Fleet, link: SuperLink) -> None:
    link.answers["get-run"] = [
        (200, GetRunResponse(run=RunProto(fab_hash="d")).SerializeToString())
    ]
    answer = GetFabResponse()
    answer.fab.content = b"bundle"
    link.answers["get-fab"] = [(200, answer.SerializeToString())]
    assert node.bundle_digest(1) == "d"
    assert node.bundle(1, "d") == b"bundle"


def part(content: bytes) -> Answer:
    answer = PullObjectResponse(
        object_found=True, object_available=bool(content), object_content=content
    )
    return 200, answer.SerializeToString()


def test_a_part_of_a_message_that_is_still_on_its_way_is_waited_for(
    node: Fleet, link: SuperLink, sleep: Sleep, pulled: Pulled
) -> None:
    link.answers["pull-object"] = [part(b""), part(b""), part(b"content")]
    assert set(node.objects(pulled).values()) == {b"content"}
    assert len(sleep.seconds) == 2


def test_a_part_that_is_lost_fails_the_message(
    node: Fleet, link: SuperLink, pulled: Pulled
) -> None:
    link.answers["pull-object"] = [(200, b"")]
    with pytest.raises(FailedRequestError, match="has lost a part"):
        node.objects(pulled)


def test_a_part_that_does_not_come_fails_the_message(
    node: Fleet, link: SuperLink, pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "OBJECT_SECONDS", 0.0)
    link.answers["pull-object"] = [part(b"")]
    with pytest.raises(FailedRequestError, match="does not come"):
        node.objects(pulled)


def test_of_a_reply_only_the_parts_that_are_asked_for_are_sent(
    node: Fleet, link: SuperLink, reply: Envelope
) -> None:
    wanted = next(iter(reply.objects))
    asks = PushMessagesResponse(objects_to_push=[wanted], session_id="s")
    link.answers["push-messages"] = [(200, asks.SerializeToString())]
    stored = PushObjectResponse(stored=True).SerializeToString()
    link.answers["push-object"] = [(200, stored)]
    node.push(reply, 1.0)
    assert link.paths().count("push-object") == 1
    link.answers["push-object"] = [(200, b"")]
    with pytest.raises(FailedRequestError, match="did not store"):
        node.push(reply, 1.0)


def test_a_reply_of_which_a_part_is_not_taken_begins_anew(
    node: Fleet, link: SuperLink, reply: Envelope
) -> None:
    first, second = list(reply.objects)[:2]

    def asks(*lacking: str) -> tuple[int, bytes]:
        answer = PushMessagesResponse(objects_to_push=lacking, session_id="s")
        return 200, answer.SerializeToString()

    link.answers["push-messages"] = [asks(first, second), asks(second)]
    stored = 200, PushObjectResponse(stored=True).SerializeToString()
    # It was stored by a SuperLink that was killed before it could say so.
    link.answers["push-object"] = [(200, b""), stored]
    node.push(reply, 1.0)
    sent = [
        PushObjectRequest.FromString(body) for path, body in link.asked if path == "push-object"
    ]
    assert [part.object_id for part in sent] == [first, second]
    assert link.paths().count("push-messages") == 2


@dataclass
class Files:
    certificate: Path
    key: Path
    node_key: Path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A certificate for 127.0.0.1 that signs itself, and a node's key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    made = Files(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "node.key")
    made.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    none = serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    made.key.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none))
    node_key = ec.generate_private_key(ec.SECP384R1())
    openssh = serialization.PrivateFormat.OpenSSH
    made.node_key.write_bytes(node_key.private_bytes(pem, openssh, none))
    return made


def server_context(files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    return context


def test_with_a_key_it_speaks_tls_and_registers_nothing(
    serve: Serve, link: SuperLink, files: Files
) -> None:
    serve(context=server_context(files))
    with Fleet(Connection(link.address, files.certificate, files.node_key)) as node:
        assert node.pull() is None
    assert link.paths() == ["activate-node", "pull-messages", "deactivate-node"]


def test_a_superlink_that_is_not_trusted_is_told_nothing(
    serve: Serve, link: SuperLink, files: Files
) -> None:
    serve(context=server_context(files))
    with (
        pytest.raises(RefusedError, match=r"certificate is not trusted.*CLOISTER_CA_PATH"),
        Fleet(Connection(link.address, None, files.node_key)),
    ):
        pass
    assert link.asked == []


@pytest.mark.parametrize("content", [None, b"", b"no key"])
def test_a_key_that_cannot_be_read_is_named(files: Files, content: bytes | None) -> None:
    files.node_key.unlink()
    if content is not None:
        files.node_key.write_bytes(content)
    with pytest.raises(CloisterError, match=r"node\.key"):
        Fleet(Connection("sl:1", files.certificate, files.node_key))


def test_a_key_of_another_kind_is_refused(files: Files) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    files.node_key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    with pytest.raises(CloisterError, match="no elliptic curve key"):
        Fleet(Connection("sl:1", files.certificate, files.node_key))


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_a_ca_file_that_cannot_be_used_is_named(files: Files, content: bytes | None) -> None:
    files.certificate.unlink()
    if content is not None:
        files.certificate.write_bytes(content)
    with pytest.raises(CloisterError, match=r"tls\.crt.*CLOISTER_CA_PATH"):
        Fleet(Connection("sl:1", files.certificate, files.node_key))
