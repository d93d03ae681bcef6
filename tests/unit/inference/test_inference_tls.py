"""TLS and exposure of the service as a process of its own."""

import os
import re
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloister_inference.access.credentials import ApiKeyStore
from cloister_shared.errors import CloisterError
from cloister_shared.tls import server_context

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there
DAY = timedelta(days=1)


@dataclass
class Pair:
    certificate: Path
    key: Path

    @property
    def settings(self) -> dict[str, str]:
        return {
            "CLOISTER_TLS_CERTIFICATE": str(self.certificate),
            "CLOISTER_TLS_KEY": str(self.key),
        }


MakePair = Callable[..., Pair]


@pytest.fixture
def make_pair(tmp_path: Path) -> MakePair:
    """Make a certificate for 127.0.0.1 and its key; it signs itself, or is followed by its CA's."""

    def make(
        name: str,
        *,
        starts: timedelta = -DAY,
        ends: timedelta = DAY,
        phrase: bytes | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
        signed: bool = False,
    ) -> Pair:
        now = datetime.now(UTC)
        key, ca_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))

        def certify(
            whose: str, public: ec.EllipticCurvePublicKey, extension: x509.ExtensionType
        ) -> bytes:
            addresses = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))])
            return (
                x509.CertificateBuilder()
                .subject_name(named(whose))
                .issuer_name(named("a CA") if signed else named(whose))
                .public_key(public)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now + starts)
                .not_valid_after(now + ends)
                .add_extension(addresses, critical=False)
                .add_extension(extension, critical=True)
                .sign(ca_key if signed else key, hashes.SHA256())
                .public_bytes(serialization.Encoding.PEM)
            )

        content = certify(name, key.public_key(), x509.ExtendedKeyUsage([usage]))
        if signed:
            authority = x509.BasicConstraints(ca=True, path_length=None)
            content += certify("a CA", ca_key.public_key(), authority)
        pair = Pair(tmp_path / f"{name}.crt", tmp_path / f"{name}.key")
        pair.certificate.write_bytes(content)
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(phrase)
                if phrase
                else serialization.NoEncryption(),
            )
        )
        return pair

    return make


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Process:
    """``python -m cloister_inference`` on a free port, without any models."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("CLOISTER_")}
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "cloister_inference"],
            env=kept
            | {"CLOISTER_ARTIFACTS_DIR": str(folder), "CLOISTER_PORT": "0"}
            | {"CLOISTER_METRICS_PORT": "0"}
            | settings,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self._lines: list[str] = []
        self._address = threading.Event()
        self.url = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stderr
        for line in self._popen.stderr:
            self._lines.append(line)
            if match := re.search(r"running on (https?://127\.0\.0\.1:\d+)", line):
                self.url = match[1]
                self._address.set()
        self._address.set()

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def wait_started(self) -> None:
        assert self._address.wait(60)
        assert self.url, self.log

    def wait_ended(self) -> int:
        code = self._popen.wait(60)
        self._reader.join(60)
        return code

    def end(self) -> None:
        self._popen.kill()
        self._popen.wait(60)
        self._reader.join(60)
        assert self._popen.stderr
        self._popen.stderr.close()


Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = []

    def start_(**settings: str) -> Process:
        started.append(Process(tmp_path, settings))
        return started[-1]

    yield start_
    for process in started:
        process.end()


def trusting(pair: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=pair.certificate)


def test_the_service_speaks_tls_and_nothing_else(start: Start, make_pair: MakePair) -> None:
    pair = make_pair("good")
    process = start(**pair.settings)
    process.wait_started()
    assert process.url.startswith("https://")
    live = process.url + "/v2/health/live"
    assert httpx.get(live, verify=trusting(pair)).json() == {"live": True}
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(live)
    with pytest.raises(httpx.TransportError):
        httpx.get(live.replace("https", "http"))
    assert "TLS with a certificate that is valid until" in process.log


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_versions_of_tls_are_spoken(
    start: Start, make_pair: MakePair, version: ssl.TLSVersion
) -> None:
    pair = make_pair("good")
    process = start(**pair.settings)
    process.wait_started()
    context = trusting(pair)
    context.minimum_version = context.maximum_version = version
    assert httpx.get(process.url + "/v2", verify=context).is_success


def test_a_certificate_may_come_with_its_cas(start: Start, make_pair: MakePair) -> None:
    pair = make_pair("signed", signed=True)
    process = start(**pair.settings)
    process.wait_started()
    assert httpx.get(process.url + "/v2", verify=trusting(pair)).is_success


def test_old_versions_of_tls_are_refused(make_pair: MakePair) -> None:
    pair = make_pair("good")
    assert server_context(pair.certificate, pair.key).minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        pytest.param(lambda make: make("old", ends=-DAY / 2), "expired", id="expired"),
        pytest.param(lambda make: make("new", starts=DAY / 2), "not yet valid", id="not yet valid"),
        pytest.param(
            lambda make: make("old", ends=-DAY / 2, signed=True), "expired", id="expired, signed"
        ),
        pytest.param(
            lambda make: make("client", usage=ExtendedKeyUsageOID.CLIENT_AUTH),
            "cannot serve TLS",
            id="of a client",
        ),
        pytest.param(
            lambda make: Pair(make("one").certificate, make("other").key),
            "no TLS certificate and its private key",
            id="no pair",
        ),
        pytest.param(
            lambda make: Pair(make("one").key, make("one").certificate),
            "no TLS certificate and its private key",
            id="the wrong way round",
        ),
        pytest.param(
            lambda make: make("locked", phrase=b"phrase"), "without a pass phrase", id="locked"
        ),
        pytest.param(
            lambda make: Pair(make("one").certificate, Path("missing.key")),
            "CLOISTER_TLS_KEY",
            id="no key",
        ),
        pytest.param(
            lambda make: Pair(Path("missing.crt"), make("one").key),
            "CLOISTER_TLS_CERTIFICATE",
            id="no certificate",
        ),
        pytest.param(
            lambda make: Pair(Path(os.devnull), make("one").key),
            "no TLS certificate and its private key",
            id="an empty certificate",
        ),
    ],
)
def test_what_cannot_serve_tls_is_named(
    make_pair: MakePair, spoil: Callable[[MakePair], Pair], complaint: str
) -> None:
    pair = spoil(make_pair)
    with pytest.raises(CloisterError, match=complaint) as caught:
        server_context(pair.certificate, pair.key)
    assert str(pair.certificate) in str(caught.value) or str(pair.key) in str(caught.value)


def test_the_service_does_not_start_with_an_expired_certificate(
    start: Start, make_pair: MakePair
) -> None:
    process = start(**make_pair("old", ends=-DAY / 2).settings)
    assert process.wait_ended() == 1
    assert "expired" in process.log
    assert "Traceback" not in process.log


@pytest.mark.parametrize("missing", ["CLOISTER_TLS_CERTIFICATE", "CLOISTER_TLS_KEY"])
def test_certificate_and_key_come_together(start: Start, make_pair: MakePair, missing: str) -> None:
    process = start(**make_pair("good").settings | {missing: ""})
    assert process.wait_ended() == 1
    assert "both CLOISTER_TLS_CERTIFICATE and CLOISTER_TLS_KEY" in process.log
    assert "Traceback" not in process.log


@pytest.mark.parametrize("setting", ["CLOISTER_PUBLISHED_HOST", "CLOISTER_HOST"])
def test_the_service_is_not_published_without_keys(
    start: Start, tmp_path: Path, setting: str
) -> None:
    process = start(**{setting: EVERYWHERE, "CLOISTER_API_KEYS_PATH": str(tmp_path / "missing")})
    assert process.wait_ended() == 1
    assert "create an API key" in process.log
    assert "CLOISTER_PUBLISHED_HOST" in process.log
    assert "Traceback" not in process.log


def test_an_open_service_on_loopback_says_so(start: Start) -> None:
    process = start()
    process.wait_started()
    (warning,) = [line for line in process.log.splitlines() if " WARNING " in line]
    assert "everybody who reaches the port is served" in warning
    assert httpx.get(process.url + "/v2").is_success


def test_a_published_service_follows_its_keys(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "api-keys.json"
    store = ApiKeyStore(path)
    token = store.create("a", None)
    process = start(CLOISTER_PUBLISHED_HOST=EVERYWHERE, CLOISTER_API_KEYS_PATH=str(path))
    process.wait_started()
    assert " WARNING " not in process.log
    with httpx.Client(base_url=process.url) as client:
        headers = {"Authorization": f"Bearer {token}"}
        assert client.get("/v2").status_code == 401
        assert client.get("/v2", headers=headers).status_code == 200
        store.revoke("a")
        time.sleep(1)
        assert client.get("/v2", headers=headers).status_code == 401
    assert token not in process.log
    assert token.split("_")[2] not in process.log
