"""Secure aggregation and differential privacy in containers."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from stack import Stack

CLIENTS = 4


@pytest.fixture(autouse=True)
def _trainer_alone(stack: Stack) -> Iterator[None]:
    stack.compose("rm", "--stop", "--force", "trainer")
    yield
    stack.compose("rm", "--stop", "--force", "trainer")


def train(stack: Stack, **settings: object) -> int:
    """Train with these settings at trainer and sites, and return the trainer's exit code."""
    stack.settings(clients=CLIENTS, rounds=3, retrain="true", **settings)
    stack.compose("up", "--detach", "--scale", f"client={CLIENTS}", "client", "fleet", "server")
    stack.compose("create", "--no-recreate", "trainer")
    stack.start("up", "--no-deps", "--scale", f"client={CLIENTS}", "trainer").communicate(
        timeout=900
    )
    return stack.exit_code("trainer")


def card(stack: Stack) -> dict[str, Any]:
    """The card of the version published last."""
    (version,) = re.findall(r"published version (\d+) of digits", stack.logs("trainer"))
    text = stack.compose(
        *("run", "--rm", "--no-deps", "--entrypoint", "cat", "trainer"),
        f"/models/digits/{version}/card.json",
    )
    read: dict[str, Any] = json.loads(text)
    return read


def test_sites_that_require_secure_aggregation_refuse_a_plain_run(stack: Stack) -> None:
    assert train(stack, require_secure_aggregation="true") == 1
    assert "this site takes part in secure aggregation only" in stack.logs("trainer")


def test_with_secure_aggregation_they_train(stack: Stack) -> None:
    both = {"require_secure_aggregation": "true", "secure_aggregation": "true"}
    assert train(stack, **both) == 0, stack.logs("trainer")
    published = card(stack)
    print(stack.logs("trainer"))
    assert published["federation"]["secure_aggregation"] is True
    assert published["final"]["accuracy"] > 0.9
    assert [entry["sites"] for entry in published["rounds"]] == [CLIENTS] * 3
    assert {entry["examples"] for entry in published["rounds"]} == {None}


def test_differential_privacy_ends_when_its_budget_is_spent(stack: Stack) -> None:
    # One round spends about 5 at this noise, three about 9.
    code = train(stack, noise_multiplier=1, epsilon_budget=8, secure_aggregation="true")
    assert code == 0, stack.logs("trainer")
    print(stack.logs("trainer"))
    published = card(stack)
    spent = [entry["epsilon"] for entry in published["rounds"]]
    assert 0 < len(spent) < 3
    assert spent == sorted(spent)
    privacy = published["federation"]["differential_privacy"]
    assert privacy["epsilon"] == spent[-1] <= 8
    assert privacy["delta"] == 1e-5
    assert published["final"] is None
    assert {entry["accuracy"] for entry in published["rounds"]} == {None}
