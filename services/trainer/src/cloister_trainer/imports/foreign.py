"""A model that was trained elsewhere, as plain attributes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import ESTIMATORS

SCALERS = ("StandardScaler", "MinMaxScaler")
"""What may stand before the estimator: it is folded into the weights."""
PASSTHROUGH = "passthrough"
"""In a pipeline, a step that changes nothing."""


class Unread:
    """Stands for an attribute of a kind that no prediction needs."""


@dataclass(frozen=True)
class Step:
    """A scaler or an estimator, as its fit left it."""

    kind: str
    """The scikit-learn class name."""
    attributes: Mapping[str, Any]
    """Parameters of the constructor and fitted attributes; those of other kinds may be
    ``Unread``."""


@dataclass(frozen=True)
class Foreign:
    """A fitted linear estimator, with the scalers that came before it."""

    scalers: tuple[Step, ...]
    estimator: Step
    scikit_learn: str | None = None
    """The version that made it, where that is known."""


def check_kind(module: str, name: str) -> str:
    """Return the name of a class that is known.

    Args:
        module: that defines the class.
        name: of the class.

    Raises:
        CloisterError: it is not one of scikit-learn's own, or none that can be taken over.
    """
    known = [*ESTIMATORS, *SCALERS, "Pipeline"]
    if name in known and module.split(".", maxsplit=1)[0] == "sklearn":
        return name
    raise CloisterError(
        f"the model holds a {module}.{name}; what can be taken over are scikit-learn's own "
        f"{', '.join(known)}"
    )
