"""A model in a pickle or joblib file, which its user has said to trust."""

import logging
import warnings
from pathlib import Path
from typing import Any

import joblib
from sklearn.exceptions import InconsistentVersionWarning

from cloister_shared.errors import CloisterError
from cloister_trainer.imports.foreign import PASSTHROUGH, Foreign, Step, check_kind

log = logging.getLogger(__name__)


def read_pickle(path: Path) -> Foreign:
    """Unpickle a linear estimator, alone or as the last step of a pipeline.

    This runs whatever code the file names.

    Raises:
        CloisterError: it cannot be unpickled, or holds a class that is not taken over.
    """
    log.warning("--allow-pickle: unpickling %s runs whatever code is in it", path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = joblib.load(path)
        except Exception as error:  # noqa: BLE001 - what is unpickled can raise anything
            raise CloisterError(
                f"{path} cannot be unpickled ({type(error).__name__}: {error}): is it whole, and "
                "are the libraries that it needs installed?"
            ) from None
    steps = _steps(model)
    versions = [
        one.message.original_sklearn_version
        for one in caught
        if isinstance(one.message, InconsistentVersionWarning)
    ]
    return Foreign(tuple(steps[:-1]), steps[-1], versions[0] if versions else None)


def _steps(model: Any) -> list[Step]:
    kind = check_kind(type(model).__module__, type(model).__name__)
    if kind != "Pipeline":
        return [Step(kind, vars(model))]
    found = [
        step
        for _, part in model.steps
        if part is not None and part != PASSTHROUGH
        for step in _steps(part)
    ]
    if not found:
        raise CloisterError("the model's pipeline has no steps")
    return found
