"""A fitted decision tree to an artifact, and the form of its evaluation keys."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from cloister_compiler.__main__ import compile_once
from cloister_compiler.key_form import key_form
from cloister_compiler.rebuilding import rebuilt
from cloister_compiler.selection import Precision
from cloister_compiler.settings import Settings
from cloister_compiler.tree import compile_trees, in_the_clear, publish_tree, publish_trees
from cloister_compiler.tree_circuit import reference_of
from cloister_compiler.tree_rows import calibration_rows
from cloister_shared.artifact import (
    CARD,
    CLIENT_ZIP,
    EVALUATION_KEY_FORM,
    EVALUATION_KEYS,
    REFERENCE,
    TREES,
    ArtifactDetails,
)
from cloister_shared.boosting import trees_of
from cloister_shared.card import ModelCard
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS, sklearn_class
from cloister_shared.registry import Registry
from cloister_shared.schema import DatasetSchema, Target
from cloister_shared.tree_reference import TreeReference
from cloister_shared.trees import Trees, ranks

SETTINGS: dict[str, Any] = {"bits": 2, "publish_reference": False, "verification_samples": 1}


def test_the_artifact_says_what_keys_must_look_like(tree_artifacts: Path) -> None:
    version = Registry(tree_artifacts / "artifacts").open_current("tree")
    version.verify()
    details = ArtifactDetails.model_validate(version.manifest.details)
    keys = details.circuit.evaluation_keys
    assert keys
    fixed = version.file(EVALUATION_KEY_FORM).read_bytes()
    assert len(fixed) + sum(part.length for part in keys.variable) == keys.length
    # The fixed bytes are few: it is the keys that are large.
    assert len(fixed) < 1000
    assert REFERENCE in version.manifest.files
    assert EVALUATION_KEYS not in version.manifest.files
    assert details.model_version is None
    # Every leaf went through real encryption.
    assert details.verification.extreme == 3
    with zipfile.ZipFile(version.file(CLIENT_ZIP)) as archive:
        assert "card.json" in archive.namelist()


def fitted_tree(labels: list[int], n_features: int = 2) -> DecisionTreeClassifier:
    rows = np.random.default_rng(0).random((len(labels), n_features))
    return DecisionTreeClassifier(max_depth=1).fit(rows, labels)


@pytest.mark.parametrize(
    ("changes", "fitted", "message"),
    [
        ({}, fitted_tree([0, 1, 1, 0]), "not of a DecisionTree"),
        ({"estimator": "DecisionTreeClassifier"}, fitted_tree([0, 1], 3), "3 features"),
        ({"estimator": "DecisionTreeClassifier"}, fitted_tree([1, 2]), "labels 0 to 1"),
        ({"estimator": "DecisionTreeClassifier"}, fitted_tree([0, 0]), "labels 0 to 1"),
    ],
)
def test_a_tree_that_is_not_the_cards_is_refused(
    artifacts: Registry,
    make_card: Callable[..., ModelCard],
    changes: dict[str, Any],
    fitted: DecisionTreeClassifier,
    message: str,
) -> None:
    card = make_card(np.zeros((1, 2)), **changes)
    with pytest.raises(CloisterError, match=message):
        publish_tree(artifacts, card, fitted, **SETTINGS)
    assert artifacts.names() == []


def grown(name: str, **parameters: Any) -> Any:
    generator = np.random.default_rng(0)
    rows = generator.random((300, 2))
    answers: Any = np.arange(300) % 2
    if ESTIMATORS[name].task == "regression":
        answers = 10 * rows[:, 0]
    return sklearn_class(ESTIMATORS[name])(random_state=0, **parameters).fit(rows, answers)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("DecisionTreeClassifier", {"max_depth": 6}, "6 comparisons .* and 5 can be served"),
        (
            "RandomForestClassifier",
            {"n_estimators": 11, "max_depth": 1},
            "11 trees, and 10 can be served; .* smaller n_estimators",
        ),
        (
            "RandomForestClassifier",
            {"n_estimators": 10, "max_depth": 4},
            "leaves, and 80 can be served; .* smaller max_leaf_nodes",
        ),
    ],
)
def test_what_takes_too_long_is_refused_whatever_the_card_says(
    artifacts: Registry,
    make_card: Callable[..., ModelCard],
    name: str,
    parameters: dict[str, Any],
    message: str,
) -> None:
    card = make_card(np.zeros((1, 2)), estimator=name, parameters={})
    with pytest.raises(CloisterError, match=message):
        publish_tree(artifacts, card, grown(name, **parameters), **SETTINGS)
    assert artifacts.names() == []


def publish_in(models: Registry, card: ModelCard, fitted: Any) -> None:
    def write(folder: Path) -> dict[str, Any]:
        (folder / CARD).write_text(card.model_dump_json())
        Trees.of(fitted).write(folder / TREES)
        return {}

    models.publish(card.name, "made for a test", write)


def test_the_command_compiles_a_tree_of_the_registry_once_at_the_fewest_bits(
    models: Registry,
    artifacts: Registry,
    make_card: Callable[..., ModelCard],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    card = make_card(
        np.zeros((1, 2)), estimator="DecisionTreeClassifier", parameters={"max_depth": 1}
    )
    publish_in(models, card, grown("DecisionTreeClassifier", max_depth=1))
    settings = Settings(
        model=card.name,
        models_dir=tmp_path / "models",
        artifacts_dir=tmp_path / "artifacts",
        bits="auto",
        bits_inputs=4,
        verification_samples=1,
    )
    compile_once(settings)
    assert "CLOISTER_BITS_INPUTS is unused" in caplog.text
    version = artifacts.open_current(card.name)
    version.verify()
    details = ArtifactDetails.model_validate(version.manifest.details)
    assert details.model_version == 1
    # One threshold of one of the two inputs.
    assert (details.circuit.n_features, details.circuit.n_card_features) == (1, 2)
    assert details.circuit.bits_inputs == 1
    assert details.agreement
    assert details.agreement.share <= settings.tolerance
    assert details.verification.extreme == 2
    with zipfile.ZipFile(version.file(CLIENT_ZIP)) as archive:
        circuit = json.loads(archive.read("circuit.json"))
    assert [len(one) for one in circuit["edges"]] == [1]
    assert REFERENCE in version.manifest.files
    compile_once(settings)
    assert artifacts.versions(card.name) == [1]
    compile_once(settings.model_copy(update={"publish_reference": False}))
    assert artifacts.versions(card.name) == [1, 2]
    assert REFERENCE not in artifacts.open_current(card.name).manifest.files


def test_a_tree_that_its_bits_would_change_is_refused(
    models: Registry,
    artifacts: Registry,
    make_card: Callable[..., ModelCard],
) -> None:
    card = make_card(
        np.zeros((1, 2)),
        estimator="RandomForestClassifier",
        parameters={"n_estimators": 5, "max_depth": 3},
    )
    publish_in(models, card, grown("RandomForestClassifier", n_estimators=5, max_depth=3))
    with pytest.raises(CloisterError, match=r"CLOISTER_TOLERANCE allows 2\.00 %: give it more"):
        publish_trees(
            models.open_current(card.name),
            artifacts,
            precision=Precision(weights=2),
            publish_reference=False,
            verification_samples=1,
        )
    assert artifacts.names() == []


def test_arrays_that_are_no_trees_are_refused(
    models: Registry, artifacts: Registry, make_card: Callable[..., ModelCard]
) -> None:
    card = make_card(np.zeros((1, 2)), estimator="RandomForestClassifier", parameters={})
    fitted = grown("RandomForestClassifier", n_estimators=2, max_depth=2)
    publish_in(models, card.model_copy(update={"estimator": "DecisionTreeClassifier"}), fitted)
    with pytest.raises(CloisterError, match="2 trees, and 1 can be served"):
        publish_trees(
            models.open_current(card.name),
            artifacts,
            precision=Precision(weights=8),
            publish_reference=False,
            verification_samples=1,
        )


def regression_of(card: ModelCard) -> DatasetSchema:
    """The card's schema with a target in the place of classes."""
    return card.data.model_copy(
        update={"task": "regression", "classes": (), "target": Target(low=0, high=10)}
    )


