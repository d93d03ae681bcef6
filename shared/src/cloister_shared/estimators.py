"""The estimators that can be federated, compiled and served: one row each."""

from dataclasses import dataclass

from cloister_shared.errors import CloisterError


@dataclass(frozen=True)
class Estimator:
    """How one estimator is trained across sites and compiled."""

    name: str
    """The scikit-learn class name; cards and settings use it."""
    sklearn_class: str
    """Import path of the class that sites fit."""
    concrete_class: str
    """Import path of the class that compiles it."""


ESTIMATORS = {
    estimator.name: estimator
    for estimator in (
        Estimator(
            name="LogisticRegression",
            sklearn_class="sklearn.linear_model.LogisticRegression",
            concrete_class="concrete.ml.sklearn.LogisticRegression",
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
