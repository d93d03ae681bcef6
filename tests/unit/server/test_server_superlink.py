"""The secret, the SuperLink's command, and the process that becomes it."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from cloister_server.secret import ensure_secret
from cloister_server.superlink import superlink_command


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
    program, *options = superlink_command("0.0.0.0", 8123, Path("/s/db"), Path("/c/secret"))  # noqa: S104 - an address in a command line
    assert program == "flower-superlink"
    for name, value in {
        "--host": "0.0.0.0",  # noqa: S104 - as above
        "--port": "8123",
        "--isolation": "process",
        "--superexec-auth-secret-file": "/c/secret",
        "--database": "/s/db",
    }.items():
        assert options[options.index(name) + 1] == value
    assert "--disable-runtime-dependency-installation" in options


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With a SuperLink that writes down how it was started."""
    script = tmp_path / "bin" / "flower-superlink"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "print(json.dumps([os.getpid(), sys.argv[1:], os.environ['FLWR_TELEMETRY_ENABLED']]))\n"
    )
    script.chmod(0o755)
    return os.environ | {
        "PATH": str(script.parent),
        "CLOISTER_STATE_DIR": str(tmp_path / "state"),
        "CLOISTER_SUPEREXEC_SECRET": str(tmp_path / "control" / "secret"),
        "CLOISTER_PORT": "8123",
    }


def start(environment: dict[str, str]) -> tuple[int, int, str, str]:
    """Its process id, exit code, output and errors."""
    with subprocess.Popen(
        [sys.executable, "-m", "cloister_server"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        output, errors = server.communicate()
    return server.pid, server.returncode, output, errors


def test_the_process_becomes_the_superlink_and_keeps_its_secret(
    environment: dict[str, str], tmp_path: Path
) -> None:
    secrets = set()
    for _ in range(2):
        pid, code, output, _ = start(environment)
        assert code == 0
        superlink_pid, options, telemetry = json.loads(output)
        # Signals reach the SuperLink itself.
        assert superlink_pid == pid
        assert telemetry == "0"
        assert options[options.index("--database") + 1] == str(tmp_path / "state" / "superlink.db")
        assert (tmp_path / "state").is_dir()
        secrets.add((tmp_path / "control" / "secret").read_text())
    assert len(secrets) == 1


def test_without_flower_it_says_so(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "bin" / "flower-superlink").unlink()
    _, code, _, errors = start(environment)
    assert code == 1
    assert "flower-superlink is not on PATH" in errors
    assert "Traceback" not in errors