@pytest.mark.parametrize("name", [row.name for row in ESTIMATORS.values() if row.family == "tree"])
def test_what_is_rebuilt_answers_as_what_was_fitted(
    make_card: Callable[..., ModelCard], name: str
) -> None:
    parameters = {"max_depth": 3} | (
        {"n_estimators": 3} if "n_estimators" in ESTIMATORS[name].defaults else {}
    )
    fitted = grown(name, **parameters)
    changes: dict[str, Any] = {}
    card = make_card(np.zeros((1, 2)), estimator=name, parameters=parameters)
    if ESTIMATORS[name].task == "regression":
        changes = {"data": regression_of(card)}
    trees = trees_of(fitted)
    again = rebuilt(card.model_copy(update=changes), trees, 2)
    rows = np.random.default_rng(1).random((200, 2))
    if trees.base is None:
        np.testing.assert_array_equal(again.predict(rows), fitted.predict(rows))
    else:
        sums = trees.base + again.predict(rows)
        np.testing.assert_allclose(sums, fitted.predict(rows, output_margin=True), rtol=1e-6)


def test_a_forest_with_a_tree_that_never_split_is_compiled(
    make_card: Callable[..., ModelCard],
) -> None:
    generator = np.random.default_rng(0)
    rows = generator.random((40, 2))
    fitted = RandomForestClassifier(3, max_depth=2, min_samples_leaf=12, random_state=2)
    trees = Trees.of(fitted.fit(rows, np.arange(40) % 2))
    assert [one.n_leaves for one in trees.each()] == [1, 2, 2]
    card = make_card(
        np.zeros((1, 2)),
        estimator="RandomForestClassifier",
        parameters={"n_estimators": 3, "max_depth": 2},
    )
    trees.check(card.data)
    ranked = trees.ranked()
    taken = ranks(rows[:, ranked.features], ranked.edges).astype(np.float64)
    model = compile_trees(card, ranked, 8)
    found = in_the_clear(model, trees)(taken)
    np.testing.assert_allclose(found, trees.scores(rows), atol=0.01)
    # As the circuit computes it, widths and all.
    for row in calibration_rows(ranked):
        simulated = model.predict_proba(row[None], fhe="simulate")
        np.testing.assert_array_equal(simulated, in_the_clear(model, trees)(row[None]))


