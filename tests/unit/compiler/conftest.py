"""Models to compile, small enough to take well under a second each."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import FinalMetrics, ModelCard
from cloister_shared.registry import Registry
from cloister_shared.schema import DatasetSchema, Feature
from cloister_shared.weights import LinearWeights

Floats = np.ndarray[Any, Any]
PublishModel = Callable[..., None]


def card_for(coef: Floats, **changes: Any) -> ModelCard:
    """A card whose schema fits ``coef``; features lie in [0, 1]."""
    n_outputs, n_features = coef.shape
    fields: dict[str, Any] = {
        "name": "small",
        "estimator": "LogisticRegression",
        "parameters": {"C": 0.1},
        "data": DatasetSchema(
            dataset="small",
            features=tuple(Feature(name=f"f{i}", low=0, high=1) for i in range(n_features)),
            classes=tuple(range(max(n_outputs, 2))),
        ),
        "rounds": (),
        "final": FinalMetrics(sites=1, accuracy=0.5, loss=0.5),
        "libraries": {},
        "created": datetime(2025, 1, 1, tzinfo=UTC),
    }
    return ModelCard(**(fields | changes))


@pytest.fixture(scope="session")
def small() -> LinearWeights:
    """Three classes of eight features; every output has weights of both signs."""
    generator = np.random.default_rng(1)
    return LinearWeights(generator.normal(size=(3, 8)), generator.normal(size=3))


@pytest.fixture
def models(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models")


@pytest.fixture
def artifacts(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "artifacts")


@pytest.fixture(scope="session")
def make_card() -> Callable[..., ModelCard]:
    return card_for


@pytest.fixture
def publish_model(models: Registry) -> PublishModel:
    """Publish a model called ``small`` with these weights and changes to its card."""

    def publish(weights: LinearWeights, card: ModelCard | None = None, **changes: Any) -> None:
        def write(folder: Path) -> dict[str, Any]:
            written = card or card_for(weights.coef, **changes)
            (folder / CARD).write_text(written.model_dump_json())
            weights.write(folder / WEIGHTS)
            return {}

        models.publish("small", "made for a test", write)

    return publish
