"""From a file of rows to a published model."""

import logging
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from cloister_shared.artifact import CARD
from cloister_shared.card import ModelCard, read_card
from cloister_shared.links import link
from cloister_shared.measuring import measure
from cloister_shared.registry import Registry, Version
from cloister_trainer.local import plan
from cloister_trainer.local.fitting import fit, unfitted
from cloister_trainer.local.plan import (
    chosen_estimator,
    estimator_parameters,
    inputs_digest,
)
from cloister_trainer.local.rows import check_folds, read_rows, split
from cloister_trainer.local.search import Candidate, best, search
from cloister_trainer.local.settings import Settings
from cloister_trainer.publication import adopted, final_metrics, libraries, publish

SEARCH = "search"
"""Member of the manifest's details: every candidate of the search."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A published model, and how its parameters were found."""

    published: Version
    card: ModelCard
    search: list[Candidate]
    """Empty where nothing was searched."""
    is_new: bool
    """Whether it was trained just now."""


def train_locally(settings: Settings) -> Trained:
    """Publish a model of these rows and settings, unless one is published.

    Raises:
        CloisterError: something does not fit, or cannot be served encrypted; nothing is published.
    """
    digest, registry = inputs_digest(settings), Registry(settings.models_dir)
    there = adopted(registry, settings.name, digest, retrain=settings.retrain)
    if there is not None:
        return _trained(there, is_new=False)
    plan.check(settings)
    data = settings.data
    rows = read_rows(settings.data_path, settings.reading)
    fitted, kept = split(rows, data, settings.validation_share, settings.seed)
    log.info("%d rows to fit, %d to measure on", len(fitted.answers), len(kept.answers))
    row, parameters = chosen_estimator(settings), estimator_parameters(settings)
    found: list[Candidate] = []
    bits = None
    if settings.grid:
        check_folds(fitted, data, settings.folds)
        found = search(
            row,
            unfitted(row, parameters, standardise=settings.standardise),
            settings.grid,
            fitted,
            data,
            folds=settings.folds,
            seed=settings.seed,
        )
        chosen = best(found, data)
        parameters |= chosen.estimator_parameters
        bits = chosen.bits
    model = fit(
        row, parameters, fitted, data, standardise=settings.standardise, prune=settings.prune
    )
    measured = measure(
        model, kept.inputs, kept.answers, link(row.name, parameters, len(data.classes))
    )
    card = ModelCard(
        name=settings.name,
        estimator=row.name,
        parameters=parameters,
        data=data,
        out_of_bounds=settings.out_of_bounds,
        rounds=(),
        final=final_metrics(measured, data),
        bits=bits,
        pruned=settings.prune,
        standardised=settings.standardise,
        libraries=libraries(row),
        created=datetime.now(UTC),
    )
    details: dict[str, Any] = {SEARCH: [asdict(one) for one in found]} if found else {}
    published = publish(registry, card, model, digest, details)
    published.verify()
    log.info("published version %d of %s", published.manifest.version, card.name)
    return _trained(published, is_new=True)


def _trained(published: Version, *, is_new: bool) -> Trained:
    found = published.manifest.details.get(SEARCH, [])
    return Trained(
        published, read_card(published.file(CARD)), [Candidate(**one) for one in found], is_new
    )