def compiled(make_card: Callable[..., ModelCard], name: str) -> tuple[Any, ModelCard, Trees]:
    parameters = {"max_depth": 3} | (
        {"n_estimators": 3} if "n_estimators" in ESTIMATORS[name].defaults else {}
    )
    trees = trees_of(grown(name, **parameters))
    card = make_card(np.zeros((1, 2)), estimator=name, parameters=parameters)
    if ESTIMATORS[name].task == "regression":
        card = card.model_copy(update={"data": regression_of(card)})
    return compile_trees(card, trees.ranked(), 6), card, trees


@pytest.mark.parametrize("name", [row.name for row in ESTIMATORS.values() if row.family == "tree"])
def test_the_reference_is_the_circuit_in_the_clear(
    make_card: Callable[..., ModelCard], name: str, tmp_path: Path
) -> None:
    model, card, trees = compiled(make_card, name)
    reference_of(model, trees, 1).write(tmp_path / "reference.npz")
    reference = TreeReference.read(tmp_path / "reference.npz", card.data)
    rows = np.random.default_rng(1).random((50, 2))
    found = reference.integer_scores(reference.quantise(rows))
    for row, integers in zip(reference.quantise(rows), found, strict=True):
        assert np.array_equal(np.ravel(model.fhe_circuit.graph(row[None])), integers)
    taken = reference.quantise(rows).astype(np.float64)
    clear = in_the_clear(model, trees)(taken).reshape(len(rows), -1)
    assert np.array_equal(reference.dequantise(found), clear)
    assert np.array_equal(reference.float_scores(rows), trees.scores(rows))


