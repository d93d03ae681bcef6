"""The page's files, and what browsers are told about it."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from cloister_console.app import create_app
from cloister_console.settings import Settings


def policy(client: TestClient) -> dict[str, str]:
    stated = client.get("/").headers["content-security-policy"]
    return dict(part.split(" ", 1) for part in stated.split("; "))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/src/main.js", "text/javascript; charset=utf-8"),
        ("/client/src/index.js", "text/javascript; charset=utf-8"),
        ("/client/dist/lwe.wasm", "application/wasm"),
        ("/uplot/uPlot.esm.js", "text/javascript; charset=utf-8"),
        ("/uplot/uPlot.min.css", "text/css; charset=utf-8"),
        ("/health", "application/json"),
    ],
)
def test_it_serves_what_the_page_is_made_of(console: TestClient, path: str, kind: str) -> None:
    answer = console.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == kind
    assert answer.content


@pytest.mark.parametrize(
    "path",
    [
        "/deno.json",
        "/package.json",
        "/node_modules/uplot/package.json",
        "/client/README.md",
        "/client/src/../README.md",
        "/client/src/%2e%2e/README.md",
        "/src/..%2f..%2fpyproject.toml",
        "/docs",
        "/openapi.json",
    ],
)
def test_it_serves_nothing_else(console: TestClient, path: str) -> None:
    assert console.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/src/main.js", "/api/trainings", "/none"])
def test_every_answer_has_the_headers(console: TestClient, path: str) -> None:
    headers = console.get(path).headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers


def test_the_page_may_run_its_own_scripts_and_reach_its_services_alone() -> None:
    settings = Settings(url="https://models.example.org", keyholder_url="http://127.0.0.1:9004")
    stated = policy(TestClient(create_app(settings), base_url="http://localhost"))
    assert stated["default-src"] == "'none'"
    assert stated["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert stated["style-src"] == "'self'"
    assert stated["connect-src"] == "'self' https://models.example.org http://127.0.0.1:9004"
    assert stated["form-action"] == "'none'"
    assert stated["require-trusted-types-for"] == "'script'"


def test_the_page_is_told_where_its_services_are(console: TestClient) -> None:
    assert console.get("/api/configuration").json() == {
        "service_url": "http://127.0.0.1:8000",
        "keyholder_url": "http://127.0.0.1:8004",
    }


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8080", 200),
        ("localhost", 200),
        ("console.example.org", 200),
        ("rebound.example.com", 400),
        ("127.0.0.1.example.com:8080", 400),
    ],
)
def test_a_page_elsewhere_cannot_pretend_to_be_this_one(host: str, status: int) -> None:
    app = create_app(Settings(console_names="console.example.org"))
    assert TestClient(app).get("/", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "setting",
    [
        {"url": "http://127.0.0.1:8000/path"},
        {"url": "http://a.example; script-src *"},
        {"keyholder_url": "*"},
        {"console_names": "*"},
        {"console_names": "a.example, http://b.example"},
    ],
)
def test_what_is_no_origin_or_name_is_refused(setting: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="is no"):
        Settings.model_validate(setting)


def test_nothing_outside_its_folders_is_followed(tmp_path: Path) -> None:
    page = tmp_path / "page"
    for folder in ("src", "node_modules/uplot/dist"):
        (page / folder).mkdir(parents=True)
    (tmp_path / "secret.js").write_text("secret")
    (page / "src" / "link.js").symlink_to(tmp_path / "secret.js")
    client = TestClient(create_app(Settings(page_dir=page)), base_url="http://localhost")
    assert client.get("/src/link.js").status_code == 404
