"""The estimators that can be compiled and served: one row each."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

from cloister_shared.errors import CloisterError
from cloister_shared.links import OBJECTIVES

Task = Literal["classification", "regression"]
Aggregation = Literal["rounds", "statistics", "mean", "bagging"]
"""How sites train an estimator together.

- ``rounds``: each fits from the global weights on, and their updates become the next weights.
- ``statistics``: each sends the sums that its rows enter the least-squares objective with; one
  round gives what a fit on all rows in one place would.
- ``mean``: the estimator cannot begin from given weights, so each fits once on its own, and the
  model is the mean of their weights.
- ``bagging``: each grows trees that improve on those of all sites so far, and all of them are
  added to these, those of a site by its share of the rows.
"""


@dataclass(frozen=True)
class Estimator:
    """How one estimator is trained and compiled, and what its circuit computes."""

    name: str
    """The class name, of scikit-learn or XGBoost; cards and settings use it."""
    task: Task
    sklearn_class: str
    """Import path of the class that is fitted."""
    concrete_class: str
    """Import path of the class that compiles it."""
    family: Literal["linear", "tree"] = "linear"
    """Linear: the circuit computes scores and needs no evaluation keys. Tree: it computes what each
    of one or several trees answers, and needs evaluation keys."""
    boosted: bool = False
    """Whether a tree adds to one output, where there are several, and is none of its own."""
    aggregation: Aggregation | None = None
    """How sites train it together; None: they cannot."""
    iterations: str | None = None
    """The parameter that says how much work one fit is, ``max_iter``; None where there is none or
    a fit is always to its end."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Parameters whose default is another here than in scikit-learn, or XGBoost."""
    only: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Parameters of which not every value can be compiled or trained across sites: those that
    can."""
    largest: Mapping[str, int] = field(default_factory=dict)
    """Parameters that are whole numbers from 1, and how large each may be to be served."""
    positive: Literal["none", "not negative", "positive"] = "none"
    """What its targets have to be, whatever its parameters."""
    has_proximal_term: bool = False
    """Whether its objective can draw a site towards the global model, which FedProx needs."""


def _linear(name: str, task: Task, aggregation: Aggregation, **changes: Any) -> Estimator:
    # LinearSVC and the like live in sklearn.svm, all others in sklearn.linear_model.
    module = "svm" if name.startswith("LinearSV") else "linear_model"
    return Estimator(
        name=name,
        task=task,
        sklearn_class=f"sklearn.{module}.{name}",
        concrete_class=f"concrete.ml.sklearn.{name}",
        aggregation=aggregation,
        **changes,
    )


def _generalised(name: str, **changes: Any) -> Estimator:
    iterated = {"iterations": "max_iter", "defaults": {"max_iter": 20}}
    return _linear(name, "regression", "rounds", **iterated, **changes)


def _tree(name: str, task: Task, module: str, **changes: Any) -> Estimator:
    return Estimator(
        name=name,
        task=task,
        sklearn_class=f"sklearn.{module}.{name}",
        concrete_class=f"concrete.ml.sklearn.{name}",
        family="tree",
        **changes,
    )


def _boosted(name: str, task: Task) -> Estimator:
    described = [
        objective
        for objective, meaning in OBJECTIVES.items()
        if (task == "regression") == (meaning in ("identity", "exponential"))
    ]
    return Estimator(
        name=name,
        task=task,
        sklearn_class=f"xgboost.{name}",
        concrete_class=f"concrete.ml.sklearn.{name}",
        family="tree",
        boosted=True,
        aggregation="bagging",
        defaults={"max_depth": 2, "n_estimators": 5},
        only={
            "objective": (None, *described),
            "booster": (None, "gbtree"),
            "num_parallel_tree": (None, 1),
            "multi_strategy": (None, "one_output_per_tree"),
            "enable_categorical": (None, False),
            "missing": (None,),
            "device": (None, "cpu"),
            "early_stopping_rounds": (None,),
            "callbacks": (None,),
        },
        largest={"max_depth": LARGEST_DEPTH, "n_estimators": LARGEST_ROUNDS},
    )


LARGEST_DEPTH = 5
LARGEST_TREES = 10
LARGEST_ROUNDS = 40
"""Boosted trees of one output: of stumps, whose leaves are two, as many as can be served."""
LARGEST_LEAVES = 80
"""Of all trees together. An encrypted prediction takes up to .2 s of one core for each leaf, so
this is about half of the 30 s that the inference service allows a request by default."""

_ONE_TREE: dict[str, Any] = {
    "defaults": {"max_depth": 4},
    "largest": {"max_depth": LARGEST_DEPTH},
}
_FOREST: dict[str, Any] = {
    "defaults": {"max_depth": 3, "n_estimators": 5},
    "largest": {"max_depth": LARGEST_DEPTH, "n_estimators": LARGEST_TREES},
}

_SEEDED: dict[str, Any] = {"random_state": 0}
"""A training that is repeated or resumed is to come to the same weights."""

ESTIMATORS = {
    estimator.name: estimator
    for estimator in (
        _linear(
            "LogisticRegression",
            "classification",
            "rounds",
            iterations="max_iter",
            defaults={"max_iter": 20},
        ),
        _linear("LinearSVC", "classification", "mean", defaults=_SEEDED),
        _linear(
            "SGDClassifier",
            "classification",
            "rounds",
            iterations="max_iter",
            defaults={"loss": "log_loss", "max_iter": 5, "tol": None} | _SEEDED,
            only={"loss": ("log_loss", "modified_huber")},
        ),
        _linear("LinearRegression", "regression", "statistics"),
        _linear("Ridge", "regression", "statistics"),
        _linear("Lasso", "regression", "statistics"),
        _linear("ElasticNet", "regression", "statistics"),
        _linear("LinearSVR", "regression", "mean", defaults=_SEEDED),
        _linear(
            "SGDRegressor",
            "regression",
            "rounds",
            iterations="max_iter",
            defaults={"max_iter": 5, "tol": None} | _SEEDED,
        ),
        _generalised("PoissonRegressor", positive="not negative"),
        _generalised("GammaRegressor", positive="positive"),
        _generalised("TweedieRegressor"),
        _tree("DecisionTreeClassifier", "classification", "tree", **_ONE_TREE),
        _tree("DecisionTreeRegressor", "regression", "tree", **_ONE_TREE),
        _tree("RandomForestClassifier", "classification", "ensemble", **_FOREST),
        _tree("RandomForestRegressor", "regression", "ensemble", **_FOREST),
        _boosted("XGBClassifier", "classification"),
        _boosted("XGBRegressor", "regression"),
    )
}


def estimator(name: str) -> Estimator:
    """Return the row for ``name``.

    Raises:
        CloisterError: no such estimator; the message lists those there are.
    """
    try:
        return ESTIMATORS[name]
    except KeyError:
        raise CloisterError(
            f"estimator {name!r} cannot be served encrypted; use one of: {', '.join(ESTIMATORS)}"
        ) from None


def federated_estimator(name: str) -> Estimator:
    """Return the row for ``name``, which sites can train together.

    Raises:
        CloisterError: no such estimator, or not one that sites can train together.
    """
    row = estimator(name)
    if row.aggregation is None:
        others = (other.name for other in ESTIMATORS.values() if other.aggregation)
        raise CloisterError(
            f"estimator {name!r} cannot be trained across sites; use one of: {', '.join(others)}"
        )
    return row


def check_standardised(row: Estimator) -> None:
    """Refuse to standardise inputs where that does nothing.

    Raises:
        CloisterError: saying what to set.
    """
    if row.family == "tree":
        raise CloisterError(
            f"CLOISTER_STANDARDISE is nothing to a {row.name}, which splits the same rows whatever "
            "the scale of an input: set it to false"
        )


def n_outputs(row: Estimator, n_classes: int) -> int:
    """Return how many scores a model of this estimator gives to a row.

    Args:
        row: of the estimator.
        n_classes: 0 for a regression.
    """
    if row.family == "tree" and not row.boosted:
        return max(n_classes, 1)
    return n_classes if n_classes > 2 else 1


def check_leaves(row: Estimator, parameters: Mapping[str, Any], n_classes: int) -> None:
    """Refuse trees that may have too many leaves together to be served.

    Args:
        row: of the estimator.
        parameters: of the constructor of a tree, a forest or boosted trees, those in ``largest``
            among them.
        n_classes: 0 for a regression.

    Raises:
        CloisterError: saying which parameters to lower.
    """
    depth, n_rounds = parameters["max_depth"], parameters.get("n_estimators", 1)
    outputs = n_outputs(row, n_classes) if row.boosted else 1
    n_trees, each = n_rounds * outputs, 2**depth
    limit = "max_leaves" if row.boosted else "max_leaf_nodes"
    # XGBoost takes 0 for no limit.
    if type(parameters.get(limit)) is int and parameters[limit] > 0:
        each = min(each, parameters[limit])
    if n_trees * each <= LARGEST_LEAVES:
        return
    of_each = f" ({n_rounds} for each of {outputs} classes)" if outputs > 1 else ""
    ways = []
    if LARGEST_LEAVES // (outputs * each):
        ways.append(f"n_estimators to {LARGEST_LEAVES // (outputs * each)}")
    if LARGEST_LEAVES // n_trees > 1:
        ways.append(f"max_depth to {(LARGEST_LEAVES // n_trees).bit_length() - 1}")
        ways.append(f"{limit} to {LARGEST_LEAVES // n_trees}")
    raise CloisterError(
        f"{n_trees} trees{of_each} of up to {each} leaves take too long under encryption: all "
        f"trees together may have {LARGEST_LEAVES}. "
        + (f"Lower {', or '.join(ways)}" if ways else "Lower n_estimators and max_depth")
    )


def sklearn_class(row: Estimator) -> Any:
    """Import and return the class that is fitted."""
    module, name = row.sklearn_class.rsplit(".", 1)
    return getattr(import_module(module), name)
