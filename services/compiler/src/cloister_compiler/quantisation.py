"""A float model quantised by Concrete ML, in the clear, and the features that it can do without."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister_shared.card import ModelCard
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator
from cloister_shared.reference import Reference, needed_features
from cloister_shared.weights import LinearWeights

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

log = logging.getLogger(__name__)

_EXPLAINED = {
    "NoParametersFound": "its scores need more bits than there are secure parameters for; the "
    "intercepts, or what all weights have in common, are too large for how the weights differ: "
    "regularise more"
}
"""Messages of Concrete that say too little."""


@dataclass(frozen=True)
class Bits:
    """To how many bits a circuit quantises, 2 to 8 each."""

    inputs: int
    weights: int

    def __str__(self) -> str:
        """Return the bits for a message to people."""
        if self.inputs == self.weights:
            return f"{self.inputs} bits"
        return f"{self.inputs} bits for inputs and {self.weights} for weights"


@dataclass(frozen=True)
class QuantisedModel:
    """A quantised Concrete ML model, not compiled yet, and what it computes."""

    model: Any
    """The concrete.ml.sklearn model."""
    reference: Reference
    bits: Bits

    @property
    def raw_weights(self) -> Integers:
        """Weights as the circuit holds them, shape (n_circuit_features, n_outputs).

        Those of the reference are these less ``weight_zero_point``.
        """
        return self.reference.weights + self.weight_zero_point

    @property
    def weight_zero_point(self) -> int:
        """What a weight of 0 is quantised to."""
        # No public member has it.
        return int(self.model._weight_quantizer.zero_point)  # noqa: SLF001


def quantise(
    card: ModelCard, weights: LinearWeights, bits: Bits, calibration: Floats
) -> QuantisedModel:
    """Quantise a linear model on all its features.

    Args:
        card: names the estimator and its parameters.
        weights: its float weights.
        bits: for inputs and for weights.
        calibration: rows in [0, 1], shape (n, n_features), which set the range of the inputs.

    Raises:
        CloisterError: scikit-learn or Concrete ML does not take the estimator's parameters or
            weights, or every weight quantises to 0.
    """
    quantised = _quantise(card, weights, bits, calibration, np.arange(weights.coef.shape[1]))
    if weights.coef.any() and not quantised.reference.weights.any():
        raise CloisterError(
            f"every weight quantises to 0, and every input would get the same answer: the largest "
            f"is {np.abs(weights.coef).max():.1e}; train the model longer"
        )
    return quantised


def drop_features(
    card: ModelCard, weights: LinearWeights, full: QuantisedModel, calibration: Floats
) -> QuantisedModel:
    """Quantise again without the features whose integer weights are all 0.

    The work of an encrypted prediction is proportional to its features, and a feature without
    weight changes no score.

    Args:
        card: as for ``quantise``.
        weights: as for ``quantise``.
        full: the model on all features.
        calibration: the rows it was quantised with.

    Returns:
        The model on the features it needs, whose integer scores are those of ``full`` for every
        input; or ``full``, where none can be dropped or that cannot be shown.
    """
    kept = needed_features(full.reference)
    n_features = weights.coef.shape[1]
    if len(kept) == n_features:
        return full
    dropped = _quantise(card, weights, full.bits, calibration, kept)
    differing = _differences(full.reference, dropped.reference)
    if differing:
        log.warning(
            "keeping all %d features, %d of them without weight: without those, Concrete ML "
            "chooses another %s",
            n_features,
            n_features - len(kept),
            ", ".join(differing),
        )
        return full
    log.info(
        "the circuit takes %d of %d features: the others have no weight", len(kept), n_features
    )
    return dropped


def _differences(full: Reference, dropped: Reference) -> list[str]:
    """Name what keeps ``dropped`` from having the integer scores of ``full`` for every input.

    With equal quantisers and biases, equal weights on the kept features and zeros elsewhere, the
    sums have the same terms other than 0.
    """
    equal = {
        field.name: np.array_equal(getattr(full, field.name), getattr(dropped, field.name))
        for field in fields(Reference)
        if field.name not in ("features", "weights")
    }
    expanded = np.zeros_like(full.weights)
    expanded[dropped.features] = dropped.weights
    equal["weights"] = np.array_equal(full.weights, expanded)
    return [name for name, same in equal.items() if not same]


def integer_circuit(
    evaluate: Callable[[Integers], Any], n_features: int
) -> tuple[Integers, Integers]:
    """Read weights and bias off a linear circuit: its value at zero and at unit vectors.

    Args:
        evaluate: the circuit in the clear, on integers of shape (1, n_features).
        n_features: that it takes.

    Returns:
        Integer weights of shape (n_features, n_outputs) and bias of shape (n_outputs,).
    """
    zero = np.zeros((1, n_features), dtype=np.int64)
    bias = np.asarray(evaluate(zero)).ravel().astype(np.int64)
    rows = [
        np.asarray(evaluate(row[None, :])).ravel() for row in np.eye(n_features, dtype=np.int64)
    ]
    return np.vstack(rows).astype(np.int64) - bias, bias


@contextmanager
def explained(card: ModelCard, bits: Bits) -> Iterator[None]:
    """Raise what scikit-learn or Concrete raises inside as a ``CloisterError`` that explains it."""
    try:
        # A float too large for an integer would otherwise become a wrong one, with a warning.
        with np.errstate(over="raise", invalid="raise"):
            yield
    except FloatingPointError as error:
        raise CloisterError(
            f"the weights or intercepts of this {card.estimator} are too large to be quantised "
            f"({error}): regularise more"
        ) from error
    except Exception as error:
        raise CloisterError(
            f"Concrete ML cannot compile this {card.estimator} at {bits}: "
            f"{_EXPLAINED.get(str(error), str(error) or type(error).__name__)}"
        ) from error


def _quantise(
    card: ModelCard, weights: LinearWeights, bits: Bits, calibration: Floats, features: Integers
) -> QuantisedModel:
    row = estimator(card.estimator)
    with explained(card, bits):
        fitted = _fitted(_load(row.sklearn_class), card, weights, features)
        model = _load(row.concrete_class).from_sklearn_model(
            fitted,
            calibration[:, features],
            n_bits={"op_inputs": bits.inputs, "op_weights": bits.weights},
        )
        # What the compiler will trace; no public method gives its integers before it has.
        integers, bias = integer_circuit(model._inference, len(features))  # noqa: SLF001
    quantiser, output = model.input_quantizers[0], model.output_quantizers[0]
    reference = Reference(
        coef=weights.coef,
        intercept=weights.intercept,
        features=features,
        weights=integers,
        bias=bias,
        input_scale=np.array(quantiser.scale, dtype=np.float64),
        input_zero_point=np.array(quantiser.zero_point, dtype=np.int64),
        input_low=np.array(-quantiser.offset, dtype=np.int64),
        input_high=np.array(2**quantiser.n_bits - 1 - quantiser.offset, dtype=np.int64),
        output_scale=np.array(output.scale, dtype=np.float64),
        output_zero_point=np.asarray(output.zero_point, dtype=np.int64).ravel(),
    )
    reference.check()
    return QuantisedModel(model, reference, bits)


def _load(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(import_module(module), name)


def _fitted(sklearn_class: Any, card: ModelCard, weights: LinearWeights, features: Integers) -> Any:
    """Return a scikit-learn model with the weights of these features, as ``fit`` leaves it."""
    fitted = sklearn_class(**card.parameters)
    coef = np.ascontiguousarray(weights.coef[:, features])
    if card.data.task == "regression":
        fitted.coef_, fitted.intercept_ = coef[0], float(weights.intercept[0])
    else:
        fitted.coef_, fitted.intercept_ = coef, weights.intercept
        fitted.classes_ = np.arange(len(card.data.classes))
    fitted.n_features_in_ = len(features)
    return fitted
