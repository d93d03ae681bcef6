"""What determines a local training, and what is refused before any work."""

import logging
from typing import Any

from sklearn.model_selection import ParameterGrid

from cloister_shared.digests import digest_file, digest_json
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import (
    Estimator,
    check_standardised,
    estimator,
    sklearn_class,
)
from cloister_trainer.local.settings import Settings
from cloister_trainer.publication import check_name
from cloister_trainer.suitability import SETTING, check_suitable

N_BITS = "n_bits"
"""In a grid, beside the estimator's parameters: bits of inputs and weights."""
BITS = range(2, 9)
MANY_FITS = 1000
"""What is worth a warning before it begins."""

log = logging.getLogger(__name__)


def chosen_estimator(settings: Settings) -> Estimator:
    """Return the row of the estimator to fit.

    Raises:
        CloisterError: there is none.
    """
    return estimator(settings.estimator)


def estimator_parameters(settings: Settings) -> dict[str, Any]:
    """Return the parameters of the estimator, without those that a grid varies.

    Raises:
        CloisterError: as ``chosen_estimator``.
    """
    row = chosen_estimator(settings)
    # What makes one round of many short is nothing for a fit to the end.
    parameters = {
        name: value for name, value in row.defaults.items() if name not in (row.iterations, "tol")
    }
    if "random_state" in sklearn_class(row)().get_params():
        parameters["random_state"] = settings.seed
    return parameters | settings.estimator_parameters


def candidates(settings: Settings) -> list[dict[str, Any]]:
    """Return the parameters of every combination in the grids, without the bits."""
    return [
        combination for grid in settings.grid for combination in ParameterGrid(without_bits(grid))
    ]


def without_bits(grid: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the grid of the estimator's own parameters."""
    return {name: values for name, values in grid.items() if name != N_BITS}


def tell_size(settings: Settings) -> None:
    """Tell how much a search is, before its parameters are tried: of many even that takes long."""
    sizes = [len(ParameterGrid(without_bits(grid))) for grid in settings.grid]
    fits = settings.folds * sum(sizes)
    combinations = sum(
        size * len(grid.get(N_BITS, [None]))
        for size, grid in zip(sizes, settings.grid, strict=True)
    )
    log.log(
        logging.WARNING if fits > MANY_FITS else logging.INFO,
        "searching %d combinations in %d folds: %d fits",
        combinations,
        settings.folds,
        fits,
    )


def check(settings: Settings) -> None:
    """Refuse, before any row is read, what cannot succeed.

    Raises:
        CloisterError: the estimator cannot be served encrypted, it or one combination of the grid
            has parameters that scikit-learn does not take, or does not go together with the data,
            or the bits are none.
    """
    row, base = chosen_estimator(settings), estimator_parameters(settings)
    check_name(settings.name, settings.data)
    if N_BITS in base:
        raise CloisterError(
            f"{SETTING}: {N_BITS} is for CLOISTER_GRID, or CLOISTER_BITS of the compiler"
        )
    if row.family == "tree" and settings.prune:
        raise CloisterError(
            f"CLOISTER_PRUNE takes weights, which a {row.name} has none of: its parameters, such "
            "as max_leaf_nodes, say how large it grows"
        )
    if settings.standardise:
        check_standardised(row)
    if settings.grid:
        tell_size(settings)
    else:
        check_suitable(row, base, settings.data)
    for grid in settings.grid:
        if N_BITS in grid and row.family == "tree":
            raise CloisterError(
                f"CLOISTER_GRID: the inputs of a {row.name} lose nothing by quantisation: take "
                "n_bits out, and set CLOISTER_BITS for the compiler if 8 are not wanted"
            )
        for bits in grid.get(N_BITS, []):
            if type(bits) is not int or bits not in BITS:
                raise CloisterError(
                    f"CLOISTER_GRID: n_bits is {bits!r}; it must be {BITS[0]} to {BITS[-1]}"
                )
    for combination in candidates(settings):
        said_in = f"CLOISTER_GRID, {combination}" if combination else SETTING
        check_suitable(row, base | combination, settings.data, said_in)


def inputs_digest(settings: Settings) -> str:
    """Return the digest of all that determines a training; equal digests need no second one.

    Raises:
        CloisterError: there is no file of rows, or a parameter is not finite.
    """
    try:
        rows = digest_file(settings.data_path)
    except OSError as error:
        raise CloisterError(
            f"CLOISTER_DATA_PATH: {settings.data_path} cannot be read: {error.strerror}"
        ) from None
    try:
        return digest_json(
            {
                "rows": rows,
                "columns": [settings.label_column, sorted(settings.ignored_columns)],
                "data": settings.data.digest,
                "estimator": settings.estimator,
                "parameters": estimator_parameters(settings),
                "search": {"grid": settings.grid, "folds": settings.folds}
                if settings.grid
                else None,
                "prune": settings.prune,
                "standardise": settings.standardise,
                "validation_share": settings.validation_share,
                "seed": settings.seed,
                "out_of_bounds": settings.out_of_bounds,
            }
        )
    except ValueError:
        raise CloisterError(f"{SETTING} and CLOISTER_GRID take finite numbers only") from None
