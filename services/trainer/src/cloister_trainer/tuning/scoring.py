"""How well each choice predicts rows that it was not fitted on, and what it costs."""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from cloister_shared.calibration import calibration_rows
from cloister_shared.cost import bytes_down, bytes_up, client_ms, floor_ms, lwe_dimension
from cloister_shared.errors import CloisterError
from cloister_shared.links import Floats, Link, link
from cloister_shared.measuring import quality
from cloister_shared.preprocessing import inputs_of
from cloister_shared.reference import Reference, needed_features
from cloister_shared.schema import Answers, DatasetSchema
from cloister_shared.weights import LinearWeights
from cloister_trainer.local.fitting import fitted, own_estimator, stopped_early, weights_of
from cloister_trainer.local.plan import chosen_estimator, estimator_parameters
from cloister_trainer.local.quantisation import quantised, weight_quantiser
from cloister_trainer.local.rows import Rows, splitter
from cloister_trainer.local.search import Progress
from cloister_trainer.tuning.settings import Settings
from cloister_trainer.tuning.space import Choice, parameter_choices, pools, served_by_one_fit

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cost:
    """What a prediction costs: an estimate before anything is compiled, the mean over the folds."""

    features: float
    """Inputs that the circuit takes."""
    dimension: float
    """LWE dimension."""
    bytes_up: float
    bytes_down: float
    client_ms: float
    """To encrypt a row, on one core."""
    server_ms: float
    """To evaluate it, on one core, at least."""


@dataclass(frozen=True)
class Scored:
    """A choice with what it came to."""

    choice: Choice
    score: float
    """Mean over the folds: accuracy, or of a regression the mean absolute error."""
    deviation: float
    """Standard deviation over the folds."""
    cost: Cost


def pooled(data: DatasetSchema, pool: int) -> DatasetSchema:
    """Return the schema with this pool in the place of its own."""
    return DatasetSchema.model_validate(data.model_dump() | {"pool": pool})


def score_all(settings: Settings, encoded: Floats, answers: Answers) -> list[Scored]:
    """Score every choice by cross-validation.

    A fit serves all bits and shares to prune: they change what follows it.

    Args:
        settings: what is searched.
        encoded: rows, shape (n, n_features).
        answers: shape (n,).

    Raises:
        CloisterError: nothing could be fitted.
    """
    data = settings.data
    combinations, all_pools = parameter_choices(settings), pools(settings, data)
    fits = len(combinations) * len(all_pools) * settings.folds
    log.info("%d fits of %d rows", fits, len(answers))
    found: list[Scored] = []
    folds = splitter(data, settings.folds, settings.seed)
    progress = Progress(fits)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for pool in all_pools:
            rows = Rows(inputs_of(encoded, pooled(data, pool)), answers)
            for parameters in combinations:
                choices = served_by_one_fit(settings, pool, parameters)
                each = []
                for others, kept in folds.split(rows.inputs, answers):
                    each.append(_score(settings, choices, rows.take(others), rows.take(kept)))
                    progress.step()
                found += [_mean(*of) for of in zip(choices, zip(*each, strict=True), strict=True)]
    if early := stopped_early(caught):
        log.info("%d of %d fits stopped before they had converged", early, fits)
    scored = [one for one in found if math.isfinite(one.score)]
    if not scored:
        raise CloisterError("no choice can be quantised: regularise more, or try more bits")
    return scored


def fitted_weights(
    settings: Settings, parameters: Mapping[str, Any], rows: Rows, prunes: Sequence[float]
) -> tuple[list[LinearWeights], Link]:
    """Fit rows by parameters of the grid, and return weights and what their scores mean.

    Args:
        settings: what is searched.
        parameters: of the grid.
        rows: to fit.
        prunes: shares of the inputs that get no weight, one for each of the weights returned.

    Raises:
        CloisterError: scikit-learn cannot.
    """
    given = estimator_parameters(settings) | dict(parameters)
    model = fitted(chosen_estimator(settings), given, rows, standardise=settings.standardise)
    own = own_estimator(model).get_params()
    meaning = link(settings.estimator, own, len(settings.data.classes))
    return [weights_of(model, prune) for prune in prunes], meaning


def _score(
    settings: Settings, choices: Sequence[Choice], others: Rows, kept: Rows
) -> list[tuple[float, Cost]]:
    """Score choices of the same parameters on rows that are kept, by one fit of the others."""
    prunes = [one.prune for one in choices]
    found, meaning = fitted_weights(settings, choices[0].parameters, others, prunes)
    return [
        _measure(weights, one, kept, meaning) for weights, one in zip(found, choices, strict=True)
    ]


def _measure(
    weights: LinearWeights, choice: Choice, rows: Rows, meaning: Link
) -> tuple[float, Cost]:
    try:
        circuit = quantised(weights, choice.bits_inputs, choice.bits_weights)
    except CloisterError:
        return math.nan, Cost(*[math.nan] * 6)
    scores = circuit.dequantise(circuit.integer_scores(circuit.quantise(rows.inputs)))
    return quality(scores, rows.answers, meaning), cost_of(circuit, choice.bits_weights)


def cost_of(circuit: Reference, bits_weights: int) -> Cost:
    """Return what a prediction by a quantised model costs.

    Args:
        circuit: on all inputs, as ``quantised`` makes it.
        bits_weights: that its weights were quantised to.
    """
    features = needed_features(circuit)
    zero_point = weight_quantiser(circuit.coef, bits_weights).zero_point
    rows = calibration_rows(circuit.coef)[:, features]
    dimension = lwe_dimension(
        circuit.weights[features] + zero_point,
        zero_point,
        circuit.bias,
        circuit.quantiser.quantise(rows),
    )
    count, outputs = len(features), len(circuit.coef)
    return Cost(
        features=count,
        dimension=dimension,
        bytes_up=bytes_up(count),
        bytes_down=bytes_down(outputs, dimension),
        client_ms=client_ms(count, dimension),
        server_ms=floor_ms(count, outputs, dimension),
    )


def _mean(choice: Choice, folds: Sequence[tuple[float, Cost]]) -> Scored:
    scores, costs = zip(*folds, strict=True)
    mean = np.mean([astuple(cost) for cost in costs], axis=0)
    return Scored(choice, float(np.mean(scores)), float(np.std(scores)), Cost(*mean.tolist()))
