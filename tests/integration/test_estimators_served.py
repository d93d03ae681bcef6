"""Every linear estimator: fitted, compiled, served by one service, and queried encrypted."""

import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split

from cloister_cli.processes import Processes, free_ports
from cloister_compiler.artifact import publish_artifact
from cloister_compiler.selection import Precision
from cloister_keyholder import EncryptedModel
from cloister_keyholder.errors import KeyholderError
from cloister_keyholder.evaluating.evaluation import evaluate
from cloister_keyholder.evaluating.samples import HeldOut
from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import ModelCard
from cloister_shared.datasets import schema
from cloister_shared.estimators import ESTIMATORS, Estimator, sklearn_class
from cloister_shared.preprocessing import to_inputs
from cloister_shared.registry import Registry
from cloister_shared.weights import LinearWeights

LINEAR = [row.name for row in ESTIMATORS.values() if row.family == "linear"]
# Fitted to their end, and otherwise as users would for these rows.
PARAMETERS: dict[str, dict[str, Any]] = {
    "LogisticRegression": {"max_iter": 1000},
    "SGDClassifier": {"loss": "modified_huber", "max_iter": 50},
    "Lasso": {"alpha": 0.1},
    "ElasticNet": {"alpha": 1e-3},
    "LinearSVR": {"C": 10.0, "max_iter": 20_000},
    "SGDRegressor": {"max_iter": 500},
    "PoissonRegressor": {"alpha": 1e-3, "max_iter": 200},
    "GammaRegressor": {"alpha": 1e-3, "max_iter": 200},
    "TweedieRegressor": {"alpha": 1e-3, "max_iter": 200, "power": 1.5},
}
Data = tuple[Any, Any]

SAMPLES = 20
CLOSE = 0.01
"""Of accuracy or R2: what 8 bits move by at most is a fiftieth of a target, and then of one row."""


@dataclass
class Fitted:
    """scikit-learn's model, its card, and the rows it has not seen."""

    model: Any
    card: ModelCard
    rows: Any
    answers: Any

    @property
    def inputs(self) -> Any:
        return to_inputs(self.rows, self.card.data)

    def score(self, predicted: Any) -> float:
        measure = r2_score if self.card.data.task == "regression" else accuracy_score
        return float(measure(self.answers[: len(predicted)], predicted))


def name_of(row: Estimator) -> str:
    return row.name.lower()


def fit(row: Estimator, data: Data) -> Fitted:
    description = schema("diabetes" if row.task == "regression" else "breast_cancer")
    parameters = {**row.defaults, **PARAMETERS.get(row.name, {})}
    rows, unseen, answers, expected = train_test_split(*data, test_size=0.25, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sklearn_class(row)(**parameters)
        model.fit(to_inputs(rows, description), description.answers(answers))
    card = ModelCard(
        name=name_of(row),
        estimator=row.name,
        parameters=parameters,
        data=description,
        rounds=(),
        libraries={},
        created=datetime.now(UTC),
    )
    return Fitted(model, card, unseen, description.answers(expected))


@pytest.fixture(scope="module")
def fitted(breast_cancer_data: Data, diabetes_data: Data) -> dict[str, Fitted]:
    data = {"classification": breast_cancer_data, "regression": diabetes_data}
    return {name: fit(ESTIMATORS[name], data[ESTIMATORS[name].task]) for name in LINEAR}


@pytest.fixture(scope="module")
def url(fitted: dict[str, Fitted], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of one service that serves them all."""
    root = tmp_path_factory.mktemp("served")
    models, artifacts = Registry(root / "models"), Registry(root / "artifacts")
    for one in fitted.values():

        def write(folder: Path, one: Fitted = one) -> dict[str, Any]:
            (folder / CARD).write_text(one.card.model_dump_json())
            coef = np.atleast_2d(one.model.coef_).astype(np.float64)
            intercept = np.ravel(one.model.intercept_).astype(np.float64)
            LinearWeights(coef, intercept).write(folder / WEIGHTS)
            return {}

        models.publish(one.card.name, "fitted centrally", write)
        publish_artifact(
            models.open_current(one.card.name),
            artifacts,
            precision=Precision(),
            publish_reference=True,
            verification_samples=2,
        )
    (port,) = free_ports(1)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CLOISTER_")}
    with Processes(root, environment) as processes:
        service = processes.start(
            "inference",
            "cloister_inference",
            port=port,
            artifacts_dir=root / "artifacts",
            metrics_port=0,
            drain_seconds=0,
        )
        service.wait_healthy(f"http://127.0.0.1:{port}/v2/health/ready", 120)
        yield f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("name", LINEAR)
def test_encrypted_it_answers_what_scikit_learn_does(
    url: str, fitted: dict[str, Fitted], name: str
) -> None:
    one = fitted[name]
    with EncryptedModel(url, one.card.name) as model:
        held_out = HeldOut(one.card.data, one.rows, one.answers)
        report = evaluate(model, held_out, SAMPLES)
        answered = model.predict(one.rows[:3])
    assert report.agreement is not None
    assert report.agreement.model_dump() == {
        "samples": SAMPLES,
        "equal_scores": SAMPLES,
        "equal_predictions": SAMPLES,
    }
    assert report.score == ("R2" if one.card.data.task == "regression" else "accuracy")
    assert report.scores is not None
    assert report.reference_scores is not None
    expected = one.model.predict(one.inputs)
    print(
        f"{name}: scikit-learn {one.score(expected):.4f}, quantised "
        f"{report.reference_scores.clear_quantised:.4f}; of {SAMPLES} encrypted "
        f"{report.encrypted_score:.4f}, scikit-learn {one.score(expected[:SAMPLES]):.4f}"
    )
    assert report.reference_scores.float_model == pytest.approx(one.score(expected))
    assert report.reference_scores.clear_quantised == pytest.approx(one.score(expected), abs=CLOSE)
    assert report.encrypted_score == report.scores.clear_quantised
    if one.card.data.task == "regression":
        assert answered.astype(float) == pytest.approx(expected[:3], abs=0.05 * 359)
        assert report.absolute_errors is not None
        found = report.absolute_errors.encrypted
        error = np.abs(expected[:SAMPLES] - one.answers[:SAMPLES]).mean()
        assert found == pytest.approx(error, abs=0.02 * 359)
    else:
        assert answered.tolist() == one.card.data.labels(expected[:3]).tolist()
        assert report.absolute_errors is None


@pytest.mark.parametrize("name", LINEAR)
def test_it_has_the_methods_that_scikit_learns_has(
    url: str, fitted: dict[str, Fitted], name: str
) -> None:
    one = fitted[name]
    rows, inputs = one.rows[:2], one.inputs[:2]
    with EncryptedModel(url, one.card.name) as model:
        for method in ("predict_proba", "decision_function"):
            if hasattr(one.model, method):
                expected = getattr(one.model, method)(inputs)
                # Quantised scores are near the exact ones; those far from 0 by as small a share.
                np.testing.assert_allclose(
                    getattr(model, method)(rows), expected, rtol=0.05, atol=0.15
                )
            else:
                with pytest.raises(KeyholderError, match=r"use (predict|decision_function)"):
                    getattr(model, method)(rows)
        assert hasattr(model, "classes_") == hasattr(one.model, "classes_")


def test_they_are_all_served_at_once(url: str) -> None:
    index = httpx.post(f"{url}/v2/repository/index").raise_for_status().json()
    names = {entry["name"] for entry in index if entry["state"] == "READY"}
    assert names == {name_of(ESTIMATORS[name]) for name in LINEAR}
