"""API keys in containers: the first one closes the service, for the key holder too."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from stack import Stack, reachable


@pytest.fixture(scope="module", autouse=True)
def _serving(stack: Stack) -> None:
    stack.settings(clients=4)
    stack.compose("up", "--detach", "--scale", "inference=1", "gateway")
    stack.until(stack.is_serving, "readiness of the inference service")


@pytest.fixture(scope="module")
def token(stack: Stack, _serving: None) -> str:
    created = stack.compose("run", "--rm", "api-keys", "create", "hospital-a")
    return created.strip()


def status(stack: Stack, token: str | None = None) -> int:
    """How the service answers whoever has this API key."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"{stack.url}/v2/models/digits", headers=headers).status_code


def test_the_first_key_closes_the_service_to_others(stack: Stack, token: str) -> None:
    stack.until(lambda: status(stack) == 401, "a refusal of those without a key", seconds=30)
    assert status(stack, token) == 200
    assert status(stack, token[:-1]) == 401
    assert stack.is_serving()


def test_it_is_in_no_log_and_not_in_the_file_of_keys(stack: Stack, token: str) -> None:
    (inference,) = stack.containers("inference")
    assert "hospital-a" in stack.execute(inference, "cat", "/access/api-keys.json")
    assert token not in stack.execute(inference, "cat", "/access/api-keys.json")
    assert stack.execute(inference, "stat", "-c", "%U", "/access").strip() == "cloister"
    assert token not in stack.compose("logs")


@pytest.fixture
def key_file(token: str, tmp_path: Path) -> Iterator[Path]:
    path = reachable(tmp_path) / "hospital-a.key"
    path.write_text(token)
    path.chmod(0o644)
    yield path
    path.unlink()


def test_a_key_holder_needs_one(stack: Stack, key_file: Path) -> None:
    evaluate = ("run", "--rm", "--no-deps", "keyholder", "evaluate", "--samples", "3")
    stack.settings(clients=4, wait_seconds=5)
    refused = stack.start(*evaluate)
    output, _ = refused.communicate(timeout=120)
    assert refused.returncode == 1, output
    assert "401" in output
    stack.settings(clients=4, api_key_file=key_file)
    stack.compose(*evaluate)
    assert stack.report()["agreement"] == {
        "samples": 3,
        "equal_scores": 3,
        "equal_predictions": 3,
    }


def test_a_revoked_key_opens_nothing(stack: Stack, token: str) -> None:
    stack.settings(clients=4)
    stack.compose("run", "--rm", "api-keys", "revoke", "hospital-a")
    stack.until(lambda: status(stack, token) == 401, "a refusal of the revoked key", seconds=30)
    assert status(stack) == 401
