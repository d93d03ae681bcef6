"""Web pages: those whose origin is named may query the service from a browser, and no others."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from cloister_inference.access.control import AccessControl
from cloister_inference.access.credentials import ApiKeyStore
from cloister_inference.app import create_app
from cloister_inference.options import Options
from cloister_inference.settings import Settings
from cloister_shared.registry import Registry

PAGE = "http://127.0.0.1:8080"
INFER = "/v2/models/digits/versions/1/infer"
ALLOWED = "access-control-allow-origin"


def client(folder: Path, *origins: str) -> TestClient:
    """Of a service that wants API keys."""
    path = folder / "api-keys.json"
    ApiKeyStore(path).create("page", None)
    options = Options(threads=1, max_batch=1, cors_origins=origins)
    return TestClient(create_app(Registry(folder), options, access=AccessControl(path)))


def preflight(origin: str, method: str = "POST", headers: str = "") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": headers,
    }


def test_a_browser_may_ask_for_what_the_client_sends_without_an_api_key(tmp_path: Path) -> None:
    sent = "authorization,cloister-client-digest,content-type"
    answer = client(tmp_path, PAGE).options(INFER, headers=preflight(PAGE, headers=sent))
    assert answer.status_code == 200
    assert answer.headers[ALLOWED] == PAGE
    assert answer.headers["access-control-allow-methods"] == "GET, POST"
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "asked",
    [
        preflight("http://127.0.0.1:8081"),
        preflight(PAGE, "DELETE"),
        preflight(PAGE, headers="cloister-evaluation-key"),
    ],
)
def test_nothing_else_is_allowed(tmp_path: Path, asked: dict[str, str]) -> None:
    assert client(tmp_path, PAGE).options(INFER, headers=asked).status_code == 400


def test_a_page_can_read_errors_and_when_to_ask_again(tmp_path: Path) -> None:
    answer = client(tmp_path, PAGE).get("/v2/models/digits", headers={"Origin": PAGE})
    assert answer.status_code == 401
    assert answer.headers[ALLOWED] == PAGE
    assert answer.headers["access-control-expose-headers"] == "Retry-After, Server-Timing"
    assert answer.headers["vary"] == "Origin"


def test_another_page_cannot(tmp_path: Path) -> None:
    answer = client(tmp_path, PAGE).get("/v2", headers={"Origin": "https://example.org"})
    assert ALLOWED not in answer.headers


def test_by_default_no_page_may(tmp_path: Path) -> None:
    service = client(tmp_path)
    assert ALLOWED not in service.get("/v2/health/live", headers={"Origin": PAGE}).headers
    assert service.options(INFER, headers=preflight(PAGE)).status_code == 401


def test_origins_are_a_setting() -> None:
    settings = Settings(cors_origins=f" {PAGE}, https://example.org ,")
    assert settings.options().cors_origins == (PAGE, "https://example.org")
    assert Settings().options().cors_origins == ()


@pytest.mark.parametrize("stated", ["*", "null", "example.org", f"{PAGE}/", "https://*.org"])
def test_what_is_no_origin_is_refused(stated: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        Settings(cors_origins=stated)
