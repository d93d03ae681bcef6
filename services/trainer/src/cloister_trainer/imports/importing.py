"""From a model's file to a published version."""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cloister_shared.card import ModelCard
from cloister_shared.datasets import DATASETS, schema
from cloister_shared.digests import digest_bytes, digest_json
from cloister_shared.links import link
from cloister_shared.measuring import measure
from cloister_shared.registry import Registry
from cloister_shared.rows.checking import Reading
from cloister_shared.schema import DatasetSchema, read_schema
from cloister_trainer.imports.folding import FittedOn, fold, linear_row, parameters
from cloister_trainer.imports.foreign import Foreign
from cloister_trainer.imports.opening import read_model
from cloister_trainer.imports.settings import Settings
from cloister_trainer.local.rows import read_rows
from cloister_trainer.publication import adopted, check_name, final_metrics, publish, told_metrics
from cloister_trainer.suitability import check_accepted, check_compilable

log = logging.getLogger(__name__)

SAID_IN = "the model's parameters"


@dataclass(frozen=True)
class Request:
    """What is to be imported, and as what."""

    path: Path
    schema: str
    """JSON file, or name of a dataset that is known."""
    name: str
    fitted_on: FittedOn = "raw"
    card: Path | None = None
    """Describes the model of an .npz."""
    allow_pickle: bool = False
    rows: Path | None = None
    """Rows that the model is measured on."""


def import_model(settings: Settings, request: Request) -> None:
    """Publish a model that was trained elsewhere, unless the same is published.

    Raises:
        CloisterError: it cannot be read, is not one of the schema, or cannot be served encrypted;
            nothing is published.
    """
    data = _schema(request.schema)
    check_name(request.name, data, "--name ")
    foreign = read_model(request.path, card=request.card, allow_pickle=request.allow_pickle)
    row = linear_row(foreign)
    _tell_version(foreign)
    own = parameters(foreign, row)
    check_compilable(row, own, data, SAID_IN)
    check_accepted(row, own, data, SAID_IN)
    weights = fold(foreign, data, request.fitted_on)
    final = None
    if request.rows is not None:
        rows = read_rows(request.rows, Reading(data, settings.out_of_bounds))
        meaning = link(row.name, own, len(data.classes))
        final = final_metrics(measure(weights, rows.inputs, rows.answers, meaning), data)
        log.info("on %d rows: %s", len(rows.answers), told_metrics(final))
    digest = digest_json(
        {
            "data": data.digest,
            "estimator": row.name,
            "parameters": own,
            "coef": digest_bytes(weights.coef.tobytes()),
            "intercept": digest_bytes(weights.intercept.tobytes()),
            "out_of_bounds": settings.out_of_bounds,
            "final": final and final.model_dump(mode="json"),
        }
    )
    registry = Registry(settings.models_dir)
    if adopted(registry, request.name, digest, retrain=settings.retrain) is not None:
        return
    libraries = {} if foreign.scikit_learn is None else {"scikit-learn": foreign.scikit_learn}
    card = ModelCard(
        name=request.name,
        estimator=row.name,
        parameters=own,
        data=data,
        out_of_bounds=settings.out_of_bounds,
        rounds=(),
        final=final,
        libraries=libraries,
        created=datetime.now(UTC),
    )
    published = publish(registry, card, weights, digest)
    published.verify()
    log.info(
        "published version %d of %s: %s of %d inputs",
        published.manifest.version,
        request.name,
        row.name,
        data.n_inputs,
    )


def _schema(named: str) -> DatasetSchema:
    if not Path(named).exists():
        for name in DATASETS:
            if named == name:
                return schema(name)
    return read_schema(Path(named))


def _tell_version(foreign: Foreign) -> None:
    own = version("scikit-learn")
    if foreign.scikit_learn not in (None, own):
        log.warning(
            "the model was made by scikit-learn %s, and this is %s: what it holds is checked, but "
            "compare some predictions",
            foreign.scikit_learn,
            own,
        )
