"""The cheapest bits within the tolerance are chosen, and what loses more is not published."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cloister_compiler import artifact as artifact_module
from cloister_compiler.artifact import publish_artifact
from cloister_compiler.quantisation import Bits, quantise
from cloister_compiler.selection import Precision, dimension_of, quantise_cheapest
from cloister_shared.artifact import ArtifactDetails
from cloister_shared.calibration import calibration_rows
from cloister_shared.card import ModelCard
from cloister_shared.errors import CloisterError
from cloister_shared.probes import measure_agreement, synthetic_rows
from cloister_shared.reference import needed_features
from cloister_shared.registry import Registry, Version
from cloister_shared.weights import LinearWeights

Floats = np.ndarray[Any, Any]
GENERATOR = np.random.default_rng(6)
LEARNT = LinearWeights(
    # Some features hardly count, as in real models.
    GENERATOR.normal(size=(4, 12)) * np.geomspace(0.01, 1, 12),
    GENERATOR.normal(size=4) * 0.1,
)
SETTINGS: dict[str, Any] = {"publish_reference": False, "verification_samples": 1}


def measured(card: ModelCard, bits: Bits) -> tuple[int, float]:
    """Cost and share of differing probes at these bits."""
    rows = calibration_rows(LEARNT.coef)
    quantised = quantise(card, LEARNT, bits, rows)
    kept = needed_features(quantised.reference)
    share = measure_agreement(quantised.reference, synthetic_rows(LEARNT.coef), card).share
    return len(kept) * dimension_of(quantised, kept, rows), share


def choose(card: ModelCard, precision: Precision) -> Bits:
    return quantise_cheapest(card, LEARNT, precision, calibration_rows(LEARNT.coef)).bits


def test_none_of_the_cheaper_bits_is_within_the_tolerance(
    make_card: Callable[..., ModelCard], caplog: pytest.LogCaptureFixture
) -> None:
    card = make_card(LEARNT.coef)
    every = {
        bits: measured(card, bits)
        for bits in (Bits(inputs, weights) for inputs in range(2, 9) for weights in range(2, 9))
    }
    chosen = []
    for tolerance in (0.02, 1.0):
        caplog.clear()
        with caplog.at_level(logging.INFO):
            bits = choose(card, Precision("auto", "auto", tolerance))
        cost, share = every[bits]
        assert share <= tolerance
        assert all(other_cost >= cost for other_cost, loss in every.values() if loss <= tolerance)
        assert f"{100 * share:.2f} %" in caplog.text
        assert f"chose {bits}" in caplog.text
        chosen.append(bits)
    # Where any loss is allowed, it is the cheapest there is.
    assert chosen[0] != chosen[-1]
    assert every[chosen[-1]][0] == min(cost for cost, _ in every.values())


def test_bits_that_are_given_are_kept(make_card: Callable[..., ModelCard]) -> None:
    card = make_card(LEARNT.coef)
    assert choose(card, Precision(8, "auto")).inputs == 8
    assert choose(card, Precision("auto", 7)).weights == 7
    assert choose(card, Precision(2, 3, tolerance=0.0)) == Bits(2, 3)


@pytest.fixture
def publish(
    models: Registry, artifacts: Registry, publish_model: Callable[..., None]
) -> Callable[[Precision], Version]:
    publish_model(LEARNT)

    def publish_at(precision: Precision) -> Version:
        model = models.open_current("small")
        return publish_artifact(model, artifacts, precision=precision, **SETTINGS)

    return publish_at


def test_auto_publishes_a_circuit_of_the_chosen_bits_once(
    publish: Callable[[Precision], Version],
    make_card: Callable[..., ModelCard],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    precision = Precision(inputs="auto", weights=5, tolerance=0.1)
    published = publish(precision)
    details = ArtifactDetails.model_validate(published.manifest.details)
    circuit, bits = details.circuit, choose(make_card(LEARNT.coef), precision)
    assert Bits(circuit.bits_inputs, circuit.bits_weights) == bits
    cost, share = measured(make_card(LEARNT.coef), bits)
    assert circuit.n_features * circuit.lwe_dimension == cost
    assert details.agreement
    assert details.agreement.share == share
    monkeypatch.setattr(artifact_module, "quantise_cheapest", None)
    assert publish(precision) == published


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        pytest.param(
            Precision(2, 2),
            r"at 2 bits, the model predicts \d+ of 4096 synthetic rows \(\d+\.\d\d %\) otherwise "
            r".*CLOISTER_TOLERANCE allows 2\.00 %: give it more \(CLOISTER_BITS",
            id="too few bits",
        ),
        pytest.param(
            Precision(8, 8, tolerance=0.0),
            r"at 8 bits, .*there are no more than 8: regularise more, or allow that loss",
            id="no more bits",
        ),
        pytest.param(
            Precision("auto", "auto", tolerance=0.0),
            r"at any of 49 pairs of bits, .*regularise more, or allow that loss",
            id="auto",
        ),
        pytest.param(
            Precision("auto", 2), r"at any of 7 pairs of bits, .*give it more", id="half auto"
        ),
    ],
)
def test_beyond_the_tolerance_nothing_is_published(
    publish: Callable[[Precision], Version],
    artifacts: Registry,
    precision: Precision,
    message: str,
) -> None:
    with pytest.raises(CloisterError, match=message):
        publish(precision)
    assert artifacts.names() == []


def test_a_model_that_no_bits_can_quantise_is_refused_with_the_reason(
    make_card: Callable[..., ModelCard],
) -> None:
    weights = LinearWeights(LEARNT.coef * 1e-12, LEARNT.intercept)
    with pytest.raises(CloisterError, match="every weight quantises to 0"):
        quantise_cheapest(
            make_card(weights.coef),
            weights,
            Precision(8, "auto"),
            calibration_rows(weights.coef),
        )
