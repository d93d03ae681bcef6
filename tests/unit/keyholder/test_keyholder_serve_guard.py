"""Whom ``keyholder serve`` lets in: its own machine, and pages of the console."""

import asyncio
import builtins
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from cloister_keyholder.commands.serve import run
from cloister_keyholder.errors import ClientUnavailable, KeyholderError
from cloister_keyholder.serving.app import create_app
from cloister_keyholder.serving.guard import BODY_LIMIT, BoundedJson
from cloister_keyholder.serving.models import OpenModels
from cloister_keyholder.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.service import load_settings

CONSOLE = "http://127.0.0.1:8080"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
}


class NobodyAskedError(Exception):
    """What is refused must not reach a model."""


@pytest.fixture
def api() -> TestClient:
    def fail(*_arguments: Any) -> Any:
        raise NobodyAskedError

    app = create_app(OpenModels(fail, fail), "http://service.test", [CONSOLE])
    return TestClient(app, base_url="http://127.0.0.1:8004")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8004", 200),
        ("localhost:8004", 200),
        ("LOCALHOST", 200),
        ("[::1]:8004", 200),
        ("rebound.example:8004", 421),
        ("127.0.0.1.rebound.example", 421),
        ("localhost:8004@rebound.example", 421),
        ("127.0.0.1:8004:1", 421),
        ("", 421),
    ],
)
def test_it_must_be_asked_by_a_loopback_name(api: TestClient, host: str, status: int) -> None:
    assert api.get("/health", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": CONSOLE}, 200),
        ({"Origin": CONSOLE, "Sec-Fetch-Site": "cross-site"}, 200),
        ({"Origin": "http://127.0.0.1:8081"}, 403),
        ({"Origin": "https://127.0.0.1:8080"}, 403),
        ({"Origin": "http://127.0.0.1:8080.rebound.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({}, 200),
    ],
)
def test_pages_of_other_origins_are_refused(
    api: TestClient, headers: dict[str, str], status: int
) -> None:
    answer = api.get("/health", headers=headers)
    assert answer.status_code == status
    allowed = CONSOLE if status == 200 and "Origin" in headers else None
    assert answer.headers.get("Access-Control-Allow-Origin") == allowed


def test_a_browser_that_asks_beforehand_is_told(api: TestClient) -> None:
    path = "/v1/models/digits/predict"
    allowed = api.options(path, headers={"Origin": CONSOLE, **PREFLIGHT})
    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == CONSOLE
    refused = api.options(path, headers={"Origin": "http://elsewhere.example", **PREFLIGHT})
    assert refused.status_code == 403
    assert "Access-Control-Allow-Origin" not in refused.headers
    assert "Access-Control-Allow-Credentials" not in allowed.headers


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"]
)
def test_only_json_is_taken(api: TestClient, media_type: str) -> None:
    answer = api.post(
        "/v1/models/digits/predict",
        content=b'{"rows": [[1]]}',
        headers={"Content-Type": media_type, "Origin": CONSOLE},
    )
    assert answer.status_code == 415
    assert answer.headers["Access-Control-Allow-Origin"] == CONSOLE


@pytest.mark.parametrize("is_stated", [True, False])
def test_a_body_is_bounded(api: TestClient, is_stated: bool) -> None:
    taken = 0

    def drip() -> Iterator[bytes]:
        nonlocal taken
        while taken < 4 * BODY_LIMIT:
            taken += 1 << 16
            yield b" " * (1 << 16)

    answer = api.post(
        "/v1/models/digits/predict",
        content=b" " * (BODY_LIMIT + 1) if is_stated else drip(),
        headers={"Content-Type": "application/json", "Origin": CONSOLE},
    )
    assert answer.status_code == 413
    assert answer.headers["Access-Control-Allow-Origin"] == CONSOLE


def test_who_still_waits_when_it_stops_is_told() -> None:
    started, sent = asyncio.Event(), []

    async def waits(_scope: Any, _receive: Any, _send: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async def nothing() -> Any:
        raise NobodyAskedError

    async def send(message: Any) -> None:
        sent.append(message)

    async def stop() -> None:
        scope = {"type": "http", "method": "GET", "headers": []}
        asking = asyncio.create_task(BoundedJson(waits)(scope, nothing, send))
        await started.wait()
        asking.cancel()
        await asking

    asyncio.run(stop())
    assert [message.get("status") for message in sent] == [503, None]
    assert b"is being stopped" in sent[1]["body"]


EVERYWHERE = "0.0.0.0"  # noqa: S104 - it is refused


@pytest.mark.parametrize("host", [EVERYWHERE, "192.0.2.1", "::", "example.org", ""])
def test_it_listens_on_loopback_alone(host: str) -> None:
    with pytest.raises(KeyholderError, match="is no loopback address"):
        run(Settings(host=host))


def test_the_command_says_so_and_ends() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "cloister_keyholder", "serve", "--host", EVERYWHERE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "'0.0.0.0' is no loopback address" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_where_nothing_serves_http_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import_ = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name == "uvicorn":
            raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
        return import_(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ClientUnavailable, match=r"install cloister-keyholder\[serve\]"):
        run(Settings())


def test_origins_are_a_list_of_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().origins == ("http://127.0.0.1:8080", "http://localhost:8080")
    monkeypatch.setenv("CLOISTER_CONSOLE_ORIGINS", " https://one.example , http://[::1]:8080")
    assert load_settings(Settings).origins == ("https://one.example", "http://[::1]:8080")
    for wrong in ("*", "https://one.example/", "one.example"):
        monkeypatch.setenv("CLOISTER_CONSOLE_ORIGINS", wrong)
        with pytest.raises(CloisterError, match=r"CLOISTER_CONSOLE_ORIGINS: .* is no origin"):
            load_settings(Settings)
