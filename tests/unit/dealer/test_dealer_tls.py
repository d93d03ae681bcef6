"""The dealer as a process that speaks TLS."""

import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from cloister_cli.processes import free_ports
from cloister_dealer.settings import Settings
from cloister_provision.__main__ import provision
from cloister_provision.settings import Settings as ProvisionSettings

WAIT = 120.0


@pytest.fixture
def tls(tmp_path: Path) -> dict[str, Path]:
    """What provision makes for the dealer, and what clients verify it with."""
    folder = tmp_path / "federation"
    provision(ProvisionSettings(federation_dir=folder))
    return {
        "certificate": folder / "dealer-tls" / "tls.crt",
        "key": folder / "dealer-tls" / "tls.key",
        "trust": folder / "trust" / "ca.crt",
    }


def environment(folder: Path, tls: dict[str, Path]) -> dict[str, str]:
    return os.environ | {
        "CLOISTER_SHARDS_DIR": str(folder / "shards"),
        "CLOISTER_HELD_OUT_DIR": str(folder / "held-out"),
        "CLOISTER_TLS_CERTIFICATE": str(tls["certificate"]),
        "CLOISTER_TLS_KEY": str(tls["key"]),
    }


def test_it_answers_over_tls_and_not_in_the_clear(tmp_path: Path, tls: dict[str, Path]) -> None:
    (port,) = free_ports(1)
    settings = environment(tmp_path, tls) | {"CLOISTER_PORT": str(port)}
    context = ssl.create_default_context(cafile=tls["trust"])
    with subprocess.Popen([sys.executable, "-m", "cloister_dealer"], env=settings) as dealer:
        try:
            deadline = time.monotonic() + WAIT
            while True:
                try:
                    answer = httpx.get(f"https://127.0.0.1:{port}/health", verify=context)
                    break
                except httpx.HTTPError:
                    assert time.monotonic() < deadline, "it does not answer"
                    assert dealer.poll() is None
                    time.sleep(0.1)
            assert answer.json() == {"shards": 10}
            with pytest.raises(httpx.HTTPError):
                httpx.get(f"http://127.0.0.1:{port}/health")
        finally:
            dealer.terminate()


def test_a_key_of_another_certificate_is_told(tmp_path: Path, tls: dict[str, Path]) -> None:
    other = tls["key"].parents[1] / "server-tls" / "tls.key"
    ended = subprocess.run(
        [sys.executable, "-m", "cloister_dealer"],
        env=environment(tmp_path, tls | {"key": other}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "are no TLS certificate and its private key" in ended.stderr


@pytest.mark.parametrize("given", ["tls_certificate", "tls_key"])
def test_certificate_and_key_come_together(given: str) -> None:
    with pytest.raises(ValidationError, match="CLOISTER_TLS_CERTIFICATE and CLOISTER_TLS_KEY"):
        Settings.model_validate({given: Path("x")})
