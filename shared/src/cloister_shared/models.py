"""The model that sites and trainer exchange: linear weights, or boosted trees."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister_shared.boosting import no_trees
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator
from cloister_shared.schema import DatasetSchema
from cloister_shared.trees import BASE, INDICES, NUMBERS, Trees
from cloister_shared.weights import LinearWeights

Model = LinearWeights | Trees

COEF = "coef"
INTERCEPT = "intercept"
LINEAR_ARRAYS = frozenset({COEF, INTERCEPT})
BOOSTED_ARRAYS = frozenset({*INDICES, *NUMBERS, BASE})
"""Names of the arrays of either."""


def initial_model(row: Estimator, data: DatasetSchema) -> Model:
    """Return what a training begins from: zeros, or no tree."""
    return no_trees(np.zeros(data.n_outputs)) if row.boosted else LinearWeights.zeros(data)


def to_arrays(model: Model) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a model, by name."""
    if isinstance(model, Trees):
        return model.arrays()
    return {COEF: model.coef, INTERCEPT: model.intercept}


def from_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> Model:
    """Return the model that these arrays are; shapes and values are for ``check_exchanged``.

    Raises:
        KeyError: an array is missing.
        TypeError: one holds something else than what it must.
    """
    if INDICES[0] in arrays:
        return Trees.from_arrays(arrays)
    return LinearWeights(
        arrays[COEF].astype(np.float64, casting="same_kind"),
        arrays[INTERCEPT].astype(np.float64, casting="same_kind"),
    )


def check_exchanged(model: Model, data: DatasetSchema) -> None:
    """Refuse a model that is not for such data; it need not have learnt anything yet.

    Raises:
        CloisterError: saying what is wrong.
    """
    if isinstance(model, LinearWeights):
        model.check(data)
        return
    if model.base is None:
        raise CloisterError("these trees are not boosted, and sites go on from no others")
    model.check_form(data)


def linear(model: Model) -> LinearWeights:
    """Return the weights of a linear model.

    Raises:
        CloisterError: it is none.
    """
    if isinstance(model, Trees):
        raise CloisterError("these are trees, and what is asked is of linear models")
    return model


def boosted(model: Model) -> Trees:
    """Return the trees of a boosted model.

    Raises:
        CloisterError: it is none.
    """
    if isinstance(model, LinearWeights) or model.base is None:
        raise CloisterError("this model has no boosted trees, and what is asked is of such")
    return model
