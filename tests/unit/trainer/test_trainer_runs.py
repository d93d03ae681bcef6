"""Flower's command line, with a script in its place."""

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from cloister_shared.errors import CloisterError
from cloister_trainer.runs import FlowerRuns


class FakeFlower:
    """Answers each subcommand with a file, ``ls`` of one run with another."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        script = folder / "flwr"
        script.write_text(
            f'#!/bin/sh\ncd {folder}\necho "$*" >> calls\necho "$FLWR_HOME" > home\n'
            'case "$*" in *--run-id*) cat state ;; *) cat "$1" ;; esac\n'
            "echo 'a warning' >&2\n"
        )
        script.chmod(0o755)

    def answer(self, command: str, **answer: Any) -> None:
        (self.folder / command).write_text(json.dumps(answer))

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def flower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeFlower:
    fake = FakeFlower(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{fake.folder}{os.pathsep}{os.environ['PATH']}")
    return fake


@pytest.fixture
def runs(tmp_path: Path) -> FlowerRuns:
    return FlowerRuns("sl:8000", tmp_path / "work")


def run(run_id: int, status: str, details: str | None = None) -> dict[str, Any]:
    return {"run-id": str(run_id), "status": status, "status-details": details}


def test_a_run_is_submitted_with_its_bundle_and_configuration(
    flower: FakeFlower, runs: FlowerRuns, tmp_path: Path
) -> None:
    flower.answer("run", success=True, **{"run-id": "17"})
    assert runs.submit() == 17
    (call,) = flower.calls()
    command, bundle, connection, *options = call.split()
    assert (command, options) == ("run", ["--format", "json"])
    project = tomllib.loads((Path(bundle) / "pyproject.toml").read_text())
    assert project["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "cloister_trainer.app:app",
        "clientapp": "cloister_client.app:app",
    }
    assert [path.name for path in Path(bundle).iterdir()] == ["pyproject.toml"]
    home = Path((flower.folder / "home").read_text().strip())
    config = tomllib.loads((home / "config.toml").read_text())["superlink"]
    assert config[connection] == {"address": "sl:8000", "insecure": True}
    assert home.is_relative_to(tmp_path / "work")


def test_with_a_ca_the_superlink_is_verified(tmp_path: Path) -> None:
    runs = FlowerRuns("sl:8000", tmp_path / "work", tmp_path / 'a "ca" ü.crt')
    home = Path(runs.environment()["FLWR_HOME"])
    (connection,) = (
        value
        for value in tomllib.loads((home / "config.toml").read_text())["superlink"].values()
        if isinstance(value, dict)
    )
    assert connection == {
        "address": "sl:8000",
        "root-certificates": str(tmp_path / 'a "ca" ü.crt'),
    }


def test_success_false_is_an_error_with_its_message(flower: FakeFlower, runs: FlowerRuns) -> None:
    flower.answer("run", **{"success": False, "error-message": "the bundle is too big"})
    with pytest.raises(CloisterError, match="flwr run failed: the bundle is too big"):
        runs.submit()
    flower.answer("run", run_id=3)
    with pytest.raises(CloisterError, match="run_id"):
        runs.submit()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("Traceback: it went wrong", "flwr run failed: a warning"),
        ("", "flwr run failed: a warning"),
        ("[]", "unknown answer"),
    ],
)
def test_an_answer_that_is_not_json_is_an_error_with_its_text(
    flower: FakeFlower, runs: FlowerRuns, answer: str, message: str
) -> None:
    (flower.folder / "run").write_text(answer)
    with pytest.raises(CloisterError, match=message):
        runs.submit()


def test_the_state_of_a_run(flower: FakeFlower, runs: FlowerRuns) -> None:
    flower.answer("state", success=True, runs=[run(5, "running")])
    state = runs.state(5)
    assert (state.run_id, state.status, state.details) == (5, "running", "")
    assert not state.is_finished
    flower.answer("state", success=True, runs=[run(5, "finished:failed", "killed")])
    state = runs.state(5)
    assert (state.details, state.is_finished) == ("killed", True)
    flower.answer("state", success=True, runs=[])
    with pytest.raises(CloisterError, match="does not know run 6"):
        runs.state(6)


def test_runs_left_unfinished_are_stopped_and_no_others(
    flower: FakeFlower, runs: FlowerRuns
) -> None:
    flower.answer(
        "ls",
        success=True,
        runs=[
            run(1, "finished:completed"),
            run(2, "pending"),
            run(3, "finished:stopped"),
            run(4, "running"),
        ],
    )
    flower.answer("stop", success=True)
    runs.stop_unfinished()
    stopped = [call.split()[1] for call in flower.calls() if call.startswith("stop")]
    assert stopped == ["2", "4"]


def test_a_run_that_ends_before_it_is_stopped_is_no_failure(
    flower: FakeFlower, runs: FlowerRuns
) -> None:
    flower.answer("ls", success=True, runs=[run(2, "running")])
    flower.answer("stop", **{"success": False, "error-message": "it has finished"})
    flower.answer("state", success=True, runs=[run(2, "finished:completed")])
    runs.stop_unfinished()
    flower.answer("state", success=True, runs=[run(2, "running")])
    with pytest.raises(CloisterError, match="flwr stop failed: it has finished"):
        runs.stop_unfinished()
