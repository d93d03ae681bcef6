"""From a file of rows to a setting."""

import logging
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from sklearn.model_selection import train_test_split

from cloister_shared.artifact import Agreement
from cloister_shared.card import ModelCard
from cloister_shared.errors import CloisterError
from cloister_shared.links import Floats
from cloister_shared.preprocessing import inputs_of
from cloister_shared.probes import measure_agreement, synthetic_rows
from cloister_shared.rows.files import kind_by_content, read_file
from cloister_shared.schema import Answers, DatasetSchema
from cloister_trainer.local import plan
from cloister_trainer.local.quantisation import quantised
from cloister_trainer.local.rows import Rows, check_folds
from cloister_trainer.suitability import SETTING, check_suitable
from cloister_trainer.tuning.front import pareto_front, within
from cloister_trainer.tuning.scoring import Scored, fitted_weights, pooled, score_all
from cloister_trainer.tuning.settings import Settings
from cloister_trainer.tuning.space import DEFAULT, Choice, parameter_choices

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuned:
    """What a search came to."""

    data: DatasetSchema
    scored: list[Scored]
    front: list[Scored]
    """Those that nothing beats in both score and cost, the cheapest first."""
    chosen: Scored
    agreement: Agreement
    """Of the chosen one, fitted on all rows searched with, as the compiler measures it."""
    default: Scored
    """What an untuned training and compilation come to."""


def tune(settings: Settings) -> Tuned:
    """Search the settings' space on their rows.

    Raises:
        CloisterError: the rows do not fit, or something cannot be searched.
    """
    data = settings.data
    row, base = plan.chosen_estimator(settings), plan.estimator_parameters(settings)
    if row.family == "tree":
        raise CloisterError(
            f"a {row.name} is not tuned here, as its circuit is another: search its parameters by "
            "a local training with CLOISTER_GRID"
        )
    for combination in parameter_choices(settings):
        said_in = f"CLOISTER_GRID, {combination}" if combination else SETTING
        check_suitable(row, base | combination, data, said_in)
    encoded, answers = _rows(settings)
    check_folds(Rows(encoded, answers), data, settings.folds)
    scored = score_all(settings, encoded, answers)
    front = pareto_front(scored, data)
    default = next((one for one in scored if one.choice == DEFAULT), None)
    if default is None:
        raise CloisterError("the model as it is cannot be quantised at 8 bits: regularise more")
    best = within(front, data, settings.tune_tolerance)[0]
    agreement = _agreement(settings, best.choice, encoded, answers)
    return Tuned(data, scored, front, best, agreement, default)


def _agreement(settings: Settings, choice: Choice, encoded: Floats, answers: Answers) -> Agreement:
    data = pooled(settings.data, choice.pool)
    rows = Rows(inputs_of(encoded, data), answers)
    with warnings.catch_warnings():
        # What stopped before it had converged was told of the search.
        warnings.simplefilter("ignore")
        (weights,), _ = fitted_weights(settings, choice.parameters, rows, [choice.prune])
    card = ModelCard(
        name=settings.name,
        estimator=settings.estimator,
        parameters=plan.estimator_parameters(settings) | choice.parameters,
        data=data,
        rounds=(),
        libraries={},
        created=datetime.now(UTC),
    )
    reference = quantised(weights, choice.bits_inputs, choice.bits_weights)
    return measure_agreement(reference, synthetic_rows(weights.coef), card)


def _rows(settings: Settings) -> tuple[Floats, Answers]:
    """Read the rows, and draw as many as are searched with."""
    path, data = settings.data_path, settings.data
    found = read_file(path, kind_by_content(path), settings.encoded_reading)
    count = len(found.answers)
    if not 0 < settings.tune_rows < count:
        return found.features, found.answers
    strata = found.answers if data.classes else None
    try:
        drawn, _ = train_test_split(
            np.arange(count),
            train_size=settings.tune_rows,
            random_state=settings.seed,
            stratify=strata,
        )
    except ValueError as error:
        raise CloisterError(
            f"CLOISTER_TUNE_ROWS={settings.tune_rows} of {count} rows cannot have each class's "
            f"share ({error}): raise it"
        ) from None
    log.info("searching with %d of %d rows", len(drawn), count)
    return found.features[drawn], found.answers[drawn]
