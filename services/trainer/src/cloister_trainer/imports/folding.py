"""A foreign model as weights for inputs in [0, 1], exactly: all that stands before is affine."""

import logging
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator, estimator, sklearn_class
from cloister_shared.schema import DatasetSchema
from cloister_shared.weights import LinearWeights
from cloister_trainer.imports.foreign import SCALERS, Foreign, Step

FittedOn = Literal["raw", "unit"]
"""What a model was fitted on: values in the unit of the data, or these mapped from the schema's
bounds to [0, 1]."""

Floats = npt.NDArray[np.float64]

log = logging.getLogger(__name__)


def linear_row(foreign: Foreign) -> Estimator:
    """Return the row of the estimator.

    Raises:
        CloisterError: what comes last is no linear estimator, or before it comes another thing
            than a scaler.
    """
    for step in foreign.scalers:
        if step.kind not in SCALERS:
            raise CloisterError(
                f"the model's pipeline has a {step.kind} before its end; only "
                f"{' and '.join(SCALERS)} can be folded into the weights"
            )
    if foreign.estimator.kind in SCALERS:
        raise CloisterError("the model's pipeline ends with a scaler: there is no estimator in it")
    row = estimator(foreign.estimator.kind)
    if row.family != "linear":
        raise CloisterError(
            f"{row.name} has no weights: publish it by cloister_compiler.tree.publish_tree"
        )
    return row


def parameters(foreign: Foreign, row: Estimator) -> dict[str, Any]:
    """Return the estimator's parameters that this scikit-learn knows, as far as JSON has them."""
    found: dict[str, Any] = {}
    for name, default in sklearn_class(row)().get_params().items():
        value = foreign.estimator.attributes.get(name, default)
        if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
            value = value.item()
        is_plain = value is None or isinstance(value, bool | int | str)
        if is_plain or (isinstance(value, float) and math.isfinite(value)):
            found[name] = value
    return found


def fold(foreign: Foreign, data: DatasetSchema, fitted_on: FittedOn) -> LinearWeights:
    """Return the weights of the same model on inputs in [0, 1], in the order of the schema.

    Args:
        foreign: the model, its row one of ``linear_row``.
        data: the schema of its rows.
        fitted_on: what the model takes.

    Raises:
        CloisterError: an attribute is missing, or shapes or classes are not the schema's, or a
            value is not finite.
    """
    own = foreign.estimator
    coef = _attribute(own, "coef_")
    if not isinstance(coef, np.ndarray):
        raise CloisterError("the model's coef_ is no array: call densify() if it is sparse")
    weights = LinearWeights.of(coef, _attribute(own, "intercept_"))
    n_inputs = weights.coef.shape[1]
    if n_inputs != data.n_inputs:
        raise CloisterError(
            f"the model takes {n_inputs} features, and {data.dataset} has {data.n_inputs}"
        )
    if data.task == "classification":
        weights = _in_order_of_classes(weights, own.attributes.get("classes_"), data)
    with np.errstate(all="ignore"):
        for scaler in reversed(foreign.scalers):
            factor, offset = _affine(scaler, n_inputs)
            weights = weights.absorbing(factor, offset)
        weights = _in_order_of_features(weights, _feature_names(foreign), data)
        if fitted_on == "raw":
            weights = weights.absorbing(*_from_unit(data))
    weights.check(data)
    return weights


def _from_unit(data: DatasetSchema) -> tuple[Floats, Floats]:
    if data.n_inputs != data.n_features:
        raise CloisterError(
            f"{data.dataset} turns {data.n_features} columns into {data.n_inputs} inputs, which no "
            "model of raw values takes: fit it on those inputs and say --fitted-on unit"
        )
    return data.bounds.highs - data.bounds.lows, data.bounds.lows


def _affine(scaler: Step, n_inputs: int) -> tuple[Floats, Floats]:
    """Return factor and offset of what a scaler does to each column."""
    ones, zeros = np.ones(n_inputs), np.zeros(n_inputs)
    if scaler.kind == "MinMaxScaler":
        if scaler.attributes.get("clip"):
            raise CloisterError("a MinMaxScaler that clips cannot be folded into the weights")
        return _column(scaler, "scale_", n_inputs), _column(scaler, "min_", n_inputs)
    has_std = scaler.attributes.get("with_std", True)
    has_mean = scaler.attributes.get("with_mean", True)
    factor = ones / _column(scaler, "scale_", n_inputs) if has_std else ones
    mean = _column(scaler, "mean_", n_inputs) if has_mean else zeros
    return factor, -mean * factor


def _column(step: Step, name: str, n_inputs: int) -> Floats:
    values = np.asarray(_attribute(step, name))
    if values.dtype.kind not in "iuf" or values.shape != (n_inputs,):
        raise CloisterError(
            f"the {step.kind}'s {name} is {values.dtype} of shape {values.shape}, and the "
            f"estimator takes {n_inputs} features"
        )
    column: Floats = values.astype(np.float64)
    return column


def _attribute(step: Step, name: str) -> Any:
    value = step.attributes.get(name)
    if value is None:
        raise CloisterError(
            f"the model's {step.kind} has no {name}: it is not fitted, or not whole"
        )
    return value


def _in_order_of_classes(
    weights: LinearWeights, classes: Any, data: DatasetSchema
) -> LinearWeights:
    if classes is None:
        return weights
    found = np.ravel(np.asarray(classes))
    try:
        positions = data.class_indices(found)
    except CloisterError:
        positions = np.array([-1])
    if sorted(positions.tolist()) != list(range(len(data.classes))):
        told, expected = (", ".join(map(str, labels)) for labels in (found.tolist(), data.classes))
        raise CloisterError(
            f"the model's classes are {told}, and those of {data.dataset} are {expected}"
        )
    if len(data.classes) == 2:
        # The one row is for the second class.
        sign = 1.0 if positions[1] == 1 else -1.0
        return LinearWeights(sign * weights.coef, sign * weights.intercept)
    if len(weights.coef) != len(found):
        raise CloisterError(f"coef has {len(weights.coef)} rows for {len(found)} classes")
    order = np.argsort(positions)
    return LinearWeights(weights.coef[order], weights.intercept[order])


def _feature_names(foreign: Foreign) -> Sequence[str] | None:
    for step in (*foreign.scalers, foreign.estimator):
        names = step.attributes.get("feature_names_in_")
        if names is not None:
            return [str(name) for name in names]
    return None


def _in_order_of_features(
    weights: LinearWeights, names: Sequence[str] | None, data: DatasetSchema
) -> LinearWeights:
    own = [feature.name for feature in data.features]
    if names is None or list(names) == own:
        return weights
    if sorted(names) != sorted(own):
        log.warning(
            "the model names its features otherwise than %s: they are taken to be in its order",
            data.dataset,
        )
        return weights
    order = [names.index(name) for name in own]
    return LinearWeights(np.ascontiguousarray(weights.coef[:, order]), weights.intercept)
