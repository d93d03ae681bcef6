"""A fitted decision tree to an artifact, and the form of its evaluation keys."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.tree import DecisionTreeClassifier

from cloister_compiler.key_form import key_form
from cloister_compiler.tree import publish_tree
from cloister_shared.artifact import (
    CLIENT_ZIP,
    EVALUATION_KEY_FORM,
    EVALUATION_KEYS,
    REFERENCE,
    ArtifactDetails,
)
from cloister_shared.card import ModelCard
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry


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
    assert REFERENCE not in version.manifest.files
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
        publish_tree(artifacts, card, fitted, bits=2, verification_samples=1)
    assert artifacts.names() == []


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
