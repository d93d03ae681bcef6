"""JSON log lines have one shape in all services, and one id from end to end."""

import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from exported import free_port, provisioned, running

from cloister_fleet.configuration import JSON_LINE as FLEET_LINE
from cloister_gateway.configuration import JSON_LINE as GATEWAY_LINE
from cloister_shared.haproxy import TIME

SERVICES = {
    path.parent.name for path in (Path(__file__).parents[3] / "services").glob("*/pyproject.toml")
}
SHAPE = {"time", "level", "service", "logger", "message"}

# What makes each of them say something, and end.
WRONG = {
    "client": {"INSECURE": "x"},
    "compiler": {"TOLERANCE": "x"},
    "console": {"PORT": "x"},
    "dealer": {"PORT": "x"},
    "enrolment": {"PORT": "x"},
    "fleet": {"PORT": "x"},
    "gateway": {"PORT": "x"},
    "inference": {"PORT": "x"},
    "keyholder": {"WAIT_SECONDS": "x"},
    "provision": {"FEDERATION_NAMES": "not a name"},
    "server": {"PORT": "x"},
    "trainer": {"ROUNDS": "x"},
}
PROGRAMS = {service: [f"cloister_{service}"] for service in WRONG} | {
    "keyholder": ["cloister_keyholder", "evaluate"]
}


def test_every_service_is_asked() -> None:
    # The command line starts the others.
    assert WRONG.keys() == SERVICES - {"cli"}


@pytest.mark.parametrize("service", WRONG)
def test_a_line_of_a_service_has_the_shape(service: str, tmp_path: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLOISTER_")}
    stated = {f"CLOISTER_{name}": value for name, value in WRONG[service].items()}
    done = subprocess.run(
        [sys.executable, "-m", *PROGRAMS[service]],
        env=kept | stated | {"CLOISTER_LOG_FORMAT": "json"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert lines
    for line in lines:
        assert line.keys() >= SHAPE
        assert line["service"] == service
        assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)
    assert lines[-1]["level"] == "ERROR"
    assert next(iter(stated)).removesuffix("S") in lines[-1]["message"]


@pytest.mark.parametrize(
    ("service", "template"), [("gateway", GATEWAY_LINE), ("fleet", FLEET_LINE)]
)
def test_a_line_of_haproxys_has_the_shape_and_the_requests_id(service: str, template: str) -> None:
    line = json.loads(re.sub(r"%(\[[^]]*(\([^)]*\))?[^]]*\]|[A-Za-z]+)", "1", template))
    assert line.keys() >= SHAPE | {"request_id"}
    assert (line["service"], line["logger"]) == (service, "haproxy")
    assert f'"time":"{TIME}"' in template


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="there is no haproxy")
def test_haproxy_writes_nothing_else(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"
    settings = provisioned(tmp_path / "federation") | {"port": port, "log_format": "json"}
    trusted = ssl.create_default_context(cafile=tmp_path / "federation" / "trust" / "ca.crt")
    with log.open("wb") as output, running("cloister_fleet", settings, output):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"no TLS\r\n\r\n")
            connection.recv(1)
        with httpx.Client(verify=trusted) as client:
            asked = client.get(f"https://localhost:{port}/a", headers={"X-Request-Id": "mine"})
            assert asked.status_code == 404
    handshake, request = map(json.loads, log.read_text().splitlines())
    assert handshake.keys() >= SHAPE
    assert "SSL" in handshake["message"]
    assert request.keys() >= SHAPE
    assert (request["status"], request["path"]) == (404, "/a")
    assert request["request_id"] not in {"", "-", "mine"}


def test_a_defect_is_a_line_too(tmp_path: Path) -> None:
    body = (
        "from cloister_shared.service import ServiceSettings, run_service\n"
        "def main(settings): 1 / 0\n"
        "run_service('sample', ServiceSettings, main)"
    )
    done = subprocess.run(
        [sys.executable, "-c", body],
        env=os.environ | {"CLOISTER_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (line,) = map(json.loads, done.stderr.splitlines())
    assert line.keys() == SHAPE | {"exc_info"}
    assert line["level"] == "CRITICAL"
    assert "ZeroDivisionError" in line["exc_info"]
