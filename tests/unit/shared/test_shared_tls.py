"""What a client would say of a server's certificate."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloister_provision.__main__ import provision
from cloister_provision.settings import Settings
from cloister_shared.tls import verify_server


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what provision makes, and another's."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("one", "other"):
        provision(Settings(federation_dir=folder / name))
    return folder


def verify(root: Path, name: str, authorities: str = "one", key: str = "dealer") -> datetime:
    certificate = root / "one" / "dealer-tls" / "tls.crt"
    key_path = root / "one" / f"{key}-tls" / "tls.key"
    return verify_server(certificate, key_path, root / authorities / "trust" / "ca.crt", name)


@pytest.mark.parametrize("name", ["dealer", "localhost", "127.0.0.1", "::1"])
def test_one_that_is_good_is_told_with_its_end(root: Path, name: str) -> None:
    left = verify(root, name) - datetime.now(UTC)
    assert timedelta(days=390) < left < timedelta(days=400)


@pytest.mark.parametrize(("name", "authorities"), [("server", "one"), ("dealer", "other")])
def test_another_name_or_ca_is_refused(root: Path, name: str, authorities: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        verify(root, name, authorities)


def test_another_key_is_refused(root: Path) -> None:
    with pytest.raises(ssl.SSLError):
        verify(root, "dealer", key="server")
