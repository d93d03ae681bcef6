"""What is searched: a grid of parameters, and what makes a circuit cheaper."""

from dataclasses import dataclass
from typing import Any

from sklearn.model_selection import ParameterGrid

from cloister_shared.estimators import sklearn_class
from cloister_shared.schema import DatasetSchema
from cloister_trainer.local.plan import chosen_estimator, estimator_parameters, without_bits
from cloister_trainer.tuning.settings import Settings

_C = {"C": [0.01, 0.1, 1.0, 10.0]}
_ALPHA = {"alpha": [0.001, 0.01, 0.1, 1.0]}
GRIDS: dict[str, dict[str, list[Any]]] = {
    "LogisticRegression": _C,
    "LinearSVC": _C,
    "LinearSVR": _C,
    "SGDClassifier": {"alpha": [1e-5, 1e-4, 1e-3]},
    "SGDRegressor": {"alpha": [1e-5, 1e-4, 1e-3]},
    "Ridge": _ALPHA,
    "Lasso": _ALPHA,
    "ElasticNet": _ALPHA,
    "PoissonRegressor": _ALPHA,
    "GammaRegressor": _ALPHA,
    "TweedieRegressor": _ALPHA,
}
"""What is searched of an estimator's parameters where no grid is given: how much it regularises."""


@dataclass(frozen=True)
class Choice:
    """One point of the space."""

    parameters: dict[str, Any]
    """Of the estimator, those that the grid varies."""
    pool: int
    prune: float
    bits_inputs: int
    bits_weights: int


DEFAULT = Choice({}, 1, 0.0, 8, 8)
"""What an untuned training and compilation take."""


def parameter_choices(settings: Settings) -> list[dict[str, Any]]:
    """Return every combination of the estimator's parameters to try, first that of no change.

    Bits in a grid are not looked at: they are searched in any case.
    """
    grids = settings.grid or [GRIDS.get(settings.estimator, {})]
    combinations = [one for grid in grids for one in ParameterGrid(without_bits(grid))]
    usual = sklearn_class(chosen_estimator(settings))(**estimator_parameters(settings)).get_params()
    return [{}, *(one for one in combinations if not one.items() <= usual.items())]


def pools(settings: Settings, data: DatasetSchema) -> list[int]:
    """Return the pools to try, 1 among them: it alone where there is no image."""
    if data.image_shape is None:
        return [1]
    height, width = data.image_shape
    return sorted({1, *(p for p in settings.tune_pool if height % p == width % p == 0)})


def served_by_one_fit(settings: Settings, pool: int, parameters: dict[str, Any]) -> list[Choice]:
    """Return every choice that differs in what follows a fit."""
    found = [
        Choice(parameters, pool, prune, bits_inputs, bits_weights)
        for prune in dict.fromkeys(settings.tune_prune)
        for bits_inputs in dict.fromkeys(settings.tune_bits_inputs)
        for bits_weights in dict.fromkeys(settings.tune_bits_weights)
    ]
    is_default = pool == DEFAULT.pool and not parameters
    return [*found, *([DEFAULT] if is_default and DEFAULT not in found else [])]
