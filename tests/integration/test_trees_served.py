"""Trees of every kind: trained on rows in one place, compiled, served, and queried encrypted."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_cli.processes import Processes, free_ports
from cloister_compiler.selection import Precision
from cloister_compiler.tree import in_the_clear, publish_trees, quantise_trees
from cloister_keyholder import EncryptedModel, KeyFolder
from cloister_keyholder.evaluating.evaluation import evaluate
from cloister_keyholder.evaluating.samples import HeldOut
from cloister_shared.artifact import CARD, TREES, ArtifactDetails
from cloister_shared.card import ModelCard, read_card
from cloister_shared.datasets import schema
from cloister_shared.estimators import ESTIMATORS, sklearn_class
from cloister_shared.links import link, probabilities, values
from cloister_shared.preprocessing import to_inputs
from cloister_shared.registry import Registry
from cloister_shared.schema import DatasetSchema, Feature
from cloister_shared.trees import Trees, ranks
from cloister_trainer.local.rows import read_rows, split
from cloister_trainer.local.settings import Settings
from cloister_trainer.local.training import train_locally

Data = tuple[Any, Any]
NAMES = [row.name for row in ESTIMATORS.values() if row.family == "tree"]
BITS = 6
ROWS = 3
SMALL: dict[str, Any] = {"max_depth": 2}


def iris() -> DatasetSchema:
    bounds = {
        "sepal length": (4, 8),
        "sepal width": (2, 5),
        "petal length": (1, 7),
        "petal width": (0, 3),
    }
    return DatasetSchema(
        dataset="iris",
        features=tuple(
            Feature(name=name, low=low, high=high) for name, (low, high) in bounds.items()
        ),
        classes=("setosa", "versicolor", "virginica"),
    )


def parameters_of(name: str) -> dict[str, Any]:
    row = ESTIMATORS[name]
    # Of boosted trees there are three in each round, one a class.
    depth = {"max_depth": 1} if row.boosted else SMALL
    return depth | ({"n_estimators": 2} if "n_estimators" in row.defaults else {})


@pytest.fixture(scope="module")
def root(tree_data: Data, diabetes_data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With models/ and artifacts/ of every estimator, each under its own name."""
    root = tmp_path_factory.mktemp("trees")
    models, artifacts = Registry(root / "models"), Registry(root / "artifacts")
    for name in NAMES:
        train_locally(settings_of(name, root, tree_data, diabetes_data))
        publish_trees(
            models.open_current(name.lower()),
            artifacts,
            precision=Precision(weights=BITS),
            publish_reference=True,
            verification_samples=1,
        )
    return root


def settings_of(name: str, root: Path, tree_data: Data, diabetes_data: Data) -> Settings:
    is_regression = ESTIMATORS[name].task == "regression"
    description = schema("diabetes") if is_regression else iris()
    rows, answers = diabetes_data if is_regression else tree_data
    (root / "schema.json").write_text(description.model_dump_json())
    np.savez(root / f"{description.dataset}.npz", X=rows, y=answers)
    return Settings(
        data_path=root / f"{description.dataset}.npz",
        schema_path=root / "schema.json",
        models_dir=root / "models",
        model=name.lower(),
        estimator=name,
        estimator_parameters=parameters_of(name),
    )


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    """Of one service that serves them all."""
    (port,) = free_ports(1)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CLOISTER_")}
    with Processes(root, environment) as processes:
        service = processes.start(
            "inference",
            "cloister_inference",
            port=port,
            artifacts_dir=root / "artifacts",
            keys_dir=root / "keys",
            metrics_port=0,
            drain_seconds=0,
        )
        service.wait_healthy(f"http://127.0.0.1:{port}/v2/health/ready", 120)
        yield f"http://127.0.0.1:{port}"


def published(root: Path, name: str) -> tuple[ModelCard, Trees]:
    model = Registry(root / "models").open_current(name.lower())
    return read_card(model.file(CARD)), Trees.read(model.file(TREES))


