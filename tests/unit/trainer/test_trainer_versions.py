"""The program that looks after trained models."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cloister_shared.artifact import CARD
from cloister_shared.card import ModelCard, RoundMetrics
from cloister_shared.datasets import schema
from cloister_shared.registry import Registry


def test_it_lists_shows_chooses_and_deletes(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "models")
    card = ModelCard(
        name="sugar",
        estimator="Ridge",
        parameters={},
        data=schema("diabetes"),
        rounds=(RoundMetrics(round=1, sites=3, failures=0, absolute_error=43.25, seconds=1),),
        pruned=0.25,
        standardised=True,
        libraries={},
        created=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    )

    def write(folder: Path) -> dict[str, Any]:
        (folder / CARD).write_text(card.model_dump_json())
        return {}

    for inputs in ("one", "two"):
        registry.publish("sugar", inputs, write)

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "cloister_trainer.versions", *arguments],
            env=os.environ | {"CLOISTER_MODELS_DIR": str(tmp_path / "models")},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    code, out, _ = run("list", "--json")
    assert code == 0
    assert [(one["version"], one["in_use"]) for one in json.loads(out)] == [(1, False), (2, True)]
    code, out, _ = run("show", "sugar")
    assert code == 0
    assert out.startswith("sugar, version 2, in use\n")
    for told in ("Ridge", "25 % of the inputs", "mean absolute error 43.25", "age"):
        assert told in out, told
    assert ["standardised", "yes"] in [line.split() for line in out.splitlines()]
    code, out, _ = run("show", "sugar", "1", "--json")
    assert (code, json.loads(out)["card"]["pruned"], json.loads(out)["in_use"]) == (0, 0.25, False)
    for arguments, expected, told in (
        (("show", "sugar", "3"), 1, "there is no version 3 of sugar"),
        (("promote", "sugar", "1"), 0, "version 1 of sugar is in use, before it was 2"),
        (("delete", "sugar", "2"), 0, "deleted version 2 of sugar"),
        (("delete", "sugar", "1"), 1, "it is the only one; or delete all of sugar"),
        (("rollback", "sugar"), 1, "no version of sugar before 1"),
        ((), 2, "COMMAND"),
    ):
        code, out, error = run(*arguments)
        assert (code, out, told in error, "Traceback" in error) == (expected, "", True, False)
    assert registry.versions("sugar") == [1]
