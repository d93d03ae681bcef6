"""A model as a published version: its card, and its float weights or its trees."""

import logging
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cloister_shared.artifact import CARD, TREES, WEIGHTS
from cloister_shared.card import FinalMetrics, ModelCard
from cloister_shared.datasets import DATASETS
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Estimator
from cloister_shared.measuring import Metrics
from cloister_shared.models import Model
from cloister_shared.registry import Registry, Version
from cloister_shared.schema import DatasetSchema
from cloister_shared.trees import Trees

DELETED = "trained with these settings, and deleted: CLOISTER_RETRAIN=true trains another"

log = logging.getLogger(__name__)


def check_name(name: str, data: DatasetSchema, said_in: str = "CLOISTER_MODEL=") -> None:
    """Refuse to publish a model under the name of another dataset than its own.

    Args:
        name: of the model.
        data: its schema.
        said_in: what says the name, for the message.

    Raises:
        CloisterError: it is the name of another one.
    """
    # Compose sets the name of a dataset where nobody has set another.
    if name in DATASETS and name != data.dataset:
        raise CloisterError(
            f"{said_in}{name} is the name of another dataset than the schema's, "
            f"{data.dataset}: set it to a name of the model's own"
        )


def libraries(row: Estimator, *others: str) -> dict[str, str]:
    """Return for the card the versions of what fits such a model.

    Args:
        row: of the estimator.
        others: names of further packages.
    """
    found = {name: version(name) for name in ("numpy", *others)}
    if row.boosted:
        # By whichever of its packages it is installed.
        found["xgboost"] = str(import_module("xgboost").__version__)
    else:
        found["scikit-learn"] = version("scikit-learn")
    return dict(sorted(found.items()))


def final_metrics(measured: Metrics, data: DatasetSchema) -> FinalMetrics:
    """Return for the card what was measured on rows that are in one place."""
    if data.classes:
        return FinalMetrics(sites=1, accuracy=measured.quality, loss=measured.loss)
    return FinalMetrics(sites=1, absolute_error=measured.quality, loss=measured.loss)


def told_metrics(final: FinalMetrics) -> str:
    """Return the metrics for people."""
    if final.absolute_error is not None:
        return f"mean absolute error {final.absolute_error:.4g}, loss {final.loss:.4g}"
    return f"accuracy {final.accuracy:.4f}, loss {final.loss:.4f}"


def adopted(registry: Registry, name: str, inputs_digest: str, *, retrain: bool) -> Version | None:
    """Put what is published from these inputs into use, unless it was rolled back from.

    Args:
        registry: of models.
        name: of the model.
        inputs_digest: of all that determines it.
        retrain: whether another one is wanted whatever there is.

    Returns:
        The version of these inputs, or the one in use where that was deleted, which leaves nothing
        to do; None where there is work.

    Raises:
        CloisterError: the version to be used is damaged; or that of these inputs was deleted, and
            there is no other.
    """
    if retrain:
        return None
    if (deleted := registry.deleted_from(name, inputs_digest)) is not None:
        return registry.open_in_place_of(name, deleted, DELETED)
    published = registry.published_from(name, inputs_digest)
    if published is None:
        return None
    number = published.manifest.version
    in_use = registry.adopt(name, number).manifest.version
    log.info(
        "version %d of %s is trained already; CLOISTER_RETRAIN=true trains another", number, name
    )
    if in_use != number:
        log.info("version %d stays in use (rolled back from %d)", in_use, number)
    return published


def publish(
    registry: Registry,
    card: ModelCard,
    model: Model,
    inputs_digest: str,
    details: dict[str, Any] | None = None,
) -> Version:
    """Publish a model under the name on its card, and put it into use.

    Args:
        registry: of models.
        card: of the model.
        model: its float weights, or its trees.
        inputs_digest: of all that determines it.
        details: what the manifest says besides.

    Raises:
        CloisterError: the model does not fit the card's schema.
        OSError: the volume is full or not writable.
    """
    model.check(card.data)

    def write(folder: Path) -> dict[str, Any]:
        model.write(folder / (TREES if isinstance(model, Trees) else WEIGHTS))
        (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n")
        return details or {}

    return registry.publish(card.name, inputs_digest, write)