def clear_of(card: ModelCard, trees: Trees, rows: Any) -> Any:
    """What Concrete ML's own model answers in the clear: probabilities, or values."""
    ranked = trees.ranked()
    taken = ranks(to_inputs(rows, card.data)[:, ranked.features], ranked.edges)
    scores = in_the_clear(quantise_trees(card, ranked, BITS), trees)(taken.astype(np.float64))
    meaning = link(card.estimator, card.parameters, len(card.data.classes))
    return values(scores, meaning) if card.data.target else probabilities(scores, meaning)


@pytest.mark.parametrize("name", NAMES)
def test_encrypted_it_answers_what_the_quantised_model_does(
    root: Path, url: str, tree_data: Data, diabetes_data: Data, name: str
) -> None:
    card, trees = published(root, name)
    rows = (diabetes_data if card.data.target else tree_data)[0][::50][:ROWS]
    expected = clear_of(card, trees, rows)
    with EncryptedModel(url, name.lower(), key_folder=KeyFolder(root / "holder", 30)) as model:
        if card.data.target:
            found: Any = model.predict(rows)
        else:
            found = model.predict_proba(rows)
            assert (
                model.answers(found).tolist() == card.data.labels(expected.argmax(axis=1)).tolist()
            )
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_an_evaluation_equals_the_reference_bit_by_bit(
    root: Path, url: str, tree_data: Data, diabetes_data: Data, name: str
) -> None:
    card, trees = published(root, name)
    rows, answers = (one[::50][:ROWS] for one in (diabetes_data if card.data.target else tree_data))
    held_out = HeldOut(card.data, rows, card.data.answers(answers))
    with EncryptedModel(url, name.lower(), key_folder=KeyFolder(root / "holder", 30)) as model:
        report = evaluate(model, held_out, 2)
        reference = model.reference()
    assert reference
    assert np.array_equal(
        reference.float_scores(to_inputs(rows, card.data)), trees.scores(to_inputs(rows, card.data))
    )
    assert report.agreement
    assert (report.agreement.samples, report.agreement.equal_scores) == (2, 2)
    assert report.scores
    assert report.scores.clear_quantised == report.scores.encrypted


@pytest.mark.parametrize("name", NAMES)
def test_it_predicts_as_well_as_scikit_learns_own(
    root: Path, tree_data: Data, diabetes_data: Data, name: str
) -> None:
    card, trees = published(root, name)
    settings = settings_of(name, root, tree_data, diabetes_data)
    fitted, _ = split(
        read_rows(settings.data_path, settings.reading), card.data, 0.1, settings.seed
    )
    own = sklearn_class(ESTIMATORS[name])(**card.parameters).fit(fitted.inputs, fitted.answers)
    rows, answers = diabetes_data if card.data.target else tree_data
    inputs, clear = to_inputs(rows, card.data), clear_of(card, trees, rows)
    if ESTIMATORS[name].boosted:
        # XGBoost adds up in single precision.
        margins = np.reshape(own.predict(inputs, output_margin=True), trees.scores(inputs).shape)
        np.testing.assert_allclose(trees.scores(inputs), margins, rtol=1e-6, atol=1e-6)
        predicted = own.predict(inputs) if card.data.target else own.predict_proba(inputs)
        # Six bits of the largest value of a leaf, in each of two trees.
        assert np.abs(clear - predicted).max() <= np.abs(trees.value).max() / 2 ** (BITS - 2)
    elif card.data.target:
        assert np.array_equal(trees.scores(inputs)[:, 0], own.predict(inputs))
        # Six bits of the largest value of a leaf, in each of two trees.
        assert np.abs(clear - own.predict(inputs)).max() <= card.data.target.high / 2**BITS
    else:
        assert np.array_equal(trees.scores(inputs), own.predict_proba(inputs))
        positions = card.data.answers(answers)
        assert (clear.argmax(axis=1) == positions).mean() == pytest.approx(
            own.score(inputs, positions), abs=1e-9
        )


def test_what_was_compiled_is_in_the_manifest(root: Path) -> None:
    version = Registry(root / "artifacts").open_current("randomforestclassifier")
    details = ArtifactDetails.model_validate(version.manifest.details)
    assert details.model_version == 1
    assert details.circuit.evaluation_keys
    assert details.circuit.bits_weights == BITS
    assert details.agreement
    assert details.agreement.share <= 0.02
