"""HAProxy's configuration as the settings make it. What it refuses and lets pass is seen in
containers, with HAProxy itself."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.supernode import fleet_http_client
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloister_fleet.configuration import JSON_LINE, TEXT_LINE, render
from cloister_fleet.paths import FLEET_PATHS, OBJECTS_PATH
from cloister_fleet.settings import Settings

PROBLEM = re.compile(
    r"status (\d+) content-type application/problem\+json string '([^']*)'( hdr Retry-After \d+)?"
)
FILE_NAMES = st.text(st.characters(min_codepoint=32, exclude_categories=["C", "Z"]), min_size=1)


def sections(text: str) -> dict[str, list[str]]:
    """Lines of each section, without comments."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.strip().startswith("#") or not line.strip():
            continue
        if line[0] != " ":
            found[line] = lines = []
        else:
            lines.append(line.strip())
    return found


def test_what_a_supernode_calls_passes_but_for_coming_and_going_without_a_key() -> None:
    source = Path(fleet_http_client.__file__).read_text()
    called = set(re.findall(r'path="(/v1/fleet/[^"]+)"', source))
    unauthenticated = {"/v1/fleet/register-node", "/v1/fleet/unregister-node"}
    assert {*FLEET_PATHS, OBJECTS_PATH} == called - unauthenticated


def test_servers_are_verified_by_name_wherever_they_are_asked() -> None:
    settings = Settings(superlink="link.example:9000", enrolment="enrol.example:9001")
    found = sections(render(settings))
    servers = {
        name.removeprefix("backend "): shlex.split(line)
        for name, lines in found.items()
        for line in lines
        if line.startswith("server ")
    }
    assert {name: words[2] for name, words in servers.items()} == {
        "superlink": "link.example:9000",
        "superlink_health": "link.example:9000",
        "objects": "link.example:9000",
        "enrolment": "enrol.example:9001",
        "enrolment_health": "enrol.example:9001",
    }
    for words in servers.values():
        host = words[2].partition(":")[0]
        assert words[words.index("verify") + 1] == "required"
        assert words[words.index("verifyhost") + 1] == host
        assert words[words.index("sni") + 1] == f"str({host})"


def test_the_port_for_sites_speaks_tls_alone_and_that_of_metrics_never() -> None:
    settings = Settings(
        host="192.0.2.1", fleet_tls_pem=Path("/tls/tls.pem"), fleet_inside_pem=Path("/tls/in.pem")
    )
    found = sections(render(settings))
    binds = {
        shlex.split(line)[1]: shlex.split(line)[2:]
        for lines in found.values()
        for line in lines
        if line.startswith("bind ")
    }
    files = ["crt", "/tls/tls.pem", "crt", "/tls/in.pem"]
    assert binds == {
        "192.0.2.1:8443": ["proto", "h1", "ssl", *files, "alpn", "http/1.1"],
        "192.0.2.1:8002": ["proto", "h1"],
    }
    assert "ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets" in found["global"]
    assert "ssl-default-server-options ssl-min-ver TLSv1.2" in found["global"]


@given(FILE_NAMES)
def test_paths_of_files_are_one_word_whatever_their_names(name: str) -> None:
    path = Path("/tls") / name
    text = render(Settings(fleet_tls_pem=path, ca_path=path))
    (bind,) = [line for line in text.splitlines() if " ssl crt " in line]
    assert shlex.split(bind)[6] == str(path)
    for line in text.splitlines():
        if line.startswith("    server "):
            words = shlex.split(line)
            assert words[words.index("ca-file") + 1] == str(path)


def test_the_limits_are_those_of_the_settings() -> None:
    settings = Settings(
        fleet_body_bytes=2_000_000,
        fleet_max_connections=50,
        fleet_address_connections=7,
        fleet_header_seconds=3,
        fleet_client_seconds=17,
    )
    found = sections(render(settings))
    sites = found["frontend sites"]
    assert "maxconn 50" in sites
    assert "tcp-request connection reject if { sc0_conn_cur gt 7 }" in sites
    assert any(
        "deny_status 413 if object { req.hdr_val(Content-Length) gt 2000000 }" in line
        for line in sites
    )
    assert "timeout http-request 3s" in found["defaults"]
    assert "timeout client 17s" in found["defaults"]


def test_every_error_of_its_own_is_a_problem() -> None:
    problems = {
        int(status): (json.loads(body), retry)
        for status, body, retry in PROBLEM.findall(render(Settings()))
    }
    # What HAProxy 2.6 makes by itself with this configuration, and what rules make.
    assert set(problems) == {400, 404, 408, 411, 413, 500, 502, 503, 504}
    for status, (problem, retry) in problems.items():
        assert problem["status"] == status
        assert problem["title"]
        assert problem["detail"]
        assert bool(retry) == (status in {502, 503, 504})


def test_a_log_line_is_json_and_neither_form_has_headers_or_queries() -> None:
    line = re.sub(r"%(\[[^]]*(\([^)]*\))?[^]]*\]|[A-Za-z]+)", "1", JSON_LINE)
    assert json.loads(line)["status"] == 1
    for settings, line in (
        (Settings(log_format="json"), JSON_LINE),
        (Settings(log_format="text"), TEXT_LINE),
    ):
        assert line in render(settings).replace("$$", "$")
        # The request line, with its query, and captured headers.
        assert re.search(r"%(r|HU|HQ|hr|hs)\b|capture|hdr", line) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"superlink": "server"},
        {"superlink": "server:8000 backup"},
        {"enrolment": "enrolment:8003\n    stats enable"},
        {"host": "0.0.0.0 ssl"},
        {"fleet_body_bytes": 0},
        {"log_format": "xml"},
        {"port": 8002},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(settings)


def test_the_process_becomes_haproxy_with_the_configuration_of_its_settings(tmp_path: Path) -> None:
    program = tmp_path / "haproxy"
    program.write_text('#!/bin/sh\ngrep -c "bind 127.0.0.1:9443 " "$3"\n')
    program.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CLOISTER_")}
    done = subprocess.run(
        [sys.executable, "-m", "cloister_fleet"],
        env=kept
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        | {"CLOISTER_PORT": "9443"},
        capture_output=True,
        text=True,
        check=False,
    )
    # What the check says is not passed on.
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
