"""A quantised model to a Concrete ML circuit that computes the same."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from concrete.fhe import Configuration

from cloister_compiler.quantisation import QuantisedModel, explained, integer_circuit
from cloister_shared.card import ModelCard
from cloister_shared.cost import ERROR_PROBABILITY
from cloister_shared.errors import CloisterError
from cloister_shared.links import link, values
from cloister_shared.reference import Reference

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CompiledModel:
    """A compiled Concrete ML model and what its circuit computes."""

    model: Any
    """The concrete.ml.sklearn model, compiled."""
    reference: Reference


def compile_model(card: ModelCard, quantised: QuantisedModel, calibration: Floats) -> CompiledModel:
    """Compile a quantised model.

    Args:
        card: of the model, for messages.
        quantised: what to compile.
        calibration: rows in [0, 1] of all features, shape (n, n_features); they set the width of
            the scores.

    Raises:
        CloisterError: Concrete ML cannot compile it, or what it compiled computes something else
            in the clear than the quantised model.
    """
    model, reference = quantised.model, quantised.reference
    with explained(card, quantised.bits):
        # Otherwise Concrete writes what it knows of a model that fails to where it stands.
        configuration = Configuration(dump_artifacts_on_unexpected_failures=False)
        model.compile(
            calibration[:, reference.features],
            configuration=configuration,
            p_error=ERROR_PROBABILITY,
        )
    weights, bias = integer_circuit(model.fhe_circuit.graph, len(reference.features))
    if not (np.array_equal(weights, reference.weights) and np.array_equal(bias, reference.bias)):
        raise CloisterError("the circuit has other integer weights than the quantised model")
    _check_in_the_clear(model, reference, calibration, card)
    return CompiledModel(model, reference)


def _check_in_the_clear(model: Any, reference: Reference, rows: Floats, card: ModelCard) -> None:
    probes = np.vstack([rows, np.random.default_rng(0).random((64, rows.shape[1]))])
    quantised = reference.quantise(probes)
    kept = probes[:, reference.features]
    if not np.array_equal(model.quantize_input(kept), quantised):
        raise CloisterError("the reference quantises inputs otherwise than Concrete ML does")
    scores = reference.dequantise(reference.integer_scores(quantised))
    if card.data.task == "regression":
        meaning = link(card.estimator, card.parameters, n_classes=0)
        # Far beyond all targets an exponential is more than a float holds, here as there.
        with np.errstate(over="ignore"):
            equal = np.array_equal(np.ravel(model.predict(kept)), values(scores, meaning))
    else:
        equal = np.array_equal(model.decision_function(kept).reshape(scores.shape), scores)
    if not equal:
        raise CloisterError("the reference computes other scores than Concrete ML in the clear")
