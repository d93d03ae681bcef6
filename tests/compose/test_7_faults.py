"""Whoever is killed while sites train: the run goes on, or fails with the reason."""

import json
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from stack import Stack

CLIENTS = 4
ROUNDS = 6


@pytest.fixture(autouse=True)
def _fresh_training(stack: Stack) -> Iterator[None]:
    # A round that is long enough to be hit: many iterations, all rows at few sites.
    stack.settings(
        clients=CLIENTS, min_replies=3, rounds=ROUNDS, retrain="true", local_iterations=200
    )
    stack.compose("rm", "--stop", "--force", "trainer")
    stack.compose("up", "--detach", "--scale", f"client={CLIENTS}", "client", "fleet", "server")
    stack.until(lambda: len(stack.containers("client")) == CLIENTS, "the clients")
    yield
    stack.compose("rm", "--stop", "--force", "trainer")


def train(stack: Stack) -> subprocess.Popen[str]:
    """Start the trainer alone and return the process that follows it."""
    stack.compose("create", "--no-recreate", "trainer")
    return stack.start("up", "--no-deps", "--scale", f"client={CLIENTS}", "trainer")


def kill(container: str) -> None:
    subprocess.run(["docker", "kill", "--signal", "KILL", container], check=True)


def completed(stack: Stack) -> list[int]:
    """Numbers of the rounds that the trainer tells as done, in its order."""
    lines = re.findall(rf"round (\d+) of {ROUNDS}: \d+ sites", stack.logs("trainer"))
    return [int(number) for number in lines]


def is_completed(stack: Stack, number: int) -> bool:
    """Return whether the trainer tells that a round is done."""
    return number in completed(stack)


def last_card(stack: Stack) -> dict[str, Any]:
    """The card of the version published last."""
    script = (
        "import json,pathlib; m=pathlib.Path('/models/digits'); "
        "n=max(int(p.name) for p in m.iterdir() if p.name.isdigit()); "
        "print((m/str(n)/'card.json').read_text())"
    )
    text = stack.compose(
        "run", "--rm", "--no-deps", "--entrypoint", "python", "trainer", "-c", script
    )
    card: dict[str, Any] = json.loads(text)
    return card


def test_a_killed_trainer_goes_on_where_it_was(stack: Stack) -> None:
    training = train(stack)
    stack.until(lambda: 2 in completed(stack), "round 3")
    (trainer,) = stack.containers("trainer")
    kill(trainer)
    training.communicate(timeout=120)
    assert stack.exit_code("trainer") == 137

    stack.compose("rm", "--force", "trainer")
    train(stack).communicate(timeout=900)
    assert stack.exit_code("trainer") == 0, stack.logs("trainer")
    # Two rounds were checkpointed, or the third too by the time it was killed.
    assert completed(stack) in ([3, 4, 5, 6], [4, 5, 6])
    assert [entry["round"] for entry in last_card(stack)["rounds"]] == list(range(1, ROUNDS + 1))


def test_a_killed_server_loses_no_run_and_no_update(stack: Stack) -> None:
    # A round has just begun each time: messages are on their way to the sites.
    stack.settings(
        clients=CLIENTS,
        min_replies=2,
        rounds=ROUNDS,
        retrain="true",
        local_iterations=200,
        round_timeout=120,
    )
    training = train(stack)
    for number in (1, 3):
        stack.until(partial(is_completed, stack, number), f"round {number + 1}")
        (server,) = stack.containers("server")
        kill(server)
        subprocess.run(["docker", "start", server], check=True)
    training.communicate(timeout=900)
    assert stack.exit_code("trainer") == 0, stack.logs("trainer")
    assert completed(stack) == list(range(1, ROUNDS + 1))
    assert [entry["sites"] for entry in last_card(stack)["rounds"]] == [CLIENTS] * ROUNDS


def test_a_client_that_joins_late_takes_part_from_then_on(stack: Stack) -> None:
    stack.settings(
        clients=CLIENTS,
        min_replies=3,
        rounds=ROUNDS,
        retrain="true",
        local_iterations=200,
        start_deadline=20,
    )
    stack.compose("up", "--detach", "--no-recreate", "--scale", "client=3", "client")
    stack.until(lambda: len(stack.containers("client")) == 3, "3 clients")
    training = train(stack)
    stack.until(lambda: "training with 3 sites" in stack.logs("trainer"), "round 1")
    stack.compose("up", "--detach", "--no-recreate", "--scale", f"client={CLIENTS}", "client")
    training.communicate(timeout=900)
    assert stack.exit_code("trainer") == 0, stack.logs("trainer")
    sites = [entry["sites"] for entry in last_card(stack)["rounds"]]
    assert sites[0] == 3
    assert sites[-1] == CLIENTS


def test_too_few_sites_left_fails_with_the_reason(stack: Stack) -> None:
    stack.settings(clients=CLIENTS, min_replies=4, rounds=ROUNDS, retrain="true", round_timeout=20)
    training = train(stack)
    stack.until(lambda: 1 in completed(stack), "round 2")
    kill(stack.containers("client")[0])
    training.communicate(timeout=900)
    assert stack.exit_code("trainer") == 1
    assert re.search(r"round \d has 3 valid replies of 4, and 4 are needed", stack.logs("trainer"))
