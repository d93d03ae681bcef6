"""Local training of trees and forests: what is published, and what is refused before any work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris

from cloister_shared.artifact import CARD, TREES
from cloister_shared.card import read_card
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS
from cloister_shared.schema import DatasetSchema, Feature
from cloister_shared.trees import Trees
from cloister_trainer.local.settings import Settings
from cloister_trainer.local.training import train_locally

Make = Callable[..., Settings]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    data = load_iris()
    schema = DatasetSchema(
        dataset="iris",
        features=tuple(Feature(name=f"f{i}", low=0, high=8) for i in range(4)),
        classes=("setosa", "versicolor", "virginica"),
    )
    (tmp_path / "schema.json").write_text(schema.model_dump_json())
    np.savez(tmp_path / "data.npz", X=data.data, y=data.target_names[data.target])

    def make_settings(**changes: Any) -> Settings:
        fields: dict[str, Any] = {
            "schema_path": tmp_path / "schema.json",
            "data_path": tmp_path / "data.npz",
            "models_dir": tmp_path / "models",
            "estimator": "DecisionTreeClassifier",
        }
        return Settings(**(fields | changes))

    return make_settings


@pytest.mark.parametrize(
    "name", ["DecisionTreeClassifier", "RandomForestClassifier", "XGBClassifier"]
)
def test_a_tree_is_published_without_pickle_and_with_parameters_that_can_be_served(
    make: Make, name: str
) -> None:
    trained = train_locally(make(estimator=name))
    assert set(trained.published.manifest.files) == {CARD, TREES}
    card, trees = read_card(trained.published.file(CARD)), Trees.read(trained.published.file(TREES))
    trees.check(card.data)
    assert card.parameters == {**ESTIMATORS[name].defaults, "random_state": 0}
    assert trees.n_rounds == card.parameters.get("n_estimators", 1)
    assert trees.n_trees == trees.n_rounds * (3 if name == "XGBClassifier" else 1)
    assert ("xgboost" in card.libraries) == (name == "XGBClassifier")
    assert trees.depth <= card.parameters["max_depth"]
    assert card.final
    assert card.final.accuracy is not None
    assert card.final.accuracy > 0.8
    assert not train_locally(make(estimator=name)).is_new


def test_a_search_takes_trees_too(make: Make) -> None:
    trained = train_locally(make(grid=[{"max_depth": [1, 2]}]))
    assert trained.card.parameters["max_depth"] == 2
    assert trained.card.bits is None
    one, two = (found.mean for found in trained.search)
    assert one is not None
    assert two is not None
    assert one == pytest.approx(2 / 3, abs=0.02)
    assert two > 0.9


FOREST = {"estimator": "RandomForestClassifier"}
BOOSTED = {"estimator": "XGBClassifier"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"estimator_parameters": {"max_depth": 6}}, "max_depth of .* is 6: set it to 1 to 5"),
        ({"estimator_parameters": {"max_depth": None}}, "max_depth of .* is None: set it to 1"),
        ({"estimator_parameters": {"max_depth": True}}, "max_depth of .* is True"),
        (
            FOREST | {"estimator_parameters": {"n_estimators": 100}},
            "n_estimators of RandomForestClassifier is 100: set it to 1 to 10",
        ),
        (
            FOREST | {"estimator_parameters": {"n_estimators": 10, "max_depth": 4}},
            "10 trees of up to 16 leaves .* Lower n_estimators to 5, or max_depth to 3",
        ),
        ({"grid": [{"max_depth": [2, 9]}]}, "CLOISTER_GRID, .*max_depth of .* is 9"),
        ({"grid": [{"n_bits": [2]}]}, "take n_bits out"),
        (
            BOOSTED | {"estimator_parameters": {"n_estimators": 7}},
            r"21 trees \(7 for each of 3 classes\) of up to 4 leaves .* Lower n_estimators to 6",
        ),
        (
            BOOSTED | {"estimator_parameters": {"booster": "dart"}},
            "booster='dart' cannot be compiled .* use one of None, 'gbtree'",
        ),
        (
            BOOSTED | {"estimator_parameters": {"objective": "multi:hinge"}},
            "objective='multi:hinge' cannot be compiled",
        ),
        (
            BOOSTED | {"estimator_parameters": {"max_dept": 1}},
            "XGBClassifier has no parameter max_dept",
        ),
        (
            BOOSTED | {"estimator_parameters": {"learning_rate": "fast"}},
            "XGBClassifier does not take this",
        ),
        (BOOSTED | {"standardise": True}, "CLOISTER_STANDARDISE is nothing to a XGBClassifier"),
        ({"estimator_parameters": {"min_samples_leaf": 100}}, "single split"),
        ({"estimator": "DecisionTreeRegressor"}, "does a regression"),
    ],
)
def test_what_cannot_be_served_is_refused(
    make: Make, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(CloisterError, match=message):
        train_locally(make(**changes))
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").glob("*/1"))
