"""What a message asks of a site, whichever of Flower's interfaces it came through."""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from cloister_client.data import kept
from cloister_client.data.shard import Shard
from cloister_client.site import Site
from cloister_client.training.fitting import Task
from cloister_shared import flower
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import federated_estimator
from cloister_shared.models import Model, check_exchanged
from cloister_shared.preprocessing import OutOfBounds
from cloister_shared.standardising import Standardisation

log = logging.getLogger(__name__)


def task_of(config: Mapping[str, Any]) -> Task:
    """Return what is to be trained.

    Raises:
        CloisterError: the estimator is not one that sites train, or a value is none.
        KeyError: a value is missing.
    """
    norm = config.get(flower.CLIPPING_NORM)
    if norm is not None and not (isinstance(norm, float) and math.isfinite(norm) and norm > 0):
        raise CloisterError(f"{flower.CLIPPING_NORM} is not a positive number")
    row = federated_estimator(str(config[flower.ESTIMATOR]))
    if row.aggregation == "bagging" and (norm is not None or not reports(config)):
        raise CloisterError(f"what trees of a {row.name} tell of rows is not bounded by clipping")
    return Task(
        estimator=row,
        parameters=json.loads(str(config[flower.PARAMETERS])),
        clipping_norm=norm,
        report=reports(config),
    )


def reports(config: Mapping[str, Any]) -> bool:
    """Return whether the site tells its number of rows and its metrics; unstated, it does."""
    return bool(config.get(flower.REPORT, True))


def read_inputs(
    config: Mapping[str, Any], node_config: Mapping[str, object], received: Model
) -> Shard:
    """Return the site's shard as it is fitted: standardised, where the run says by what.

    Raises:
        CloisterError: the shard cannot be read, or the run, its weights or its standardisation are
            for another schema.
    """
    shard = matching_shard(config, node_config)
    check_exchanged(received, shard.data)
    stated = config.get(flower.STANDARDISATION)
    if stated is None:
        return shard
    return shard.standardised(Standardisation.parse(str(stated)))


def matching_shard(config: Mapping[str, Any], node_config: Mapping[str, object]) -> Shard:
    """Return the site's shard, after checking that the run is for such data.

    Raises:
        CloisterError: the shard cannot be read, or the run is for another schema.
    """
    site = Site.of(node_config)
    out_of_bounds = cast("OutOfBounds", config[flower.OUT_OF_BOUNDS])
    shard = kept.SHARD.get(site.shard_dir, out_of_bounds, site.columns)
    if shard.data.digest != config[flower.SCHEMA_DIGEST]:
        raise CloisterError(
            f"this site's data is {shard.data.dataset}, described by another schema than the "
            "run's: give trainer and dealer, or site, the same dataset"
        )
    return shard


@contextmanager
def discreet(config: Mapping[str, Any]) -> Iterator[None]:
    """Keep to the site why something failed, where the run says that sites report nothing.

    An error's text can come from the rows. Where the epsilon of differential privacy is to count
    whatever leaves, it stays in the site's own log.

    Raises:
        CloisterError: without a reason, in the place of whatever error there was.
    """
    try:
        yield
    except Exception:
        if reports(config):
            raise
        log.exception("this round is not answered; the trainer is not told why")
        raise CloisterError("the site could not answer; its own log says why") from None
