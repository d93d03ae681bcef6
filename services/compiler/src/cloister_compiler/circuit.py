"""A float model to a Concrete ML circuit and to the same circuit in the clear."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt
from concrete.fhe import Configuration

from cloister_shared.card import ModelCard
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator
from cloister_shared.reference import Reference
from cloister_shared.weights import LinearWeights

Floats = npt.NDArray[np.float64]

_EXPLAINED = {
    "NoParametersFound": "its scores need more bits than there are secure parameters for; the "
    "intercepts, or what all weights have in common, are too large for how the weights differ: "
    "regularise more"
}
"""Messages of Concrete that say too little."""


@dataclass(frozen=True)
class CompiledModel:
    """A compiled Concrete ML model and what its circuit computes."""

    model: Any
    """The concrete.ml.sklearn model, compiled."""
    reference: Reference


def compile_model(
    card: ModelCard, weights: LinearWeights, bits: int, calibration: Floats
) -> CompiledModel:
    """Quantise and compile a linear model.

    Args:
        card: names the estimator and its parameters.
        weights: its float weights.
        bits: for inputs and weights, 2 to 8.
        calibration: rows in [0, 1], shape (n, n_features); they set the range of the input
            quantiser and the width of the scores.

    Raises:
        CloisterError: scikit-learn or Concrete ML does not take the estimator's parameters or
            weights, every weight quantises to 0, or Concrete ML computes something else in the
            clear than the reference made from its circuit.
    """
    row = estimator(card.estimator)
    try:
        # A float too large for an integer would otherwise become a wrong one, with a warning.
        with np.errstate(over="raise", invalid="raise"):
            fitted = _fitted(_load(row.sklearn_class), card, weights)
            model = _load(row.concrete_class).from_sklearn_model(fitted, calibration, n_bits=bits)
            # Otherwise Concrete writes what it knows of a model that fails to where it stands.
            configuration = Configuration(dump_artifacts_on_unexpected_failures=False)
            model.compile(calibration, configuration=configuration)
    except FloatingPointError as error:
        raise CloisterError(
            f"the weights or intercepts of this {card.estimator} are too large to be quantised "
            f"({error}): regularise more"
        ) from error
    except Exception as error:
        raise CloisterError(
            f"Concrete ML cannot compile this {card.estimator} at {bits} bits: "
            f"{_EXPLAINED.get(str(error), str(error) or type(error).__name__)}"
        ) from error
    reference = _reference(model, weights)
    reference.check()
    if weights.coef.any() and not reference.weights.any():
        raise CloisterError(
            f"every weight quantises to 0, and every input would get the same answer: the largest "
            f"is {np.abs(weights.coef).max():.1e}; train the model longer"
        )
    _check_in_the_clear(model, reference, calibration)
    return CompiledModel(model, reference)


def _load(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def _fitted(sklearn_class: Any, card: ModelCard, weights: LinearWeights) -> Any:
    """Return a scikit-learn model with these weights, as if ``fit`` had found them."""
    fitted = sklearn_class(**card.parameters)
    fitted.coef_ = weights.coef
    fitted.intercept_ = weights.intercept
    fitted.classes_ = np.arange(len(card.data.classes))
    fitted.n_features_in_ = card.data.n_features
    return fitted


def _reference(model: Any, weights: LinearWeights) -> Reference:
    """Read the integer circuit off the circuit itself: its value at zero and at unit vectors."""
    quantiser, output = model.input_quantizers[0], model.output_quantizers[0]
    n_features = weights.coef.shape[1]
    evaluate = model.fhe_circuit.graph
    zero = np.zeros((1, n_features), dtype=np.int64)
    bias = evaluate(zero).ravel().astype(np.int64)
    rows = [evaluate(row[None, :]).ravel() for row in np.eye(n_features, dtype=np.int64)]
    return Reference(
        coef=weights.coef,
        intercept=weights.intercept,
        weights=np.vstack(rows).astype(np.int64) - bias,
        bias=bias,
        input_scale=np.array(quantiser.scale, dtype=np.float64),
        input_zero_point=np.array(quantiser.zero_point, dtype=np.int64),
        input_low=np.array(-quantiser.offset, dtype=np.int64),
        input_high=np.array(2**quantiser.n_bits - 1 - quantiser.offset, dtype=np.int64),
        output_scale=np.array(output.scale, dtype=np.float64),
        output_zero_point=np.asarray(output.zero_point, dtype=np.int64).ravel(),
    )


def _check_in_the_clear(model: Any, reference: Reference, rows: Floats) -> None:
    probes = np.vstack([rows, np.random.default_rng(0).random((64, rows.shape[1]))])
    quantised = reference.quantiser.quantise(probes)
    if not np.array_equal(model.quantize_input(probes), quantised):
        raise CloisterError("the reference quantises inputs otherwise than Concrete ML does")
    scores = reference.dequantise(reference.integer_scores(quantised))
    if not np.array_equal(model.decision_function(probes).reshape(scores.shape), scores):
        raise CloisterError("the reference computes other scores than Concrete ML in the clear")
