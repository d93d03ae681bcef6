"""The estimators that can be compiled and served: one row each."""

from dataclasses import dataclass
from typing import Literal

from cloister_shared.errors import CloisterError


@dataclass(frozen=True)
class Estimator:
    """How one estimator is trained and compiled, and what its circuit computes."""

    name: str
    """The scikit-learn class name; cards and settings use it."""
    sklearn_class: str
    """Import path of the class that is fitted."""
    concrete_class: str
    """Import path of the class that compiles it."""
    family: Literal["linear", "tree"]
    """Linear: the circuit computes scores, needs no evaluation keys, and sites can train it
    together. Tree: it computes class probabilities and needs evaluation keys."""
    has_proximal_term: bool = False
    """Whether its objective can draw a site towards the global model, which FedProx needs."""


ESTIMATORS = {
    estimator.name: estimator
    for estimator in (
        Estimator(
            name="LogisticRegression",
            sklearn_class="sklearn.linear_model.LogisticRegression",
            concrete_class="concrete.ml.sklearn.LogisticRegression",
            family="linear",
        ),
        Estimator(
            name="DecisionTreeClassifier",
            sklearn_class="sklearn.tree.DecisionTreeClassifier",
            concrete_class="concrete.ml.sklearn.DecisionTreeClassifier",
            family="tree",
        ),
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
        CloisterError: no such estimator, or not one whose weights can be averaged.
    """
    row = estimator(name)
    if row.family != "linear":
        linear = (other.name for other in ESTIMATORS.values() if other.family == "linear")
        raise CloisterError(
            f"estimator {name!r} cannot be trained across sites; use one of: {', '.join(linear)}"
        )
    return row
