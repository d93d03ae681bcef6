"""Tuning: what is worth choosing, what it costs, and that what is chosen can be made."""

import json
import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cloister_compiler.artifact import publish_artifact
from cloister_compiler.quantisation import Bits, quantise
from cloister_compiler.selection import Precision, dimension_of
from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.calibration import calibration_rows
from cloister_shared.card import ModelCard, read_card
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.links import class_indices
from cloister_shared.preprocessing import to_inputs
from cloister_shared.probes import synthetic_rows
from cloister_shared.reference import needed_features
from cloister_shared.registry import Registry
from cloister_shared.weights import LinearWeights
from cloister_trainer.local.quantisation import quantised
from cloister_trainer.local.rows import Rows
from cloister_trainer.tuning.front import loss, pareto_front, within
from cloister_trainer.tuning.report import chosen_settings
from cloister_trainer.tuning.scoring import Cost, Scored, cost_of, fitted_weights
from cloister_trainer.tuning.settings import Settings
from cloister_trainer.tuning.space import DEFAULT, parameter_choices, pools
from cloister_trainer.tuning.tuning import tune

DIGITS, DIABETES = schema("digits"), schema("diabetes")


def scored(score: float, milliseconds: float) -> Scored:
    return Scored(DEFAULT, score, 0.0, Cost(1, 1, 1, 1, milliseconds, 1))


pairs = st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1)


@given(pairs, st.booleans(), st.floats(0, 0.5))
def test_nothing_beats_what_is_on_the_front_and_the_cheapest_good_one_is_chosen(
    drawn: list[tuple[int, int]], classification: bool, tolerance: float
) -> None:
    data = DIGITS if classification else DIABETES
    all_scored = [scored(score / 20, cost) for score, cost in drawn]
    front = pareto_front(all_scored, data)
    for one in front:
        for other in all_scored:
            no_dearer = other.cost.client_ms <= one.cost.client_ms
            assert not (no_dearer and loss(other, data) < loss(one, data))
    best = min(loss(one, data) for one in all_scored)
    assert loss(front[-1], data) == best
    most = best + tolerance if classification else best * (1 + tolerance)
    good = [one.cost.client_ms for one in all_scored if loss(one, data) <= most]
    assert within(front, data, tolerance)[0].cost.client_ms == min(good)


@pytest.mark.parametrize("bits", [Bits(8, 8), Bits(3, 4), Bits(2, 6)])
@pytest.mark.parametrize("prune", [0.0, 0.5])
def test_the_cost_is_that_of_the_circuit_that_the_compiler_makes(bits: Bits, prune: float) -> None:
    coef = np.random.default_rng(4).normal(size=(10, 64))
    weights = LinearWeights(coef, coef[:, 0]).pruned(prune)
    cost = cost_of(quantised(weights, bits.inputs, bits.weights), bits.weights)
    rows = calibration_rows(weights.coef)
    card = ModelCard(
        name="drawn",
        estimator="LogisticRegression",
        parameters={},
        data=DIGITS,
        rounds=(),
        libraries={},
        created=datetime.now(UTC),
    )
    compiled = quantise(card, weights, bits, rows)
    kept = needed_features(compiled.reference)
    assert cost.features == len(kept)
    assert cost.dimension == dimension_of(compiled, kept, rows)
    assert cost.bytes_up == 24 * len(kept)


def test_what_is_searched_begins_with_what_is_untuned() -> None:
    usual = parameter_choices(Settings(estimator="LogisticRegression"))
    assert usual == [{}, {"C": 0.01}, {"C": 0.1}, {"C": 10.0}]
    given_ = Settings(estimator_parameters={"C": 10.0}, grid=[{"C": [1, 10], "n_bits": [4]}])
    assert parameter_choices(given_) == [{}, {"C": 1}]
    assert parameter_choices(Settings(estimator="LinearRegression")) == [{}]
    assert pools(Settings(tune_pool=(2, 3, 4)), DIGITS) == [1, 2, 4]
    assert pools(Settings(), DIABETES) == [1]


SPACE = {
    "CLOISTER_GRID": '{"C": [0.1, 1]}',
    "CLOISTER_FOLDS": "2",
    "CLOISTER_TUNE_BITS_INPUTS": "[3, 8]",
    "CLOISTER_TUNE_BITS_WEIGHTS": "[6]",
    "CLOISTER_TUNE_PRUNE": "[0, 0.25]",
    "CLOISTER_TUNE_POOL": "[2]",
}


