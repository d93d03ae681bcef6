"""Cards of models that are made up from their weights."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cloister_shared.card import FinalMetrics, ModelCard
from cloister_shared.logs import JsonFormatter
from cloister_shared.schema import DatasetSchema, Feature

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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


@pytest.fixture
def json_lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What has been logged from INFO on, as a service's JSON lines."""
    root, stream = logging.getLogger(), io.StringIO()
    handler, level = logging.StreamHandler(stream), root.level
    handler.setFormatter(JsonFormatter("sample"))
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


# No longer than a module: while it lives, an event loop runs, which other tests want to start.
@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """The system's Chromium, which tests of pages are skipped without."""
    # Most tests need none.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield launched
        launched.close()