def test_boosted_trees_of_three_classes_are_told_apart_by_their_outputs(
    make_card: Callable[..., ModelCard],
) -> None:
    generator = np.random.default_rng(0)
    rows = generator.random((300, 2))
    parameters = {"max_depth": 1, "n_estimators": 2}
    own = sklearn_class(ESTIMATORS["XGBClassifier"])(**parameters)
    # Each class has a part of the first input, so that their trees have other leaves.
    trees = trees_of(own.fit(rows, (3 * rows[:, 0] ** 2).astype(int)))
    card = make_card(np.zeros((3, 2)), estimator="XGBClassifier", parameters=parameters)
    model = compile_trees(card, trees.ranked(), 8)
    reference = reference_of(model, trees, 8)
    found = reference.dequantise(reference.integer_scores(reference.quantise(rows)))
    assert found.shape == (300, 3)
    np.testing.assert_allclose(found, own.predict(rows, output_margin=True), atol=0.02)


def test_a_circuit_that_tells_rows_of_one_leaf_apart_is_refused(
    make_card: Callable[..., ModelCard], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _, trees = compiled(make_card, "DecisionTreeClassifier")
    honest = model.fhe_circuit.graph

    def graph(row: Any) -> Any:
        return honest(row) + (row.min() > 0)

    class Circuit:
        pass

    circuit = Circuit()
    circuit.graph = graph  # type: ignore[attr-defined]  # all that is asked of it
    monkeypatch.setattr(type(model), "fhe_circuit", circuit)
    with pytest.raises(CloisterError, match="other scores than Concrete ML in the clear"):
        reference_of(model, trees, 50)


HEAD = bytes(range(24))
KEYSET = {
    "lweBootstrapKeys": [
        {
            "params": {
                "levelCount": 2,
                "glweDimension": 1,
                "polynomialSize": 4,
                "inputLweDimension": 3,
            }
        }
    ],
    "lweKeyswitchKeys": [{"params": {"levelCount": 3, "inputLweDimension": 5}}],
}
BOOTSTRAP, KEYSWITCH = 16 + 8 * 3 * 2 * 2 * 4, 16 + 8 * 5 * 3


def made(seed: int, *, gap: bytes = b"g" * 8, keyswitch: int = KEYSWITCH) -> bytes:
    random = np.random.default_rng(seed)
    return HEAD + random.bytes(BOOTSTRAP) + gap + random.bytes(keyswitch)


def test_the_form_of_keys_is_what_they_share() -> None:
    found = key_form([made(1), made(2)], KEYSET)
    assert found.fixed == HEAD + b"g" * 8
    assert [(part.offset, part.length) for part in found.form.variable] == [
        (24, BOOTSTRAP),
        (24 + BOOTSTRAP + 8, KEYSWITCH),
    ]
    assert found.form.length == len(made(1))


@pytest.mark.parametrize(
    "sets",
    [
        pytest.param([made(1), made(2)[:-8]], id="lengths"),
        pytest.param([made(1), made(1)], id="equal"),
        pytest.param([made(1), made(2, gap=b"h" * 8)], id="no gap"),
        pytest.param([made(1, keyswitch=80), made(2, keyswitch=80)], id="other parameters"),
        pytest.param([made(1) + b"x", made(2) + b"x"], id="no words"),
    ],
)
def test_keys_of_another_form_than_the_parameters_say_are_refused(sets: list[bytes]) -> None:
    with pytest.raises(CloisterError, match="evaluation keys"):
        key_form(sets, KEYSET)
