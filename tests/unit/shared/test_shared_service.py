"""Settings, log lines and exit codes of a process."""

import os
import signal
import subprocess
import sys

import pytest

PREAMBLE = """
import errno, logging, os, sys
from pathlib import Path
from pydantic import Field, SecretStr, model_validator
from cloister_shared.errors import CloisterError
from cloister_shared.service import ServiceSettings, run_service

class Settings(ServiceSettings):
    bits: int = Field(default=8, ge=2, le=8)
    shards: list[int] = [1]
    path: Path = Path("models")
    secret: SecretStr = SecretStr("")
    outside: int = Field(default=0, validation_alias="FLWR_OUTSIDE")

    @model_validator(mode="after")
    def _agree(self):
        if self.bits == 7:
            raise ValueError("7 bits and these shards do not go together")
        return self

def main(settings):
"""


def run(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a service whose ``main`` has this body."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}
    return subprocess.run(
        [sys.executable, "-c", f"{PREAMBLE}    {body}\nrun_service('sample', Settings, main)"],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_settings_come_from_the_environment_and_an_empty_variable_is_not_set() -> None:
    result = run(
        "print(settings.bits, settings.shards, settings.path, settings.outside)",
        CLOISTER_BITS="4",
        CLOISTER_SHARDS="[2, 3]",
        CLOISTER_PATH="",
        FLWR_OUTSIDE="9",
    )
    assert (result.returncode, result.stdout) == (0, "4 [2, 3] models 9\n")
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"CLOISTER_BITS": "9"}, "CLOISTER_BITS: Input should be less than or equal to 8"),
        ({"CLOISTER_BITS": "many"}, "CLOISTER_BITS: Input should be a valid integer"),
        ({"CLOISTER_SHARDS": '[1, "x"]'}, "CLOISTER_SHARDS[1]: Input should be a valid integer"),
        ({"CLOISTER_SHARDS": "1,2"}, "CLOISTER_SHARDS: must be JSON"),
        ({"FLWR_OUTSIDE": "x"}, "  FLWR_OUTSIDE: Input should be a valid integer"),
        ({"CLOISTER_BITS": "7"}, "  Value error, 7 bits and these shards do not go together"),
    ],
)
def test_a_wrong_setting_is_named_by_its_variable(
    environment: dict[str, str], message: str
) -> None:
    result = run("print('started')", **environment)
    assert result.returncode == 1
    assert "wrong settings:" in result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_all_wrong_settings_are_named_at_once_without_the_secret() -> None:
    wrong, secret = {"CLOISTER_BITS": "9", "FLWR_OUTSIDE": "x"}, "hush"
    result = run("pass", **wrong, CLOISTER_SECRET=secret)
    assert "CLOISTER_BITS" in result.stderr
    assert "FLWR_OUTSIDE" in result.stderr
    assert secret not in result.stderr


@pytest.mark.parametrize(
    ("body", "code", "shown", "traceback"),
    [
        ("pass", 0, "", False),
        ("raise CloisterError('do this')", 1, "ERROR   sample: do this\n", False),
        ("open('/dev/full', 'w').write('x' * 100_000)", 1, "free some space", False),
        ("raise OSError(errno.EDQUOT, 'Quota', '/volume/file')", 1, "(/volume/file)", False),
        ("raise OSError(errno.EROFS, 'Read-only')", 1, "mount the volume writable", False),
        ("raise PermissionError(errno.EACCES, 'Denied', '/x')", 1, "Denied (/x): give", False),
        ("raise OSError(errno.EIO, 'Broken')", 1, "Broken", True),
        ("raise OSError('without a number')", 1, "without a number", True),
        ("raise ValueError('a defect')", 1, "ValueError: a defect", True),
        ("sys.exit(3)", 3, "", False),
        ("raise KeyboardInterrupt", 130, "", False),
    ],
)
def test_the_exit_code_says_how_it_ended(body: str, code: int, shown: str, traceback: bool) -> None:
    result = run(body)
    assert result.returncode == code
    assert shown in result.stderr
    assert ("Traceback" in result.stderr) == traceback
    assert (result.stderr == "") == (shown == "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_after_its_cleanup(number: signal.Signals, code: int) -> None:
    body = """
    try:
        print("started", flush=True)
        sys.stdin.read()
    finally:
        print("cleaned up", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", f"{PREAMBLE}{body}\nrun_service('sample', Settings, main)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "started\n"
        process.send_signal(number)
        assert process.stdout.read() == "cleaned up\n"
        assert process.stderr.read() == ""
        assert process.wait() == code


def test_one_whose_reader_stops_ends_without_a_traceback() -> None:
    body = "    print('x' * 1000, flush=True); sys.stdin.read(); print('x' * 1000000)"
    with subprocess.Popen(
        [sys.executable, "-c", f"{PREAMBLE}{body}\nrun_service('sample', Settings, main)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait() == 128 + signal.SIGPIPE


def test_log_lines_give_time_level_and_service_and_leave_requests_out() -> None:
    body = "logging.getLogger('a').info('hello'); logging.getLogger('httpx').info('GET /secret')"
    result = run(body)
    (shown,) = result.stderr.splitlines()
    time, rest = shown.split(" ", 1)
    assert rest == "INFO    sample: hello"
    assert time.endswith("Z")
    assert "T" in time
