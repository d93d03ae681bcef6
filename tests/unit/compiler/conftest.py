"""Models to compile, small enough to take well under a second each."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import ModelCard
from cloister_shared.registry import Registry
from cloister_shared.weights import LinearWeights

PublishModel = Callable[..., None]


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


@pytest.fixture
def publish_model(models: Registry, make_card: Callable[..., ModelCard]) -> PublishModel:
    """Publish a model called ``small`` with these weights and changes to its card."""

    def publish(weights: LinearWeights, card: ModelCard | None = None, **changes: Any) -> None:
        def write(folder: Path) -> dict[str, Any]:
            written = card or make_card(weights.coef, **changes)
            (folder / CARD).write_text(written.model_dump_json())
            weights.write(folder / WEIGHTS)
            return {}

        models.publish("small", "made for a test", write)

    return publish
