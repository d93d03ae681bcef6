"""A site's rows, as its ClientApp uses them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError
from cloister_shared.samples import FEATURES, LABELS, SCHEMA, SHARD
from cloister_shared.scaling import OutOfBounds, to_unit
from cloister_shared.schema import DatasetSchema, read_schema

VALIDATION_SHARE = 0.1
VALIDATION_SEED = 0
"""The split is the same in every round and every process, so that no fitted row validates."""


@dataclass(frozen=True)
class Sample:
    """Features in [0, 1], shape (n, n_features), and class positions, shape (n,)."""

    features: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shard:
    """The rows of one site, split into those it fits and those it validates on."""

    data: DatasetSchema
    train: Sample
    validation: Sample


def read_shard(folder: Path, out_of_bounds: OutOfBounds) -> Shard:
    """Read ``shard.npz`` (raw features X, labels y) and ``schema.json``, and split the rows.

    Raises:
        CloisterError: a file is missing or damaged, or a value or label is not in the schema.
    """
    data = read_schema(folder / SCHEMA)
    path = folder / SHARD
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features, labels = arrays[FEATURES], arrays[LABELS]
    except Exception as error:  # noqa: BLE001 - numpy and zipfile name no closed set of errors
        raise CloisterError(f"{path} must be an .npz with arrays X and y: {error}") from None
    unit, classes = to_unit(features, data, out_of_bounds), data.class_indices(labels)
    if len(unit) != len(classes) or len(classes) < 2:
        raise CloisterError(
            f"{path} has {len(unit)} rows of features and {len(classes)} labels; a site needs at "
            "least two rows and a label for each"
        )
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(classes))
    n_validation = max(1, round(VALIDATION_SHARE * len(classes)))
    validation, train = order[:n_validation], order[n_validation:]
    return Shard(
        data,
        train=Sample(unit[train], classes[train]),
        validation=Sample(unit[validation], classes[validation]),
    )