def run(folder: Path, module: str, *arguments: str, **variables: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOISTER_")}
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        env=kept | {"OMP_NUM_THREADS": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_what_is_tuned_can_be_trained_and_compiled_and_costs_what_was_said(
    digits_data: tuple[Any, Any], tmp_path: Path
) -> None:
    np.savez(tmp_path / "rows.npz", X=digits_data[0], y=digits_data[1])
    rows = {"CLOISTER_DATA_PATH": "rows.npz", "CLOISTER_MODEL": "digits"}
    printed = run(tmp_path, "cloister_trainer.tuning", **rows, **SPACE)
    assert "untuned" in printed
    assert "chosen" in printed
    front = json.loads((tmp_path / "tuned" / "front.json").read_text())
    best, picked, untuned = front["front"][-1], front["chosen"], front["untuned"]
    assert best["score"] - picked["score"] <= 0.005
    assert picked["cost"]["client_ms"] < untuned["cost"]["client_ms"]
    # Untuned, and for both values of C: two pools, two shares, two pairs of bits; C = 1 is untuned.
    assert front["scored"] == 1 + 2 * 2 * 2 * 2
    assert (tmp_path / "tuned" / "front.svg").read_text().startswith("<?xml")

    lines = (tmp_path / "tuned" / "settings.env").read_text().splitlines()
    tuned = dict(shlex.split(line)[0].split("=", 1) for line in lines)
    assert int(tuned["CLOISTER_BITS_INPUTS"]) == picked["bits_inputs"]
    run(tmp_path, "cloister_trainer.local", **rows, **tuned)
    models, artifacts = Registry(tmp_path / "models"), Registry(tmp_path / "artifacts")
    version = models.open_current("digits")
    card = read_card(version.file(CARD))
    assert (card.pruned, card.data.pool) == (picked["prune"], picked["pool"])
    weights = LinearWeights.read(version.file(WEIGHTS))
    assert (~weights.coef.any(axis=0)).sum() >= int(picked["prune"] * 64)
    precision = Precision(
        int(tuned["CLOISTER_BITS_INPUTS"]),
        int(tuned["CLOISTER_BITS_WEIGHTS"]),
        float(tuned["CLOISTER_TOLERANCE"]),
    )
    artifact = publish_artifact(
        version,
        artifacts,
        precision=precision,
        publish_reference=False,
        verification_samples=1,
    )
    circuit = artifact.manifest.details["circuit"]
    assert circuit["n_features"] == pytest.approx(picked["cost"]["features"], abs=2)
    assert circuit["lwe_dimension"] == pytest.approx(picked["cost"]["dimension"], rel=0.05)


def test_what_is_pruned_is_scored_costed_and_compared_without_its_inputs(
    digits_data: tuple[Any, Any], tmp_path: Path
) -> None:
    np.savez(tmp_path / "rows.npz", X=digits_data[0], y=digits_data[1])
    settings = Settings(
        data_path=tmp_path / "rows.npz",
        grid=[{"C": [1.0]}],
        folds=2,
        tune_bits_inputs=(8,),
        tune_bits_weights=(8,),
        tune_prune=(0.5,),
        tune_pool=(1,),
        # So that the cheapest is chosen, which is the pruned one.
        tune_tolerance=0.9,
    )
    tuned = tune(settings)
    assert (tuned.chosen.choice.prune, tuned.default.choice.prune) == (0.5, 0.0)
    assert tuned.chosen.cost.features <= 32 < tuned.default.cost.features
    assert tuned.chosen.score < tuned.default.score

    rows = Rows(to_inputs(digits_data[0], DIGITS), DIGITS.answers(digits_data[1]))
    (pruned,), _ = fitted_weights(settings, {}, rows, [0.5])
    inputs = synthetic_rows(pruned.coef)
    circuit = quantised(pruned, 8)
    scores = circuit.dequantise(circuit.integer_scores(circuit.quantise(inputs)))
    exact = inputs @ pruned.coef.T + pruned.intercept
    differing = np.count_nonzero(class_indices(scores) != class_indices(exact))
    assert tuned.agreement.differing == differing


def test_what_is_standardised_is_scored_as_such_and_said_to_be(
    digits_data: tuple[Any, Any], tmp_path: Path
) -> None:
    np.savez(tmp_path / "rows.npz", X=digits_data[0], y=digits_data[1])
    settings = Settings(
        data_path=tmp_path / "rows.npz",
        standardise=True,
        grid=[{"C": [1.0]}],
        folds=2,
        tune_bits_inputs=(8,),
        tune_bits_weights=(8,),
        tune_prune=(0.0,),
        tune_pool=(1,),
    )
    tuned = tune(settings)
    rows = Rows(to_inputs(digits_data[0], DIGITS), DIGITS.answers(digits_data[1]))
    (weights,), _ = fitted_weights(settings, {}, rows, [0.0])
    own = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows.inputs, rows.answers)
    decided = own.decision_function(rows.inputs)
    np.testing.assert_allclose(weights.scores(rows.inputs), decided, rtol=1e-9, atol=1e-9)
    assert chosen_settings(tuned, settings)["CLOISTER_STANDARDISE"] == "true"


def test_json_is_what_is_written(digits_data: tuple[Any, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", X=digits_data[0], y=digits_data[1])
    rows = {"CLOISTER_DATA_PATH": "rows.npz", "CLOISTER_TUNE_ROWS": "300"}
    printed = run(tmp_path, "cloister_trainer.tuning", "--json", **rows, **SPACE)
    assert json.loads(printed) == json.loads((tmp_path / "tuned" / "front.json").read_text())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"grid": [{"what": [1]}]}, "CLOISTER_GRID, .*what"),
        ({"estimator": "MLPClassifier"}, "MLPClassifier"),
        ({"estimator": "DecisionTreeClassifier"}, "DecisionTreeClassifier is not tuned here"),
        ({"folds": 300}, "class .* has .* rows to fit, and 300 are needed"),
        ({"tune_rows": 5}, "CLOISTER_TUNE_ROWS=5 of 1797 rows cannot have each class's share"),
        ({"data_path": Path("absent.csv")}, r"absent.csv cannot be read \(No such file"),
    ],
)
def test_what_cannot_be_searched_is_told(
    changes: dict[str, Any], told: str, digits_data: tuple[Any, Any], tmp_path: Path
) -> None:
    np.savez(tmp_path / "rows.npz", X=digits_data[0], y=digits_data[1])
    with pytest.raises(CloisterError, match=told):
        tune(Settings(**({"data_path": tmp_path / "rows.npz"} | changes)))
