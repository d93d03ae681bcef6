"""The secret, the SuperLink's command, and the process that becomes it."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from flwr.supercore.sql_mixin import SqlMixin
from sqlalchemy import event, text
from sqlalchemy.pool import Pool

from cloister_server.secret import ensure_secret
from cloister_server.superlink import (
    BUSY_SECONDS,
    _set_busy_timeout,
    superlink_options,
    wait_for_locks,
)


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
