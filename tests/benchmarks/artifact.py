"""The artifact that everything is measured on: MNIST logistic regression, 784 x 10, at 8 bits."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from cloister_shared.artifact import CARD, WEIGHTS
from cloister_shared.card import FinalMetrics, ModelCard
from cloister_shared.datasets import DatasetName, schema
from cloister_shared.preprocessing import to_inputs
from cloister_shared.registry import Registry, Version
from cloister_shared.weights import LinearWeights

NAME: DatasetName = "mnist"
BITS = 8
TRAINING_ROWS = 10_000
ITERATIONS = 30


def weights() -> LinearWeights:
    """Fit on MNIST where MNIST_PATH names it, else draw at random: time depends on sizes alone."""
    description = schema(NAME)
    path = os.environ.get("MNIST_PATH")
    if not path:
        rng = np.random.default_rng(0)
        shape = description.n_outputs, description.n_features
        return LinearWeights(rng.normal(size=shape), rng.normal(size=shape[0]))
    with np.load(path) as arrays:
        rows = arrays["x_train"][:TRAINING_ROWS].reshape(TRAINING_ROWS, -1).astype(np.float64)
        labels = arrays["y_train"][:TRAINING_ROWS]
    fitted = LogisticRegression(max_iter=ITERATIONS)
    # So few iterations do not converge, which does not matter here.
    fitted.fit(to_inputs(rows, description), labels)
    return LinearWeights(fitted.coef_, fitted.intercept_)


def publish(root: Path) -> Version:
    """Publish the model under ``root / "models"``, compiled under ``root / "artifacts"``."""
    from cloister_compiler.artifact import publish_artifact  # noqa: PLC0415 - takes seconds
    from cloister_compiler.selection import Precision  # noqa: PLC0415

    card = ModelCard(
        name=NAME,
        estimator="LogisticRegression",
        parameters={"penalty": "l2", "C": 1.0, "max_iter": ITERATIONS},
        data=schema(NAME),
        rounds=(),
        final=FinalMetrics(sites=1, accuracy=0.0, loss=0.0),
        libraries={},
        created=datetime.now(UTC),
    )

    def write(folder: Path) -> dict[str, Any]:
        (folder / CARD).write_text(card.model_dump_json())
        weights().write(folder / WEIGHTS)
        return {}

    Registry(root / "models").publish(NAME, "benchmark", write)
    return publish_artifact(
        Registry(root / "models").open_current(NAME),
        Registry(root / "artifacts"),
        precision=Precision(inputs=BITS, weights=BITS, tolerance=1.0),
        publish_reference=True,
        verification_samples=4,
    )


def rows(n_rows: int) -> npt.NDArray[np.float64]:
    """Uniform rows in [0, 1], shape (n_rows, n_features)."""
    return np.random.default_rng(0).random((n_rows, schema(NAME).n_features))
