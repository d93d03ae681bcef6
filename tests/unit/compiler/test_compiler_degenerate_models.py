"""Models at the edge of what can be quantised: proven and published, or clearly refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cloister_compiler.artifact import publish_artifact
from cloister_compiler.selection import Precision
from cloister_shared.artifact import REFERENCE, ArtifactDetails
from cloister_shared.errors import CloisterError
from cloister_shared.reference import Reference
from cloister_shared.registry import Registry, Version
from cloister_shared.weights import LinearWeights

Floats = np.ndarray[Any, Any]
DRAWN = np.random.default_rng(1).normal(size=(10, 8))


@pytest.fixture
def publish(
    models: Registry, artifacts: Registry, publish_model: Callable[..., None]
) -> Callable[[Any, Any], Version]:
    """Publish weights as a model, and its artifact."""

    def publish_both(coef: Any, intercept: Any) -> Version:
        publish_model(LinearWeights(np.array(coef, float), np.array(intercept, float)))
        return publish_artifact(
            models.open_current("small"),
            artifacts,
            precision=Precision(),
            publish_reference=True,
            verification_samples=2,
        )

    return publish_both


@pytest.mark.parametrize(
    ("coef", "intercept"),
    [
        pytest.param(np.zeros((10, 8)), np.zeros(10), id="all zero"),
        pytest.param(np.zeros((1, 8)), [0], id="all zero, two classes"),
        pytest.param(np.zeros((10, 8)), np.arange(10), id="intercepts only"),
        pytest.param(DRAWN * ([0] + [1] * 7), np.zeros(10), id="a feature without weight"),
        pytest.param(DRAWN * ([[0]] + [[1]] * 9), np.zeros(10), id="a class without weights"),
        pytest.param(np.vstack([np.full(8, 0.5), DRAWN[1:]]), np.zeros(10), id="a constant row"),
        pytest.param(np.full((3, 8), 0.3), [1, 2, 3], id="all equal"),
        pytest.param(np.full((1, 8), -0.3), [1], id="all equal, negative"),
        pytest.param([[1.5]], [-0.7], id="one feature, two classes"),
        pytest.param(DRAWN[:, :1], np.zeros(10), id="one feature, ten classes"),
        pytest.param(np.ones((10, 1)), np.zeros(10), id="one feature, all equal"),
        pytest.param(DRAWN[:1], [0.5], id="two classes"),
        pytest.param(DRAWN[:3] ** 2 + 1, [0, 0, 0], id="all positive"),
        pytest.param(-(DRAWN[:3] ** 2) - 1, [0, 0, 0], id="all negative"),
        pytest.param(DRAWN[:3] * 1e9, [0, 0, 0], id="large"),
        pytest.param(DRAWN[:3] * 1e30, [0, 0, 0], id="very large"),
        pytest.param(DRAWN[:3], [1e6, 0, -1e6], id="large intercepts"),
        pytest.param(np.vstack([[1e9] * 8, DRAWN[:2]]), [0, 0, 0], id="one class outweighs all"),
        pytest.param(DRAWN[:3] * 1e-5, [0, 0, 0], id="small"),
        pytest.param(np.tile(DRAWN, (10, 1)), np.arange(100), id="a hundred classes"),
    ],
)
def test_it_is_proven_and_published(
    publish: Callable[[Any, Any], Version], coef: Any, intercept: Any
) -> None:
    published = publish(coef, intercept)
    published.verify()
    circuit = ArtifactDetails.model_validate(published.manifest.details).circuit
    reference = Reference.read(published.file(REFERENCE))
    lowest, highest = reference.integer_bounds()
    assert highest.max() - min(lowest.min(), 0) < 2**circuit.width
    # Half a step of each quantiser, and as much again where rounding a zero point shifts a clip.
    rows = np.random.default_rng(2).random((50, reference.coef.shape[1]))
    scores = reference.dequantise(reference.integer_scores(reference.quantise(rows)))
    input_step = float(reference.input_scale)
    output_step = abs(float(reference.output_scale))
    bound = (
        input_step * np.abs(reference.coef).sum(axis=1)
        + output_step / input_step * rows.shape[1] * (1 + input_step)
        + output_step
    )
    assert (np.abs(scores - reference.float_scores(rows)) <= bound).all()


@pytest.mark.parametrize(
    ("coef", "intercept", "message"),
    [
        (DRAWN[:3] * 1e-9, [0, 0, 0], "every weight quantises to 0.*train the model longer"),
        (DRAWN[:3], [1e12, 0, 0], "more bits than there are secure parameters for"),
        (DRAWN[:3], [1e30, 0, 0], "too large to be quantised .*regularise more"),
        (DRAWN[:3] * 1e150, [0, 0, 0], "too large to be quantised .*regularise more"),
        (np.sign(DRAWN[:3]) * 1e308, [0, 0, 0], "too large to be quantised .*regularise more"),
        (DRAWN[:3] * 1e-5 + 1e9, [0, 0, 0], "more bits than there are secure parameters for"),
    ],
)
def test_it_is_refused_with_the_reason(
    publish: Callable[[Any, Any], Version],
    artifacts: Registry,
    coef: Any,
    intercept: Any,
    message: str,
) -> None:
    with pytest.raises(CloisterError, match=message):
        publish(coef, intercept)
    assert artifacts.names() == []
