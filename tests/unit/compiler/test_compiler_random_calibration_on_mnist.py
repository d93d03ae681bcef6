"""Calibrated with uniform random rows alone, as the published federated-learning example of
Concrete ML does it, a model of MNIST overflows under encryption: it must not be published.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from cloister_compiler import artifact as artifact_module
from cloister_compiler.artifact import publish_artifact
from cloister_compiler.selection import Precision
from cloister_compiler.verification import check_execution
from cloister_shared import calibration
from cloister_shared.artifact import ArtifactDetails
from cloister_shared.datasets import schema
from cloister_shared.errors import CloisterError
from cloister_shared.preprocessing import to_inputs
from cloister_shared.registry import Registry
from cloister_shared.weights import LinearWeights

pytestmark = pytest.mark.skipif(
    "MNIST_PATH" not in os.environ,
    reason="MNIST_PATH does not name an .npz file with MNIST as x_train and y_train",
)

Floats = np.ndarray[Any, Any]
SETTINGS: dict[str, Any] = {
    "precision": Precision(),
    "publish_reference": True,
    "verification_samples": 4,
}


@pytest.fixture(scope="module")
def digits() -> tuple[Floats, Floats]:
    """6,000 images in [0, 1], shape (6000, 784), and their classes."""
    with np.load(os.environ["MNIST_PATH"]) as arrays:
        images, labels = arrays["x_train"][:6000], arrays["y_train"][:6000]
    return to_inputs(images.reshape(len(images), -1), schema("mnist")), labels


@pytest.fixture(scope="module")
def weights(digits: tuple[Floats, Floats]) -> LinearWeights:
    """A model that did learn, though not to the end."""
    model = LogisticRegression(max_iter=15).fit(*digits)
    assert model.score(*digits) > 0.9
    return LinearWeights(model.coef_, model.intercept_)


def random_alone(coef: Floats) -> Floats:
    return calibration.random_rows(200, coef.shape[1], seed=3)


def test_it_is_refused_and_the_declared_bounds_are_published(
    models: Registry,
    artifacts: Registry,
    publish_model: Callable[..., None],
    make_card: Any,
    weights: LinearWeights,
    digits: tuple[Floats, Floats],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish_model(weights, make_card(weights.coef, data=schema("mnist")))
    model = models.open_current("small")

    # The proof refuses.
    with pytest.raises(CloisterError, match=r"scores reach \[.*calibration missed the extremes"):
        publish_artifact(model, artifacts, calibrate=random_alone, **SETTINGS)
    assert artifacts.names() == []

    # Without the proof, real encrypted execution refuses by itself. It needs its extreme inputs
    # for that: random ones see nothing, while images would get wrong results.
    refused: dict[str, bool] = {}

    def check_and_record(folder: Path, reference: Any, rows: Floats) -> None:
        for name, some in (
            ("random", calibration.random_rows(4, rows.shape[1], seed=9)),
            ("images", digits[0][:8]),
        ):
            try:
                check_execution(folder, reference, some)
                refused[name] = False
            except CloisterError:
                refused[name] = True
        check_execution(folder, reference, rows)

    with monkeypatch.context() as patched:
        patched.setattr(artifact_module, "check_range", lambda *_: None)
        patched.setattr(artifact_module, "check_execution", check_and_record)
        with pytest.raises(CloisterError, match=r"\d+ of 27 encrypted results differ"):
            publish_artifact(model, artifacts, calibrate=random_alone, **SETTINGS)
    assert refused == {"random": False, "images": True}
    assert artifacts.names() == []

    # The same model, calibrated from its declared bounds, passes both.
    published = publish_artifact(model, artifacts, **SETTINGS)
    details = ArtifactDetails.model_validate(published.manifest.details)
    assert (details.verification.extreme, details.verification.random) == (20, 4)
    assert artifacts.current("small") == 1
