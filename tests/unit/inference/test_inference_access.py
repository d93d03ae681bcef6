"""Who is let in, over HTTP, and what becomes of that when the file of API keys changes."""

import asyncio
import json
import logging
import os
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from cloister_inference.access.control import AccessControl, check_exposure, is_loopback
from cloister_inference.access.credentials import ApiKeyStore, read_keys
from cloister_inference.app import create_app
from cloister_inference.options import Options
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry

EVERYWHERE = "0.0.0.0"  # noqa: S104 - nothing listens there
OPEN = {"/v2/health/live", "/v2/health/ready"}


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class House:
    """A service, the file of its API keys, and its clock."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.path = folder / "api-keys.json"
        self.store = ApiKeyStore(self.path)
        self.tokens = {name: self.store.create(name, None) for name in names}
        self.clock = Clock()
        self.app = create_app(
            Registry(folder),
            Options(threads=1, max_batch=1),
            access=AccessControl(self.path, self.clock),
        )

        @self.app.get("/owner")
        def owner(request: Request) -> str:
            name: str = request.state.owner
            return name

        self.client = TestClient(self.app, raise_server_exceptions=False)

    def get(self, path: str, token: str | None = None) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        response: httpx.Response = self.client.get(path, headers=headers)
        return response

    def status(self, token: str | None = None) -> int:
        """What somebody is answered, once a change of the file has been noticed."""
        self.clock.now += 1
        return self.get("/v2", token).status_code


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, "a", "b")
    with house.client:
        yield house


def test_a_key_lets_its_owner_in(house: House) -> None:
    assert house.get("/v2", house.tokens["a"]).status_code == 200
    for name, token in house.tokens.items():
        assert house.get("/owner", token).json() == name
    response = house.client.get("/v2", headers={"Authorization": f"bEARER   {house.tokens['a']} "})
    assert response.status_code == 200


def test_without_keys_everybody_is_anonymous(tmp_path: Path) -> None:
    house = House(tmp_path)
    with house.client:
        assert house.get("/owner").json() == "anonymous"
        assert house.get("/owner", "cloister_00000000_" + "0" * 64).json() == "anonymous"
        assert house.get("/v2").status_code == 200


def test_all_but_health_needs_a_key(house: House, protocol: Any) -> None:
    document = house.get("/openapi.json", house.tokens["a"]).json()
    requests = {
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, operations in document["paths"].items()
        for method in operations
        if path not in OPEN
    }
    assert ("POST", "/v2/models/name/infer") in requests
    requests |= {
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("DELETE", "/v2"),
        ("GET", "/v2/health/live/"),
        ("GET", "//v2/health/live"),
        ("GET", "/v2/health/ready/../../models/digits"),
        ("OPTIONS", "/v2"),
    }
    for method, path in requests:
        response = house.client.request(method, path)
        assert protocol.problem(response)[0] == 401, (method, path)
        assert response.headers["www-authenticate"] == "Bearer"
        assert "server-timing" not in response.headers
        known = house.client.request(
            method, path, headers={"Authorization": f"Bearer {house.tokens['a']}"}
        )
        assert known.status_code != 401, (method, path)
    assert house.get("/v2/health/live").status_code == 200
    # There are no models.
    assert house.get("/v2/health/ready").status_code not in (200, 401)


def test_a_refusal_does_not_say_what_was_wrong(house: House) -> None:
    token = house.tokens["a"]
    house.store.revoke("b")
    house.clock.now += 1
    refused = [
        house.client.get("/v2", headers=headers)
        for headers in (
            {},
            {"Authorization": f"Bearer {house.tokens['b']}"},
            {"Authorization": f"Bearer {token[:-1]}{'1' if token[-1] == '0' else '0'}"},
            {"Authorization": "Bearer " + "cloister_00000000_" + "0" * 64},
            {"Authorization": f"Basic {token}"},
            {"Authorization": f"Bearer {token}, Bearer {token}"},
            {"Authorization": "Bearer"},
            {"Authorization": token},
            {"X-Api-Key": token},
        )
    ]
    assert {response.status_code for response in refused} == {401}
    assert len({response.content for response in refused}) == 1
    for response in refused:
        del response.headers["X-Request-Id"]
    assert len({tuple(sorted(response.headers.items())) for response in refused}) == 1
    twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert house.client.get("/v2", headers=twice).status_code == 401
    assert house.client.get(f"/v2?access_token={token}").status_code == 401


def ask(app: FastAPI, headers: list[tuple[bytes, bytes]], path: str = "/v2") -> tuple[int, bytes]:
    """Send what no HTTP client would."""
    status, body = 0, b""

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status, body
        status = message.get("status", status)
        body += message.get("body", b"")

    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"",
        "headers": headers,
    }
    asyncio.run(app(scope, receive, send))
    return status, body


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_header_but_a_keys_own_lets_anybody_in(house: House, data: st.DataObject) -> None:
    valid = f"Bearer {house.tokens['a']}".encode()
    piece = st.binary(max_size=6) | st.sampled_from([b"Bearer ", b"\t", b" ", b",", b"=", valid])
    cut = st.integers(0, len(valid))
    value = data.draw(
        st.binary(max_size=120)
        | st.lists(piece, max_size=4).map(b"".join)
        | st.builds(lambda i, j, p: valid[:i] + p + valid[j:], cut, cut, piece)
    )
    status, body = ask(house.app, [(b"host", b"x"), (b"authorization", value)])
    scheme, _, token = value.strip(b" \t").partition(b" ")
    right = scheme.lower() == b"bearer" and token.lstrip(b" ") == valid.removeprefix(b"Bearer ")
    assert status == (200 if right else 401)
    assert right or json.loads(body)["status"] == 401


def test_nothing_is_read_before_the_refusal(house: House) -> None:
    class Body(BaseModel):
        number: int

    # FastAPI reads a body that an endpoint declares before it asks any dependency.
    @house.app.post("/declared")
    def declared(_body: Body) -> None:
        raise AssertionError

    events = []

    async def receive() -> MutableMapping[str, Any]:
        events.append("read")
        return {"type": "http.request", "body": b"{", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        events.append(str(message.get("status", message["type"])))

    for path in ("/declared", "/v2/models/digits/infer"):
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"content-length", b"1"), (b"content-type", b"application/json")],
        }
        events.clear()
        asyncio.run(house.app(scope, receive, send))
        assert events[:2] == ["401", "http.response.body"]


def test_a_new_key_is_known_and_a_revoked_one_refused_within_a_second(house: House) -> None:
    later = house.store.create("later", None)
    house.store.revoke("a")
    house.clock.now += 0.99
    assert house.get("/v2", house.tokens["a"]).status_code == 200
    assert house.get("/v2", later).status_code == 401
    house.clock.now += 0.01
    assert house.get("/v2", house.tokens["a"]).status_code == 401
    assert house.get("/v2", later).status_code == 200
    assert house.get("/v2", house.tokens["b"]).status_code == 200


def test_without_any_key_left_nobody_is_let_in(house: House) -> None:
    for name in ("a", "b"):
        house.store.revoke(name)
    assert house.status(house.tokens["a"]) == 401
    assert house.status() == 401


def test_the_first_key_closes_an_open_service(tmp_path: Path) -> None:
    house = House(tmp_path)
    with house.client:
        assert house.status() == 200
        token = house.store.create("first", None)
        assert house.status() == 401
        assert house.status(token) == 200


@pytest.mark.parametrize("damage", ["{", "", '{"version": 1}x', '{"version": 2, "keys": []}'])
def test_a_damaged_file_leaves_the_keys_as_they_were(
    house: House, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    good = house.path.read_bytes()
    house.path.write_text(damage)
    for _ in range(3):
        assert house.status(house.tokens["a"]) == 200
        assert house.status() == 401
    (error,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "no file of API keys" in error.message
    house.path.write_bytes(good)
    house.store.revoke("a")
    assert house.status(house.tokens["a"]) == 401
    assert house.status(house.tokens["b"]) == 200


def test_a_damaged_file_does_not_leave_an_open_service_open(tmp_path: Path) -> None:
    house = House(tmp_path)
    with house.client:
        assert house.status() == 200
        house.path.write_text("{")
        assert house.status() == 401


def test_a_file_that_disappears_opens_nothing(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    aside = house.path.rename(house.path.with_name("aside"))
    for _ in range(3):
        assert house.status(house.tokens["a"]) == 401
        assert house.status() == 401
    (error,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "is gone" in error.message
    aside.rename(house.path)
    assert house.status(house.tokens["a"]) == 200
    assert house.status() == 401


def test_a_folder_that_disappears_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "access").mkdir()
    house = House(tmp_path / "access", "a")
    with house.client:
        (tmp_path / "access").rename(tmp_path / "elsewhere")
        assert house.status(house.tokens["a"]) == 401
        (tmp_path / "access").write_text("no folder")
        assert house.status(house.tokens["a"]) == 401


def test_a_file_that_could_not_be_read_is_tried_again(house: House) -> None:
    token = house.store.create("later", None)
    good = house.path.read_bytes()

    def write(content: bytes) -> None:
        # In place: to look at, it is the same file whatever is in it.
        with house.path.open("r+b") as stream:
            stream.write(content)
        os.utime(house.path, ns=(0, 0))

    write(b"x" * len(good))
    assert house.status(token) == 401
    write(good)
    assert house.status(token) == 200


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | st.text('{}[]":,versionkeys12', max_size=40))
def test_no_content_of_the_file_opens_the_service_or_breaks_it(
    house: House, content: bytes | str
) -> None:
    house.path.write_bytes(content if isinstance(content, bytes) else content.encode())
    # A file without keys is a file of keys.
    with suppress(CloisterError):
        read_keys(house.path)
        reject()
    assert house.status() == 401
    assert house.status(house.tokens["a"]) == 200


@pytest.mark.parametrize("content", ["{", "", "[]"])
def test_a_service_does_not_start_with_a_damaged_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "api-keys.json"
    path.write_text(content)
    with pytest.raises(CloisterError, match=r"api-keys\.json"):
        AccessControl(path)


def test_a_service_does_not_start_with_something_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match="cannot be read"):
        AccessControl(tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_keys(host: str, caplog: pytest.LogCaptureFixture) -> None:
    check_exposure(host, AccessControl())
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert "everybody who reaches the port is served" in warning.message
    assert "loopback" in warning.message


@pytest.mark.parametrize(
    "host",
    [EVERYWHERE, "::", "192.0.2.1", "example.com", "localhost.example.com", "", "127.0.0.1.nip.io"],
)
def test_another_address_does(host: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not is_loopback(host)
    with pytest.raises(CloisterError, match=r"create an API key.*loopback"):
        check_exposure(host, AccessControl(tmp_path / "missing"))
    ApiKeyStore(tmp_path / "keys").create("a", None)
    caplog.clear()
    check_exposure(host, AccessControl(tmp_path / "keys"))
    assert not caplog.records


def test_keys_and_limits_are_described(house: House) -> None:
    for _ in range(2):
        document = house.get("/openapi.json", house.tokens["a"]).json()
        ((name, scheme),) = document["components"]["securitySchemes"].items()
        assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
        for path, operations in document["paths"].items():
            for operation in operations.values():
                assert ({"401", "429"} <= set(operation["responses"])) == (path not in OPEN)
                assert operation.get("security", []) == ([] if path in OPEN else [{name: []}, {}])
        refusals = document["paths"]["/v2"]["get"]["responses"]
        assert set(refusals["401"]["content"]) == {"application/problem+json"}
        assert "Retry-After" in refusals["429"]["headers"]
