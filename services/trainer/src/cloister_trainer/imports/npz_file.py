"""A model as two arrays, and a card that says what they are."""

from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from cloister_shared.errors import CloisterError
from cloister_shared.estimators import estimator, sklearn_class
from cloister_shared.schema import Label
from cloister_trainer.imports.archives import ARRAY, opened
from cloister_trainer.imports.foreign import Foreign, Step

PAIRS = (("coef", "intercept"), ("coef_", "intercept_"), ("arr_0", "arr_1"))
"""Names of coefficients and intercepts; the last are numpy's for ``np.savez(path, *arrays)``."""


class Description(BaseModel):
    """What arrays alone do not tell of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimator: str
    """scikit-learn class name."""
    parameters: dict[str, Any] = {}
    """Of its constructor; the others have scikit-learn's defaults."""
    classes: tuple[Label, ...] | None = None
    """What the rows of coefficients are of, as in ``classes_``; by default as in the schema."""
    features: tuple[str, ...] | None = None
    """What the columns are of; by default as in the schema."""
    scikit_learn: str | None = None
    """The version of scikit-learn that made it."""


def read_description(path: Path) -> Description:
    """Read a description from a JSON file.

    Raises:
        CloisterError: the file is missing, or holds something else.
    """
    try:
        return Description.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CloisterError(f"--card: {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise CloisterError(f"--card: {path} does not describe a model: {error}") from None


def read_npz(path: Path, description: Description) -> Foreign:
    """Read coefficients and intercepts.

    Args:
        path: of the .npz.
        description: of the model.

    Raises:
        CloisterError: the file is damaged or lacks an array, or the description names an unknown
            estimator or parameter.
    """
    known = sklearn_class(estimator(description.estimator))().get_params()
    for name in description.parameters:
        if name not in known:
            raise CloisterError(f"--card: {description.estimator} has no parameter {name!r}")
    with opened(path) as archive:
        for coef, intercept in PAIRS:
            if {f"{coef}{ARRAY}", f"{intercept}{ARRAY}"} <= set(archive.names):
                arrays = archive.array(f"{coef}{ARRAY}"), archive.array(f"{intercept}{ARRAY}")
                break
        else:
            pairs = ", or ".join(" and ".join(pair) for pair in PAIRS)
            raise CloisterError(f"{path} lacks the arrays of a linear model: {pairs}")
    attributes: dict[str, Any] = dict(description.parameters)
    attributes |= {"coef_": arrays[0], "intercept_": arrays[1]}
    if description.classes is not None:
        attributes["classes_"] = np.array(description.classes, dtype=object)
    if description.features is not None:
        attributes["feature_names_in_"] = description.features
    return Foreign((), Step(description.estimator, attributes), description.scikit_learn)
