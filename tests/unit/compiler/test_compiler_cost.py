"""What a circuit will cost is known before it is compiled."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cloister_compiler.circuit import compile_model
from cloister_compiler.quantisation import Bits, drop_features, quantise
from cloister_compiler.selection import dimension_of
from cloister_shared.calibration import calibration_rows
from cloister_shared.card import ModelCard
from cloister_shared.cost import floor_ms
from cloister_shared.reference import needed_features
from cloister_shared.weights import LinearWeights

Floats = np.ndarray[Any, Any]
DRAWN = np.random.default_rng(1).normal(size=(10, 64))


@pytest.mark.parametrize(
    ("coef", "bits"),
    [
        pytest.param(DRAWN, Bits(8, 8), id="ten classes"),
        pytest.param(DRAWN, Bits(3, 6), id="few bits for inputs"),
        pytest.param(DRAWN * ([0, 1] * 32), Bits(5, 3), id="half without weight"),
        pytest.param(DRAWN[:3, :8] + 2, Bits(8, 8), id="a zero point far from the weights"),
        pytest.param(DRAWN[:3, :8] - 25, Bits(2, 2), id="farther, at few bits"),
        pytest.param(DRAWN[:1, :30], Bits(2, 4), id="two classes"),
        pytest.param(DRAWN[:3, :1], Bits(2, 2), id="one feature, the smallest dimension"),
        pytest.param(DRAWN[:3] * 0, Bits(8, 8), id="no weights"),
    ],
)
def test_the_dimension_is_the_one_that_concrete_chooses(
    make_card: Callable[..., ModelCard], coef: Floats, bits: Bits
) -> None:
    weights, rows, card = LinearWeights(coef, coef[:, 0]), calibration_rows(coef), make_card(coef)
    full = quantise(card, weights, bits, rows)
    compiled = compile_model(card, drop_features(card, weights, full, rows), rows)
    specs = json.loads(compiled.model.fhe_circuit.client.specs.serialize())
    (key,) = specs["keyset"]["lweSecretKeys"]
    kept = needed_features(full.reference)
    assert dimension_of(full, kept, rows) == key["params"]["lweDimension"]


def test_the_floor_is_that_of_the_benchmark_it_comes_from() -> None:
    assert floor_ms(784, 10, 1577) == pytest.approx(1.0, abs=0.01)
    # Without outputs, only the expansion of the masks is left.
    assert floor_ms(784, 0, 1577) == pytest.approx(0.4, abs=0.01)
