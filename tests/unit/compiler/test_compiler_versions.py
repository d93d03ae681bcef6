"""What is printed of published artifacts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloister_compiler.versions import circuit_lines
from cloister_shared.artifact import CARD
from cloister_shared.card import (
    DifferentialPrivacy,
    Federation,
    FinalMetrics,
    ModelCard,
    RoundMetrics,
    read_card,
)
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry
from cloister_shared.registry_commands import show_all
from cloister_shared.showing import show_one


def add(registry: Registry, source: Path, card: ModelCard) -> None:
    """Publish the artifact in a folder under another card."""
    manifest = json.loads((source / "manifest.json").read_text())

    def write(folder: Path) -> dict[str, Any]:
        for name in manifest["files"]:
            shutil.copy(source / name, folder / name)
        (folder / CARD).write_text(card.model_dump_json())
        details: dict[str, Any] = manifest["details"]
        return details

    registry.publish(card.name, f"of {card.name}", write)


@pytest.fixture
def digits(digits_artifacts: Path) -> Path:
    return digits_artifacts / "artifacts" / "digits" / "1"


@pytest.fixture
def registry(tmp_path: Path, digits: Path) -> Registry:
    """Two versions of digits, and a private one of a regression."""
    registry = Registry(tmp_path / "artifacts")
    card = read_card(digits / CARD)
    add(registry, digits, card)
    add(registry, digits, card)
    private = card.model_copy(
        update={
            "name": "private",
            "estimator": "SGDRegressor",
            "pruned": 0.07,
            "data": schema("diabetes"),
            "federation": Federation(
                strategy="FedAvg",
                secure_aggregation=True,
                differential_privacy=DifferentialPrivacy(
                    noise_multiplier=1, clipping_norm=1, delta=1e-5, epsilon=7.125
                ),
            ),
            "rounds": (
                RoundMetrics(round=1, sites=4, failures=1, epsilon=5.0, seconds=2.5),
                RoundMetrics(
                    round=2, sites=5, failures=0, absolute_error=43.25, loss=2900, seconds=1
                ),
            ),
            "final": FinalMetrics(sites=5, absolute_error=41.5, loss=2800),
        }
    )
    add(registry, digits, private)
    return registry


def test_all_versions_are_listed_and_those_in_use_marked(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    registry.roll_back("digits", 1)
    show_all(registry, as_json=False)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["NAME", "VERSION", "IN", "USE", "ESTIMATOR", "DATASET", "CREATED"]
    assert [line[:-2] for line in lines[1:]] == [
        ["digits", "1", "yes", "LogisticRegression", "digits"],
        ["digits", "2", "LogisticRegression", "digits"],
        ["private", "1", "yes", "SGDRegressor", "diabetes"],
    ]
    show_all(registry, as_json=True)
    listed = json.loads(capsys.readouterr().out)
    assert [(one["name"], one["version"], one["in_use"]) for one in listed] == [
        ("digits", 1, True),
        ("digits", 2, False),
        ("private", 1, True),
    ]


def test_one_version_is_shown_with_its_checks_and_cost(
    registry: Registry, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_one(registry, "digits", 1, as_json=False, more=circuit_lines)
    text = capsys.readouterr().out
    details = json.loads((digits / "manifest.json").read_text())["details"]
    assert text.startswith("digits, version 1\n")
    for expected in (
        "LogisticRegression",
        "digits, a classification: 64 features",
        "classes 0, 1, 2",
        "in one place",
        f"{details['circuit']['lwe_dimension']}",
        f"{details['circuit']['input_bytes']:,}",
        "20 extreme, 3 boundary, 4 random",
        "of 4096 synthetic rows",
        details["client_digest"],
        "concrete-ml",
    ):
        assert expected in text, expected
    lines = [line.split() for line in text.splitlines()]
    assert ["standardised", "no"] in lines
    assert ["pruned", "no"] in lines
    show_one(registry, "digits", None, as_json=False)
    assert capsys.readouterr().out.startswith("digits, version 2, in use\n")


def test_a_federated_one_is_shown_with_its_rounds_and_what_they_spent(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    show_one(registry, "private", None, as_json=False)
    text = capsys.readouterr().out
    for expected in (
        "a target from 1 to 360",
        "across sites, FedAvg, 2 rounds",
        "epsilon 7.12 at delta 1e-05",
        "mean absolute error 41.5",
        "7 % of the inputs",
    ):
        assert expected in text, expected
    shown, _, features = text.rpartition("\n\n")
    lines = shown.splitlines()
    assert features.splitlines()[1].split() == ["age", "low", "18,", "high", "80"]
    assert lines[-2].split() == ["1", "4", "1", "-", "-", "-", "5", "2.5"]
    assert lines[-1].split() == [
        *("2", "5", "0", "-", "mean", "absolute", "error", "43.25", "2900", "-", "1.0")
    ]


def test_as_json_it_has_card_and_manifest(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    show_one(registry, "private", 1, as_json=True)
    shown = json.loads(capsys.readouterr().out)
    assert (shown["name"], shown["version"], shown["in_use"]) == ("private", 1, True)
    assert shown["card"]["federation"]["differential_privacy"]["epsilon"] == 7.125
    assert shown["manifest"]["details"]["circuit"]["n_outputs"] == 10


def test_what_is_not_there_or_damaged_is_told(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(CloisterError, match="no version of 'nothing' is in use; `list` names"):
        show_one(registry, "nothing", None, as_json=False)
    with pytest.raises(CloisterError, match="there is no version 7 of digits"):
        show_one(registry, "digits", 7, as_json=False)
    (tmp_path / "artifacts" / "digits" / "1" / "client.zip").write_bytes(b"other")
    with pytest.raises(CloisterError, match=r"client\.zip is not what was published"):
        show_one(registry, "digits", 1, as_json=False)


def test_the_program_prints_results_alone_on_standard_output(
    registry: Registry, tmp_path: Path
) -> None:
    environment = os.environ | {"CLOISTER_ARTIFACTS_DIR": str(tmp_path / "artifacts")}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "cloister_compiler", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert len(json.loads(run("list", "--json").stdout)) == 3
    assert json.loads(run("show", "digits", "1", "--json").stdout)["version"] == 1
    failed = run("show", "digits", "9")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "there is no version 9 of digits" in failed.stderr
    assert "Traceback" not in failed.stderr
