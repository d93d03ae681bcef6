"""HAProxy's configuration as the settings make it."""

import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cloister_gateway.configuration import JSON_LINE, has_certificate, render
from cloister_gateway.settings import Settings
from cloister_shared.errors import CloisterError

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


def test_requests_go_to_as_many_replicas_as_there_may_be() -> None:
    settings = Settings(upstream="models.example:9000", replicas_max=25, replica_requests=7)
    backends = sections(render(settings, secure=False))
    assert "server-template inference 1-25 models.example:9000" in backends["backend inference"]
    assert "server-template unready 1-25 models.example:9000" in backends["backend unready"]
    for backend in ("backend inference", "backend unready"):
        assert any("maxconn 7" in line for line in backends[backend])


def test_a_body_that_is_held_fits_the_buffer_beside_its_headers() -> None:
    settings = Settings(retry_bytes=500_000, body_bytes=2_000_000, client_seconds=17)
    found = sections(render(settings, secure=False))
    (buffer,) = [line for line in found["global"] if line.startswith("tune.bufsize")]
    assert int(buffer.split()[1]) >= 500_000 + 16_384
    api = "\n".join(found["frontend api"])
    assert "deny_status 413 if { req.hdr_val(Content-Length) gt 2000000 }" in api
    held = next(line for line in found["frontend api"] if "wait-for-body" in line)
    assert "time 17s" in held
    assert held.endswith("{ req.hdr_val(Content-Length) le 500000 }")


def test_only_the_published_port_speaks_tls(tmp_path: Path) -> None:
    settings = Settings(host="192.0.2.1", gateway_tls_pem=tmp_path / "tls.pem")
    for secure in (True, False):
        found = sections(render(settings, secure=secure))
        binds = {
            shlex.split(line)[1]: shlex.split(line)[2:]
            for lines in found.values()
            for line in lines
            if line.startswith("bind ")
        }
        tls = ["ssl", "crt", str(tmp_path / "tls.pem"), "alpn", "http/1.1"] if secure else []
        assert binds == {
            "192.0.2.1:8000": ["proto", "h1"],
            "192.0.2.1:8443": ["proto", "h1", *tls],
            "192.0.2.1:8002": ["proto", "h1"],
        }


@given(FILE_NAMES)
def test_the_certificates_path_is_one_word_whatever_its_name(name: str) -> None:
    text = render(Settings(gateway_tls_pem=Path("/tls") / name), secure=True)
    (line,) = [line for line in text.splitlines() if " ssl crt " in line]
    assert shlex.split(line)[6] == str(Path("/tls") / name)


def test_every_error_of_the_gateway_is_a_problem_like_the_services() -> None:
    text = render(Settings(body_bytes=1234), secure=False)
    problems = {int(status): (json.loads(body), hdr) for status, body, hdr in PROBLEM.findall(text)}
    # What HAProxy 2.6 makes by itself with this configuration, and what rules make.
    assert set(problems) == {400, 404, 408, 411, 413, 500, 502, 503, 504}
    for status, (problem, retry_after) in problems.items():
        assert problem["status"] == status
        assert problem["type"] == "about:blank"
        assert problem["title"]
        assert problem["detail"] == problem["error"] != ""
        assert bool(retry_after) == (status in {502, 503, 504})
    assert "1234 bytes" in problems[413][0]["detail"]


def test_a_json_log_line_is_json() -> None:
    # Numbers and words in place of what HAProxy fills in.
    line = re.sub(r"%(\[[^]]*(\([^)]*\))?[^]]*\]|[A-Za-z]+)", "1", JSON_LINE)
    assert json.loads(line)["status"] == 1
    assert JSON_LINE in render(Settings(log_format="json"), secure=False).replace("$$", "$")


@pytest.mark.parametrize(
    "settings",
    [
        {"upstream": "inference"},
        {"upstream": "inference:8000 backup"},
        {"upstream": "inference:8000\n    stats enable"},
        {"host": "0.0.0.0 ssl"},
        {"replicas_max": 0},
        {"log_format": "xml"},
        {"port": 8443},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(settings)


def test_an_empty_certificate_is_none(tmp_path: Path) -> None:
    pem = tmp_path / "tls.pem"
    assert not has_certificate(None)
    assert not has_certificate(Path("/dev/null"))
    with pytest.raises(CloisterError, match="GATEWAY_TLS_PEM"):
        has_certificate(pem)
    pem.touch()
    assert not has_certificate(pem)
    pem.write_text("-----BEGIN CERTIFICATE-----\n")
    assert has_certificate(pem)
