"""Whether an estimator can be trained with these parameters on such data, before any work."""

import warnings
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS, Estimator, check_leaves, sklearn_class
from cloister_shared.schema import DatasetSchema

SETTING = "CLOISTER_ESTIMATOR_PARAMETERS"
PROBE_ROWS = 12
"""Synthetic rows for each class, or in all of a regression, that parameters are tried on."""
BOOSTED_TARGETS: Mapping[str, Literal["not negative", "positive"]] = {
    "count:poisson": "not negative",
    "reg:tweedie": "not negative",
    "reg:gamma": "positive",
}
"""What targets have to be, by the objective."""
STOCHASTIC = ("sag", "saga")
"""Solvers of Ridge that depend on which rows there are, and not on their sums alone."""


def check_suitable(
    row: Estimator, parameters: Mapping[str, Any], data: DatasetSchema, said_in: str = SETTING
) -> None:
    """Refuse what cannot succeed.

    Args:
        row: of the estimator.
        parameters: of its constructor.
        data: the schema of the rows.
        said_in: where the parameters come from, for messages.

    Raises:
        CloisterError: saying what to use in its place.
    """
    check_compilable(row, parameters, data, said_in)
    _check_target(row, parameters, data)
    check_accepted(row, parameters, data, said_in)


def check_compilable(
    row: Estimator, parameters: Mapping[str, Any], data: DatasetSchema, said_in: str
) -> None:
    """Refuse what cannot be compiled to answer questions about such data, however it was trained.

    Args:
        row: of the estimator.
        parameters: of its constructor.
        data: the schema of the rows.
        said_in: where the parameters come from, for messages.

    Raises:
        CloisterError: saying what to use in its place.
    """
    if row.task != data.task:
        others = (one.name for one in ESTIMATORS.values() if one.task == data.task)
        raise CloisterError(
            f"{data.dataset} is a {data.task}, and {row.name} does a {row.task}: set "
            f"CLOISTER_ESTIMATOR to one of {', '.join(others)}"
        )
    for name, values in row.only.items():
        if name in parameters and parameters[name] not in values:
            raise CloisterError(
                f"{said_in}: {row.name} with {name}={parameters[name]!r} cannot be compiled to run "
                f"on ciphertexts; use one of {', '.join(map(repr, values))}"
            )
    if row.boosted:
        _check_objective(row, parameters, data, said_in)
    check_size(row, parameters, data, said_in)


def _check_objective(
    row: Estimator, parameters: Mapping[str, Any], data: DatasetSchema, said_in: str
) -> None:
    objective = parameters.get("objective")
    # With two scores for two classes it would be another circuit than the one of every answer.
    if len(data.classes) == 2 and objective not in (None, "binary:logistic"):
        raise CloisterError(
            f"{said_in}: {row.name} with objective={objective!r} is for more than two classes: use "
            "'binary:logistic'"
        )


def check_size(
    row: Estimator, parameters: Mapping[str, Any], data: DatasetSchema, said_in: str
) -> None:
    """Refuse trees that are too large to be served.

    Args:
        row: of the estimator, of whatever family.
        parameters: of its constructor.
        data: the schema of the rows.
        said_in: where the parameters come from, for messages.

    Raises:
        CloisterError: saying which parameters to lower.
    """
    for name, largest in row.largest.items():
        value = parameters.get(name)
        if type(value) is not int or not 1 <= value <= largest:
            given = "missing" if name not in parameters else repr(value)
            raise CloisterError(
                f"{said_in}: {name} of {row.name} is {given}: set it to 1 to {largest}; a larger "
                "one takes too long under encryption"
            )
    if row.family == "tree":
        try:
            check_leaves(row, parameters, len(data.classes))
        except CloisterError as error:
            raise CloisterError(f"{said_in}: {error}") from None


def check_across_sites(row: Estimator, parameters: Mapping[str, Any]) -> None:
    """Refuse parameters with which sites cannot train an estimator together.

    Raises:
        CloisterError: saying why.
    """
    if row.aggregation == "rounds":
        for wrong, why in (
            (not parameters.get("warm_start", True), "warm_start=false begins every round anew"),
            (
                parameters.get("solver") == "liblinear",
                "the solver liblinear cannot begin from given weights; lbfgs, newton-cg, sag and "
                "saga can",
            ),
            (bool(parameters.get("average")), "averaged weights are none to go on from"),
        ):
            if wrong:
                raise CloisterError(f"{SETTING}: {why}, and sites go on from each other's weights")
    if row.aggregation == "statistics" and parameters.get("solver") in STOCHASTIC:
        raise CloisterError(
            f"{SETTING}: the solver {parameters['solver']} goes through rows, and of the sites' "
            "rows only sums are known; use auto, cholesky, svd, lsqr or sparse_cg"
        )


def _check_target(row: Estimator, parameters: Mapping[str, Any], data: DatasetSchema) -> None:
    if data.target is None:
        return
    needed = row.positive
    power = parameters.get("power", 0.0)
    if row.boosted:
        needed = BOOSTED_TARGETS.get(parameters.get("objective") or "", needed)
    if row.name == "TweedieRegressor" and isinstance(power, int | float) and power >= 1:
        needed = "positive" if power >= 2 else "not negative"
    low = data.target.low
    if (needed == "positive" and low <= 0) or (needed == "not negative" and low < 0):
        raise CloisterError(
            f"{row.name} is for targets that are {needed}, and the declared bounds of "
            f"{data.dataset}'s begin at {low}: raise them in the schema if no target is lower, or "
            "use Ridge, SGDRegressor or TweedieRegressor with power 0"
        )


def check_accepted(
    row: Estimator, parameters: Mapping[str, Any], data: DatasetSchema, said_in: str
) -> None:
    """Refuse what scikit-learn or XGBoost refuses, by a fit of a few synthetic rows.

    Args:
        row: of the estimator.
        parameters: of its constructor.
        data: the schema of the rows.
        said_in: where the parameters come from, for messages.

    Raises:
        CloisterError: with what they have to say of them.
    """
    known = sklearn_class(row)().get_params()
    # XGBoost takes what it does not know for its core, which ignores it.
    if row.boosted and (unknown := sorted(set(parameters) - set(known))):
        raise CloisterError(f"{said_in}: {row.name} has no parameter {', '.join(unknown)}")
    generator = np.random.default_rng(0)
    n_rows = PROBE_ROWS * max(len(data.classes), 2)
    rows = generator.random((n_rows, data.n_inputs))
    if data.target is None:
        answers: Any = np.arange(n_rows) % len(data.classes)
    else:
        answers = data.target.low + data.target.width * (1 + generator.random(n_rows)) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sklearn_class(row)(**parameters).fit(rows, answers)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise CloisterError(f"{said_in}: {row.name} does not take this: {error}") from None
