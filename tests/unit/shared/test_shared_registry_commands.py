"""What programs that own a registry print and do."""

import argparse
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cloister_shared.artifact import CARD
from cloister_shared.card import ModelCard
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.registry import MANIFEST, Registry
from cloister_shared.registry_commands import add_commands, run_command, show_all

Run = Callable[..., None]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """Two versions of ``sugar``, the second in use."""
    made = Registry(tmp_path / "registry")
    card = ModelCard(
        name="sugar",
        estimator="Ridge",
        parameters={},
        data=schema("diabetes"),
        rounds=(),
        libraries={},
        created=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    )

    def write(folder: Path) -> dict[str, Any]:
        (folder / CARD).write_text(card.model_dump_json())
        return {"client_digest": "00"}

    for inputs in ("one", "two"):
        made.publish("sugar", inputs, write)
    return made


@pytest.fixture
def run(registry: Registry) -> Run:
    """Parse a command line and do what it says."""

    def run_(*arguments: str) -> None:
        parser = argparse.ArgumentParser()
        add_commands(parser.add_subparsers(dest="command"), "a model")
        run_command(registry, parser.parse_args(arguments))

    return run_


def test_all_versions_are_listed(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    show_all(registry, as_json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert (first["name"], first["version"], first["in_use"]) == ("sugar", 1, False)
    assert (second["version"], second["in_use"], second["estimator"]) == (2, True, "Ridge")
    assert (second["client_digest"], second["damaged"]) == ("00", None)
    show_all(registry, as_json=False)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[2][:5] == ["sugar", "2", "yes", "Ridge", "diabetes"]


def test_a_damaged_version_is_listed_as_such_beside_the_others(
    registry: Registry, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    (registry.open("sugar", 1).path / MANIFEST).write_text("{")
    registry.open("sugar", 2).file(CARD).write_text("{")
    show_all(registry, as_json=True)
    first, second = json.loads(capsys.readouterr().out)
    assert (first["version"], first["in_use"], first["estimator"]) == (1, False, None)
    assert "`delete sugar 1`" in first["damaged"]
    assert (second["version"], second["in_use"]) == (2, True)
    assert "is not a model card" in second["damaged"]
    show_all(registry, as_json=False)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1:] == [["sugar", "1", "damaged"], ["sugar", "2", "yes", "damaged"]]
    assert "version 1 of sugar: " in caplog.text


def test_an_empty_registry_is_a_list_without_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_all(Registry(tmp_path / "none"), as_json=True)
    assert json.loads(capsys.readouterr().out) == []
    show_all(Registry(tmp_path / "none"), as_json=False)
    assert capsys.readouterr().out.startswith("NAME")


def test_versions_are_put_into_use_and_back(
    registry: Registry, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        run("promote", "sugar", "1")
        assert registry.current("sugar") == 1
        run("rollback", "sugar", "2")
        run("rollback", "sugar")
    assert registry.current("sugar") == 1
    assert caplog.messages == [
        "version 1 of sugar is in use, before it was 2",
        "version 2 of sugar is in use, before it was 1",
        "version 1 of sugar is in use, before it was 2",
    ]


def test_one_version_is_deleted_or_all_by_force(
    registry: Registry, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(CloisterError, match=r"say which.*\[1, 2\].*`delete sugar --force`"):
        run("delete", "sugar")
    for force in ((), ("--force",)):
        with pytest.raises(CloisterError, match="version 2 of sugar is in use"):
            run("delete", "sugar", "2", *force)
    with caplog.at_level(logging.INFO):
        run("delete", "sugar", "1")
        run("delete", "sugar", "--force")
    assert caplog.messages == ["deleted version 1 of sugar", "deleted all of sugar: version 2"]
    assert registry.names() == []
    with pytest.raises(CloisterError, match="nothing is published under sugar"):
        run("delete", "sugar", "--force")
