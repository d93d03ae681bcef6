"""Cards of models that are made up from their weights."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from cloister_shared.card import FinalMetrics, ModelCard
from cloister_shared.schema import DatasetSchema, Feature

Floats = np.ndarray[Any, Any]


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
def make_card() -> Callable[..., ModelCard]:
    return card_for
