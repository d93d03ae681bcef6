"""The best parameters of a grid, by cross-validation."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.model_selection import GridSearchCV, ParameterGrid

from cloister_shared.boosting import trees_of
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator
from cloister_shared.links import Floats, link
from cloister_shared.measuring import quality
from cloister_shared.schema import Answers, DatasetSchema
from cloister_trainer.local.fitting import (
    own_estimator,
    parameter_prefix,
    stopped_early,
    weights_of,
)
from cloister_trainer.local.plan import N_BITS, without_bits
from cloister_trainer.local.quantisation import quantised_scores
from cloister_trainer.local.rows import Rows, splitter

PROGRESS_SECONDS = 2.0
"""Between two lines about how far a search is."""
UNQUANTISED = 0
"""In the place of bits, for scores in floating point."""

Grid = dict[str, list[Any]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Candidate:
    """One combination of a grid, and how well it predicts rows that it was not fitted on."""

    parameters: dict[str, Any]
    """As in the grid, ``n_bits`` among them."""
    mean: float | None
    """Over the folds: accuracy, or of a regression the mean absolute error in the target's unit.
    None where a fit failed."""
    deviation: float | None
    """Standard deviation over the folds, likewise."""

    @property
    def bits(self) -> int | None:
        """To which it was quantised before it predicted; None: not at all."""
        return self.parameters.get(N_BITS)

    @property
    def estimator_parameters(self) -> dict[str, Any]:
        """Those of the estimator."""
        return {name: value for name, value in self.parameters.items() if name != N_BITS}


def search(
    row: Estimator,
    model: Any,
    grids: list[Grid],
    rows: Rows,
    data: DatasetSchema,
    *,
    folds: int,
    seed: int,
) -> list[Candidate]:
    """Score every combination of the grids.

    A fit serves all bits: it is what follows a fit that they change.

    Args:
        row: of the estimator.
        model: what ``unfitted`` makes of it, with parameters that the grids do not vary.
        grids: lists of values a parameter.
        rows: to fit; every class has at least ``folds`` of them.
        data: their schema.
        folds: parts into which the rows are split.
        seed: of the split.

    Raises:
        CloisterError: scikit-learn fits none of them.
    """
    fits = folds * sum(len(ParameterGrid(without_bits(grid))) for grid in grids)
    progress = Progress(fits)
    prefix = parameter_prefix(model)
    found: list[Candidate] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for grid in grids:
            bits = grid.get(N_BITS, [UNQUANTISED])
            searched = GridSearchCV(
                model,
                {prefix + name: values for name, values in without_bits(grid).items()},
                scoring=_scorer(row, data, bits, progress),
                cv=splitter(data, folds, seed),
                refit=False,
                error_score=np.nan,
            )
            try:
                searched.fit(rows.inputs, rows.answers)
            except ValueError as error:
                raise CloisterError(f"CLOISTER_GRID: no fit succeeded: {error}") from None
            found += _candidates(searched.cv_results_, grid, prefix)
    early = stopped_early(caught)
    if early:
        log.warning("%d of %d fits stopped before they had converged: raise max_iter", early, fits)
    return found


def best(found: list[Candidate], data: DatasetSchema) -> Candidate:
    """Return the one that predicts best: of equals the one of fewer bits, then the first.

    Raises:
        CloisterError: all have failed.
    """
    sign = -1.0 if data.classes else 1.0
    scored = [(sign * one.mean, one.bits or 0, one) for one in found if one.mean is not None]
    if not scored:
        raise CloisterError("CLOISTER_GRID: no combination could be fitted in every fold")
    return min(scored, key=lambda of: of[:2])[2]


def _scorer(
    row: Estimator, data: DatasetSchema, choices: list[int], progress: "Progress"
) -> Callable[[Any, Floats, Answers], dict[str, float]]:
    def score(model: Any, inputs: Floats, answers: Answers) -> dict[str, float]:
        meaning = link(row.name, own_estimator(model).get_params(), len(data.classes))
        if row.family == "tree":
            progress.step()
            found = trees_of(model).scores(inputs)
            return {str(UNQUANTISED): quality(found, answers, meaning)}
        weights = weights_of(model)
        scores: dict[str, float] = {}
        for bits in choices:
            try:
                found = (
                    weights.scores(inputs)
                    if bits == UNQUANTISED
                    else quantised_scores(weights, bits, inputs)
                )
                scores[str(bits)] = quality(found, answers, meaning)
            except CloisterError as error:
                log.warning("%s bits: %s", bits, error)
                scores[str(bits)] = math.nan
        progress.step()
        return scores

    return score


def _candidates(results: Mapping[str, Any], grid: Grid, prefix: str) -> list[Candidate]:
    found = []
    for index, given in enumerate(results["params"]):
        parameters = {name.removeprefix(prefix): value for name, value in given.items()}
        for bits in grid.get(N_BITS, [UNQUANTISED]):
            mean, deviation = (
                float(results[f"{what}_test_{bits}"][index]) for what in ("mean", "std")
            )
            succeeded = math.isfinite(mean)
            found.append(
                Candidate(
                    {**parameters, N_BITS: bits} if bits else parameters,
                    mean if succeeded else None,
                    deviation if succeeded else None,
                )
            )
    return found


class Progress:
    """Tells now and then how many fits are done."""

    def __init__(self, fits: int) -> None:
        """Begin with none of so many."""
        self._fits = fits
        self._done = 0
        self._began = self._told = time.monotonic()

    def step(self) -> None:
        """Count one more."""
        self._done += 1
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS and self._done < self._fits:
            self._told = now
            left = (now - self._began) / self._done * (self._fits - self._done)
            log.info("%d of %d fits, about %.0f s left", self._done, self._fits, left)
