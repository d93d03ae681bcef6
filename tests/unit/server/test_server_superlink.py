"""The secret, the SuperLink's command, and the process that becomes it."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from flwr.supercore.sql_mixin import SqlMixin
from sqlalchemy import event, text
from sqlalchemy.pool import Pool

from cloister_provision.__main__ import provision
from cloister_provision.settings import Settings as ProvisionSettings
from cloister_server.__main__ import tls_files
from cloister_server.settings import Settings
from cloister_server.superlink import (
    BUSY_SECONDS,
    TlsFiles,
    _set_busy_timeout,
    superlink_options,
    wait_for_locks,
)
from cloister_shared.errors import CloisterError
from cloister_shared.superexec import ensure_secret


def test_the_secret_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "control" / "superexec.secret"
    before = os.umask(0)
    try:
        ensure_secret(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(bytes.fromhex(path.read_text())) == 32
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_secret_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "superexec.secret"
    ensure_secret(path)
    first = path.read_text()
    ensure_secret(path)
    assert path.read_text() == first
    ensure_secret(tmp_path / "another")
    assert (tmp_path / "another").read_text() != first


def test_what_a_killed_process_left_of_it_is_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "superexec.secret"
    (tmp_path / ".superexec.secret.partial").write_text("12")
    ensure_secret(path)
    assert len(path.read_text()) == 64


def test_the_command_keeps_serverapps_out_and_state_on_disk() -> None:
    options = superlink_options("0.0.0.0", 8123, Path("/s/db"), Path("/c/secret"), None)  # noqa: S104 - an address in a command line
    for name, value in {
        "--host": "0.0.0.0",  # noqa: S104 - as above
        "--port": "8123",
        "--isolation": "process",
        "--superexec-auth-secret-file": "/c/secret",
        "--database": "/s/db",
    }.items():
        assert options[options.index(name) + 1] == value
    assert "--disable-runtime-dependency-installation" in options


def test_with_a_certificate_it_speaks_tls_and_lets_in_known_nodes_alone() -> None:
    tls = TlsFiles(Path("/t/crt"), Path("/t/key"), Path("/t/ca"))
    options = superlink_options("::1", 8123, Path("/s/db"), Path("/c/secret"), tls)
    for name, value in {
        "--ssl-certfile": "/t/crt",
        "--ssl-keyfile": "/t/key",
        "--ssl-ca-certfile": "/t/ca",
    }.items():
        assert options[options.index(name) + 1] == value
    assert "--enable-supernode-auth" in options
    assert "--insecure" not in options


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, Any]:
    """What provision makes for the server, by setting."""
    folder = tmp_path / "federation"
    provision(ProvisionSettings(federation_dir=folder))
    tls = folder / "server-tls"
    return {
        "tls_certificate": tls / "tls.crt",
        "tls_key": tls / "tls.key",
        "tls_ca": tls / "ca.crt",
    }


def test_the_certificate_that_provision_makes_serves(certificate: dict[str, Any]) -> None:
    assert tls_files(Settings(**certificate)) == TlsFiles(*certificate.values())


def test_without_tls_only_who_says_so_starts(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(CloisterError, match=r"set CLOISTER_TLS_CERTIFICATE, .* provision makes"):
        tls_files(Settings())
    assert tls_files(Settings(insecure=True)) is None
    assert "every node is let in" in caplog.text


@pytest.mark.parametrize("lost", ["tls_certificate", "tls_key", "tls_ca"])
def test_a_file_that_is_missing_or_damaged_is_named(certificate: dict[str, Any], lost: str) -> None:
    with pytest.raises(CloisterError, match="CLOISTER_TLS_CERTIFICATE, CLOISTER_TLS_KEY"):
        tls_files(Settings(**{key: path for key, path in certificate.items() if key != lost}))
    certificate[lost].unlink()
    with pytest.raises(CloisterError, match=f"CLOISTER_{lost.upper()}"):
        tls_files(Settings(**certificate))


def test_a_key_of_another_certificate_is_told(certificate: dict[str, Any]) -> None:
    other = certificate["tls_key"].parents[1] / "dealer-tls" / "tls.key"
    with pytest.raises(CloisterError, match="no TLS certificate and its private key"):
        tls_files(Settings(**(certificate | {"tls_key": other})))


def test_a_write_waits_longer_than_flower_would(tmp_path: Path) -> None:
    wait_for_locks()
    try:
        state = SqlMixin(str(tmp_path / "superlink.db"))
        state.initialize()
        with state.session() as session:
            assert session.execute(text("PRAGMA busy_timeout")).scalar() == 1000 * BUSY_SECONDS
            assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    finally:
        event.remove(Pool, "checkout", _set_busy_timeout)


PROGRAM = """
import json, os, sys
import flwr.superlink.cli as cli
cli.flower_superlink = lambda: print(json.dumps([sys.argv, os.environ["FLWR_TELEMETRY_ENABLED"]]))
from cloister_server.__main__ import main
main()
"""


def test_the_process_is_the_superlink_and_keeps_its_secret(tmp_path: Path) -> None:
    environment = os.environ | {
        "CLOISTER_STATE_DIR": str(tmp_path / "state"),
        "CLOISTER_SUPEREXEC_SECRET": str(tmp_path / "control" / "secret"),
        "CLOISTER_PORT": "8123",
        "CLOISTER_INSECURE": "true",
    }
    secrets = set()
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        arguments, telemetry = json.loads(ended.stdout)
        assert telemetry == "0"
        database = arguments[arguments.index("--database") + 1]
        assert database == str(tmp_path / "state" / "superlink.db")
        assert (tmp_path / "state").is_dir()
        secrets.add((tmp_path / "control" / "secret").read_text())
    assert len(secrets) == 1
