"""How much an API key may ask for, over HTTP and by the clock."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from cloister_inference.access.control import AccessControl, Caller
from cloister_inference.access.credentials import ApiKeyStore
from cloister_inference.access.rate_limits import RateLimits, Unit
from cloister_inference.app import create_app
from cloister_inference.options import Options
from cloister_inference.problems import BatchAboveRateError, RateLimitedError
from cloister_shared.open_inference import encode_elements
from cloister_shared.registry import Registry

MODEL = "digits/versions/1"


@pytest.fixture
def clients(artifacts: Path, tmp_path: Path) -> Iterator[dict[str, TestClient]]:
    """The same service, as seen by the owners of two limited keys and one that is not."""
    store = ApiKeyStore(tmp_path / "api-keys.json")
    tokens = {
        name: store.create(name, rate)
        for name, rate in {"a": "6/minute", "b": "6/minute", "free": None}.items()
    }
    access = AccessControl(tmp_path / "api-keys.json")
    app = create_app(Registry(artifacts), Options(threads=2, max_batch=8), access=access)
    with TestClient(app, raise_server_exceptions=False):
        yield {
            name: TestClient(
                app,
                headers={"Authorization": f"Bearer {token}"},
                raise_server_exceptions=False,
            )
            for name, token in tokens.items()
        }


def batch(client: TestClient, protocol: Any, payload: bytes, count: int) -> httpx.Response:
    elements = [payload] * count
    response: httpx.Response = protocol.framed(
        client, MODEL, protocol.header(elements), encode_elements(elements)
    )
    return response


def test_inference_is_counted_in_ciphertexts(
    clients: dict[str, TestClient], protocol: Any, digits_payload: bytes
) -> None:
    client = clients["a"]
    assert batch(client, protocol, digits_payload, 4).status_code == 200
    limited = batch(client, protocol, digits_payload, 3)
    status, detail = protocol.problem(limited)
    assert status == 429
    assert "6 ciphertexts a minute" in detail
    assert limited.headers["retry-after"].isdecimal()
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    # What was refused did not count, and neither did what was not understood.
    assert batch(client, protocol, b"", 0).status_code == 400
    assert batch(client, protocol, digits_payload, 1).status_code == 200
    assert protocol.raw(client, MODEL, digits_payload).status_code == 200
    assert protocol.problem(protocol.raw(client, MODEL, digits_payload))[0] == 429


def test_a_batch_that_no_waiting_lets_through_is_too_large(
    clients: dict[str, TestClient], protocol: Any, digits_payload: bytes
) -> None:
    status, detail = protocol.problem(batch(clients["a"], protocol, digits_payload, 7))
    assert status == 413
    assert "smaller" in detail
    assert batch(clients["a"], protocol, digits_payload, 6).status_code == 200


def test_other_requests_are_counted_by_themselves(
    clients: dict[str, TestClient], protocol: Any, digits_payload: bytes
) -> None:
    client = clients["a"]
    for _ in range(3):
        assert client.get("/v2").status_code == 200
        assert client.post("/v2/repository/index").status_code == 200
    limited = client.get("/v2/models/digits")
    status, detail = protocol.problem(limited)
    assert status == 429
    assert "6 requests a minute" in detail
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    assert batch(client, protocol, digits_payload, 6).status_code == 200


def test_each_key_is_counted_by_itself(
    clients: dict[str, TestClient], protocol: Any, digits_payload: bytes
) -> None:
    assert batch(clients["a"], protocol, digits_payload, 6).status_code == 200
    assert batch(clients["a"], protocol, digits_payload, 1).status_code == 429
    assert batch(clients["b"], protocol, digits_payload, 6).status_code == 200
    for _ in range(3):
        assert batch(clients["free"], protocol, digits_payload, 8).status_code == 200


def test_without_keys_there_is_no_limit(service: TestClient) -> None:
    assert {service.get("/v2").status_code for _ in range(200)} == {200}


class Limited:
    """Limits under a clock that goes only when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: str) -> None:
        self.now = 1e9
        clock = SimpleNamespace(time=lambda: self.now)
        for module in (
            "limits.storage.memory",
            "limits.strategies",
            "cloister_inference.access.rate_limits",
        ):
            monkeypatch.setattr(f"{module}.time", clock)
        self._limits = RateLimits()
        self._caller = Caller("a", rate)

    def take(self, count: int, unit: Unit = "ciphertexts") -> int:
        """Seconds to wait, 0 where there was room."""
        try:
            self._limits.take(self._caller, count, unit)
        except RateLimitedError as error:
            return int(error.headers["Retry-After"])
        return 0


def test_the_time_to_wait_is_that_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = Limited(monkeypatch, "10/minute")
    assert limited.take(4) == 0
    limited.now += 20.5
    assert limited.take(6) == 0
    limited.now += 10.25
    assert limited.take(1) == 30
    assert limited.take(4) == 30
    assert limited.take(5) == 50
    limited.now += 29.2
    assert limited.take(4) == 1
    limited.now += 1
    assert limited.take(4) == 0
    with pytest.raises(BatchAboveRateError):
        limited.take(11)


ASKED = st.lists(
    st.tuples(st.integers(1, 7), st.floats(0, 20, allow_nan=False).map(lambda x: round(x, 3))),
    max_size=20,
)


@given(asked=ASKED)
def test_who_waits_as_told_is_served_and_never_more_than_the_limit(
    asked: list[tuple[int, float]],
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        limited = Limited(monkeypatch, "7/minute")
        served: list[tuple[float, int]] = []
        for count, pause in asked:
            limited.now += pause
            wait = limited.take(count)
            if wait:
                limited.now += wait
                assert limited.take(count) == 0
            served.append((limited.now, count))
            assert sum(n for at, n in served if at > limited.now - 60) <= 7
