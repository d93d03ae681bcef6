"""Versions put into use over HTTP: by whom, for how long, and what is told of versions."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from cloister_inference.access.control import AccessControl
from cloister_inference.access.credentials import ApiKeyStore
from cloister_inference.app import create_app
from cloister_inference.options import Options
from cloister_shared.registry import Registry

Start = Callable[..., TestClient]
PROMOTE = "/v2/repository/models/digits/promote"


@pytest.fixture
def choices(tmp_path: Path) -> Path:
    return tmp_path / "choices"


@pytest.fixture
def registry(own_artifacts: Path, republish: Any) -> Registry:
    """Two versions of digits, of which the second is in use."""
    republish("digits", changes={"model_version": 2})
    return Registry(own_artifacts)


@pytest.fixture
def start(own_artifacts: Path, registry: Registry, choices: Path) -> Iterator[Start]:
    """Start a replica."""
    with ExitStack() as started:

        def make(api_keys: Path | None = None, **options: Any) -> TestClient:
            made = Options(
                threads=1,
                max_batch=1,
                # Looked at when a test says so alone.
                poll_seconds=3600,
                **{"choices_dir": choices, **options},
            )
            app = create_app(registry, made, access=AccessControl(api_keys))
            return started.enter_context(TestClient(app, raise_server_exceptions=False))

        yield make


def promote(service: TestClient, version: str = "1", **sent: Any) -> httpx.Response:
    body = {"parameters": {"version": version}}
    answer: httpx.Response = service.post(PROMOTE, **{"json": body, **sent})
    return answer


def serving(service: TestClient) -> str:
    described = service.get("/v2/models/digits").raise_for_status().json()
    return str(described["parameters"]["version"])


def look(service: TestClient) -> None:
    """As every replica does at intervals."""
    service.app.state.data_plane._repository.look()  # type: ignore[attr-defined]


def test_a_version_that_is_put_into_use_serves_at_all_replicas_and_through_restarts(
    start: Start, registry: Registry
) -> None:
    one, other = start(), start()
    assert [serving(one), serving(other)] == ["2", "2"]
    assert promote(one).status_code == 200
    assert serving(one) == "1"
    look(other)
    assert serving(other) == "1"
    assert serving(start()) == "1"
    # The registry is not the service's to write.
    assert registry.current("digits") == 2


def test_what_the_registry_puts_into_use_next_has_the_last_word(
    start: Start, registry: Registry, republish: Any
) -> None:
    service = start()
    promote(service)
    republish("digits", changes={"model_version": 3})
    look(service)
    assert serving(service) == "3"
    promote(service, "2")
    registry.promote("digits", 1)
    look(service)
    assert serving(service) == "1"


def test_putting_the_registrys_own_version_into_use_ends_a_choice(
    start: Start, choices: Path
) -> None:
    service = start()
    promote(service, "1")
    promote(service, "2")
    assert serving(service) == "2"
    assert list(choices.iterdir()) == []


def test_a_version_that_was_chosen_and_deleted_is_not_served(
    start: Start, registry: Registry
) -> None:
    service = start()
    promote(service)
    registry.delete("digits", 1)
    look(service)
    assert serving(service) == "2"


def test_a_choice_that_cannot_be_read_counts_as_none(start: Start, choices: Path) -> None:
    choices.mkdir()
    (choices / "digits.json").write_text("{")
    assert serving(start()) == "2"


@pytest.mark.parametrize(
    ("version", "status"), [("3", 404), ("01", 404), ("../1", 404), ("x", 404), (1, 400)]
)
def test_there_is_no_such_version(start: Start, protocol: Any, version: Any, status: int) -> None:
    service = start()
    assert protocol.problem(promote(service, version))[0] == status
    assert serving(service) == "2"


def test_there_is_no_such_model(start: Start, protocol: Any) -> None:
    body = {"parameters": {"version": "1"}}
    answer = start().post("/v2/repository/models/none/promote", json=body)
    assert protocol.problem(answer)[0] == 404


def test_a_damaged_version_is_not_put_into_use(
    start: Start, own_artifacts: Path, choices: Path, protocol: Any
) -> None:
    (own_artifacts / "digits" / "1" / "server.zip").write_bytes(b"damaged")
    service = start()
    assert protocol.problem(promote(service))[0] == 503
    assert serving(service) == "2"
    assert not choices.exists()


def test_an_operators_key_alone_may(start: Start, tmp_path: Path, protocol: Any) -> None:
    path = tmp_path / "api-keys.json"
    store = ApiKeyStore(path)
    keys = {
        "hospital": store.create("hospital", None),
        "operator": store.create("operator", None, operator=True),
    }
    service = start(path)
    assert protocol.problem(promote(service))[0] == 401
    headers = {"Authorization": f"Bearer {keys['hospital']}"}
    status, detail = protocol.problem(promote(service, headers=headers))
    assert status == 403
    assert "--operator" in detail
    assert service.get("/v2/models/digits/versions", headers=headers).status_code == 200
    headers = {"Authorization": f"Bearer {keys['operator']}"}
    assert promote(service, headers=headers).status_code == 200
    assert service.get("/v2/models/digits", headers=headers).json()["parameters"]["version"] == "1"


def test_it_can_be_switched_off(start: Start, protocol: Any) -> None:
    assert protocol.problem(promote(start(model_control=False)))[0] == 403
    assert protocol.problem(promote(start(choices_dir=None)))[0] == 503


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_what_any_page_may_send_unasked_is_refused(
    start: Start, protocol: Any, media_type: str | None
) -> None:
    service = start()
    headers = {"Content-Type": media_type} if media_type else {}
    body = json.dumps({"parameters": {"version": "1"}}).encode()
    answer = service.post(PROMOTE, content=body, headers=headers)
    assert protocol.problem(answer)[0] == 415
    assert serving(service) == "2"


def test_a_folder_that_cannot_be_written_changes_nothing(
    start: Start, choices: Path, protocol: Any
) -> None:
    choices.write_text("no folder")
    service = start()
    status, detail = protocol.problem(promote(service))
    assert status == 503
    assert str(choices) not in detail
    assert serving(service) == "2"


def test_all_that_is_known_of_versions_is_told_without_loading_one(start: Start) -> None:
    service = start()
    serving(service)
    told = service.get("/v2/models/digits/versions").raise_for_status().json()
    assert (told["name"], told["serving"], told["registered"]) == ("digits", "2", "2")
    second, first = told["versions"]
    assert [second["version"], first["version"]] == ["2", "1"]
    assert (second["state"], second["evaluator"]) == ("READY", "native")
    assert (first["state"], first["evaluator"]) == ("UNAVAILABLE", None)
    assert "not loaded yet" in first["reason"]
    assert first["training"]["estimator"] == "LogisticRegression"
    assert first["training"]["dataset"] == "digits"
    described = service.get("/v2/models/digits/versions/1").json()["parameters"]
    for version in (first, second):
        cost = version["cost"]
        assert cost["input_bytes"] == described["input_bytes"]
        assert cost["output_bytes"] == described["output_bytes"]
        assert cost["compact_input_bytes"] == described["compact"]["input_bytes"]
        assert cost["compact_output_bytes"] == described["compact"]["output_bytes"]
        assert cost["floor_ms"] > 0
        assert version["proof"]["verified"] > 0
    promote(service)
    told = service.get("/v2/models/digits/versions").json()
    assert (told["serving"], told["registered"]) == ("1", "2")


def test_a_version_with_damaged_files_is_listed_as_that(
    start: Start, own_artifacts: Path, protocol: Any
) -> None:
    (own_artifacts / "digits" / "1" / "card.json").write_text("{")
    service = start()
    first = service.get("/v2/models/digits/versions").json()["versions"][1]
    assert (first["version"], first["training"], first["cost"]) == ("1", None, None)
    assert protocol.problem(service.get("/v2/models/none/versions"))[0] == 404
