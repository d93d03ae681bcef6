"""Cards of models with features of every kind, whose weights are made up."""

from datetime import UTC, datetime
from typing import Any

from cloister_shared.card import ModelCard
from cloister_shared.schema import Category, DatasetSchema, Feature, Target


def card(name: str, estimator: str, data: DatasetSchema, **changes: Any) -> ModelCard:
    return ModelCard(
        name=name,
        estimator=estimator,
        parameters=changes.pop("parameters", {}),
        data=data,
        rounds=(),
        libraries={},
        created=datetime(2025, 1, 1, tzinfo=UTC),
        **changes,
    )


VISITS = DatasetSchema(
    dataset="visits",
    features=(
        Feature(name="age", low=0, high=110, missing=40),
        Category(name="ward", categories=("north", "south", 7), missing="south"),
        Feature(name="dose", low=-1.5, high=2.5),
        Category(name="sex", categories=("f", "m"), unknown="ignore"),
    ),
    classes=("home", "stay"),
)
STAINS = DatasetSchema(
    dataset="stains",
    features=tuple(Feature(name=f"p{i}", low=0, high=255) for i in range(96)),
    image_shape=(8, 12),
    pool=4,
    classes=("none", "few", "many"),
)
COSTS = DatasetSchema(
    dataset="costs",
    task="regression",
    features=tuple(Feature(name=f"x{i}", low=0, high=10) for i in range(4)),
    target=Target(low=0, high=1000),
)
MADE_UP = (
    card("visits", "SGDClassifier", VISITS, parameters={"loss": "modified_huber"}),
    card("stains", "LogisticRegression", STAINS, out_of_bounds="clip"),
    card("costs", "PoissonRegressor", COSTS),
)
