"""The API key and the CA certificates of a key holder: shown to one service, and to nobody else."""

import logging
import os
import shlex
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from fake_service import FakeService, problem, serve
from hypothesis import given
from hypothesis import strategies as st

from cloister_keyholder import EncryptedModel, KeyholderError, RequestRefused
from cloister_keyholder.service.credentials import authorization, read_api_key
from cloister_keyholder.service.transport import Transport
from cloister_keyholder.service.waiting import wait_for_model
from cloister_keyholder.settings import Settings

SECRET = "5ec3e7" * 10 + "5ec3"
KEY = f"cloister_0123abcd_{SECRET}"
URL = "http://127.0.0.1:8000"


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "api.key"
    path.write_text(KEY + "\n")
    return path


class GuardedService(FakeService):
    """Answers 401 without the API key."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return problem(401, "state a valid API key")
        return super().__call__(request)


@pytest.fixture
def guarded(breast_cancer_folder: Path, breast_cancer_server: Any) -> GuardedService:
    return GuardedService(breast_cancer_folder, breast_cancer_server)


def run_program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}
    return subprocess.run(
        [sys.executable, "-m", "cloister_keyholder", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**kept, "NO_COLOR": "1", "CLOISTER_RETRY_SECONDS": "0", **environment},
        timeout=120,
        check=False,
    )


@pytest.fixture
def rows(
    tmp_path: Path, breast_cancer_data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> Path:
    path = tmp_path / "rows.csv"
    lines = breast_cancer_data[0][15:17].tolist()
    path.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return path


def test_every_request_shows_the_key(
    guarded: GuardedService,
    breast_cancer_data: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]],
) -> None:
    wait_for_model(URL, "breast_cancer", 0, transport=guarded.transport, api_key=KEY)
    with EncryptedModel(URL, "breast_cancer", transport=guarded.transport, api_key=KEY) as model:
        model.predict(breast_cancer_data[0][:1])
        model.reference()
        assert KEY not in repr(model) + repr(vars(model))
        assert KEY not in repr(vars(model._transport))
        assert "Authorization" not in model.infer_headers
    assert len(guarded.requests) >= 5


@pytest.mark.parametrize("key", [None, "", "wrong"])
def test_without_the_key_it_says_where_it_belongs(guarded: GuardedService, key: str | None) -> None:
    with pytest.raises(RequestRefused, match=r"401.*CLOISTER_API_KEY_PATH"):
        EncryptedModel(URL, "breast_cancer", transport=guarded.transport, api_key=key)


def test_the_program_reads_the_key_from_its_file(
    guarded: GuardedService, key_file: Path, rows: Path, tmp_path: Path
) -> None:
    with serve(guarded) as url:
        settings = {"CLOISTER_URL": url, "CLOISTER_MODEL": "breast_cancer"}
        done = run_program("predict", rows, **settings, CLOISTER_API_KEY_PATH=str(key_file))
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
        (tmp_path / "empty").write_text("")
        for path in ("", str(tmp_path / "empty"), os.devnull):
            done = run_program("predict", rows, **settings, CLOISTER_API_KEY_PATH=path)
            assert done.returncode == 1
            assert "CLOISTER_API_KEY_PATH" in done.stderr


def test_the_printed_command_works_and_does_not_tell_the_key(
    guarded: GuardedService, rows: Path, tmp_path: Path
) -> None:
    key_file = tmp_path / "an api.key"
    # As editors and other systems leave it.
    key_file.write_text(f"\n  {KEY}\r\n\n")
    with serve(guarded) as url:
        settings = {
            "CLOISTER_URL": url,
            "CLOISTER_MODEL": "breast_cancer",
            "CLOISTER_API_KEY_PATH": str(key_file),
        }
        payload, key = tmp_path / "query.bin", tmp_path / "query.key"
        done = run_program("encrypt", rows, "--payload", payload, "--key", key, **settings)
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
        script = tmp_path / "post.sh"
        script.write_text(done.stdout)
        subprocess.run(["sh", script], cwd=tmp_path, check=True, timeout=60)
        done = run_program("decrypt", tmp_path / "result.bin", "--key", key, **settings)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() in ("malignant", "benign")


def test_the_key_is_shown_to_no_other_host(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    asked = []

    def redirect(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(307, headers={"Location": "http://elsewhere.test/v2"})

    transport = Transport(
        URL, retry_seconds=0, transport=httpx.MockTransport(redirect), api_key=KEY
    )
    with pytest.raises(RequestRefused, match="307") as got:
        transport.get("/v2", limit=10)
    with pytest.raises(RequestRefused, match="307") as posted:
        transport.post("/v2", b"x", {}, limit=10)
    assert SECRET not in str(got.value) + str(posted.value)
    assert [str(request.url) for request in asked] == [f"{URL}/v2"] * 2
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://inference:8000", True),
        ("http://192.0.2.1", True),
        ("https://192.0.2.1", False),
        ("http://127.0.0.1:8000", False),
        ("http://localhost:8000", False),
        ("http://[::1]:8000", False),
    ],
)
def test_a_key_in_the_clear_is_warned_of(
    url: str, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    Transport(url, retry_seconds=0).close()
    assert not caplog.records
    Transport(url, retry_seconds=0, api_key=KEY).close()
    assert ["in the clear" in record.message for record in caplog.records] == [True] * warned
    assert SECRET not in caplog.text


def test_a_key_and_a_user_name_are_one_too_many() -> None:
    with pytest.raises(KeyholderError, match="not both") as caught:
        Transport("http://user:password@127.0.0.1", retry_seconds=0, api_key=KEY)
    assert "password" not in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"two words", KEY.encode() + b"\n" + KEY.encode(), b"\xff\xfe", b"caf\xc3\xa9", b"a\0b", b"="],
)
def test_a_file_without_a_key_is_named_and_not_told(content: bytes, key_file: Path) -> None:
    key_file.write_bytes(content)
    with pytest.raises(KeyholderError, match=r"api\.key holds no API key") as caught:
        read_api_key(key_file)
    assert SECRET not in str(caught.value)
    assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyholderError, match="CLOISTER_API_KEY_PATH"):
        read_api_key(tmp_path / "missing")
    assert read_api_key(None) is None


@given(st.text())
def test_any_text_is_a_header_or_a_clear_error(text: str) -> None:
    try:
        header = authorization(text)
    except KeyholderError as error:
        told = str(error)
    else:
        told = ""
        assert header == ({"Authorization": f"Bearer {text}"} if text else {})
        httpx.Headers(header)
    assert len(text) < 10 or text not in told


class Authority:
    """A CA, and a server for 127.0.0.1 whose certificate it signed."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.server, self.key = (
            folder / name for name in ("ca.crt", "server.crt", "server.key")
        )
        now, day = datetime.now(UTC), timedelta(days=1)
        ca_key, key = (
            ec.generate_private_key(ec.SECP256R1()),
            ec.generate_private_key(ec.SECP256R1()),
        )
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA of the test")])
        for path, name, public, is_ca in (
            (self.certificate, ca_name, ca_key.public_key(), True),
            (self.server, x509.Name([]), key.public_key(), False),
        ):
            address = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
            certificate = (
                x509.CertificateBuilder()
                .subject_name(name)
                .issuer_name(ca_name)
                .public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - day)
                .not_valid_after(now + day)
                .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
                .add_extension(address, critical=True)
                .sign(ca_key, hashes.SHA256())
            )
            path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def https(authority: Authority) -> Iterator[str]:
    """The address of a server that answers every GET."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as overridden
            pass

    class Server(HTTPServer):
        def handle_error(self, *_: Any) -> None:
            """Clients that do not trust it go away."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server, authority.key)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_ca_of_ones_own_is_trusted(https: str, authority: Authority) -> None:
    transport = Transport(https, retry_seconds=0, ca_path=authority.certificate)
    assert transport.get("/", limit=10).body == b"ok"
    transport.close()


def test_an_unknown_ca_is_not_and_no_time_is_lost(https: str) -> None:
    slept: list[float] = []
    transport = Transport(https, retry_seconds=60, sleep=slept.append, api_key=KEY)
    with pytest.raises(KeyholderError, match=r"not trusted.*CLOISTER_CA_PATH"):
        transport.get("/", limit=10)
    assert not slept
    transport.close()


def test_another_host_is_not_trusted(https: str, authority: Authority) -> None:
    url = https.replace("127.0.0.1", "localhost")
    transport = Transport(url, retry_seconds=60, ca_path=authority.certificate)
    with pytest.raises(KeyholderError, match=r"not trusted.*host name"):
        transport.get("/", limit=10)
    transport.close()


@pytest.mark.parametrize("content", [None, b"", b"no PEM"])
def test_a_file_without_certificates_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(KeyholderError, match=r"ca\.pem.*CLOISTER_CA_PATH"):
        Transport(URL, retry_seconds=0, ca_path=path)


def test_the_settings_do_not_hold_the_key(key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOISTER_API_KEY_PATH", str(key_file))
    assert SECRET not in repr(Settings())
    assert shlex.quote(str(key_file)) in repr(Settings())
