"""Rows to deal as raw arrays, checked against their public schema."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import fetch_openml, load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

from cloister_dealer.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.files import given_file
from cloister_shared.npz import read_numbers
from cloister_shared.preprocessing import decode, to_inputs
from cloister_shared.rows.checking import Reading
from cloister_shared.rows.files import kind_by_content, read_file
from cloister_shared.schema import DatasetSchema

MNIST_TRAIN_ROWS = 60_000
"""The canonical split: the first 60,000 rows train, the last 10,000 test."""
MNIST_ROWS = 70_000

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Rows:
    """Raw features, shape (n, n_features), and labels as in the schema's classes, shape (n,)."""

    features: Array
    labels: Array

    def take(self, indices: Array) -> "Rows":
        """Return the rows at ``indices``, in that order."""
        return Rows(self.features[indices], self.labels[indices])


@dataclass(frozen=True)
class Source:
    """Rows for the sites, and rows held out for the key holder."""

    train: Rows
    held_out: Rows


def load_source(settings: Settings, data: DatasetSchema) -> Source:
    """Load rows and split off what is held out, the same for the same seed.

    Args:
        settings: which rows, and how many of them are held out: a share stratified by class, but
            of MNIST by name, which has a canonical split.
        data: the schema that the rows are to fit.

    Raises:
        CloisterError: the rows cannot be had, or do not fit the schema.
    """
    if path := given_file(settings.data_path):
        rows = _own(path, settings, data)
    else:
        rows = _named(settings, data)
        if settings.dataset == "mnist":
            return Source(
                rows.take(np.arange(MNIST_TRAIN_ROWS)),
                rows.take(np.arange(MNIST_TRAIN_ROWS, MNIST_ROWS)),
            )
    # There is no share of each value of a regression's target to be kept.
    stratify = rows.labels if data.task == "classification" else None
    try:
        train, held_out = train_test_split(
            np.arange(len(rows.labels)),
            test_size=settings.held_out_fraction,
            random_state=settings.seed,
            stratify=stratify,
        )
    except ValueError as error:
        raise CloisterError(
            f"CLOISTER_HELD_OUT_FRACTION={settings.held_out_fraction} of {len(rows.labels)} rows "
            f"leaves no row of some class on one side ({error}): move it towards 0.5"
        ) from None
    return Source(rows.take(train), rows.take(held_out))


def _own(path: Path, settings: Settings, data: DatasetSchema) -> Rows:
    """Read the user's own file."""
    reading = Reading(data, settings.out_of_bounds, settings.columns, encoded=True)
    found = read_file(path, kind_by_content(path), reading)
    labels: Array = found.answers
    if data.task == "classification":
        labels = data.labels(found.answers.astype(np.int64))
    return Rows(decode(found.features, data), labels)


def _named(settings: Settings, data: DatasetSchema) -> Rows:
    """Load the rows of a dataset known by name."""
    mnist_path = settings.mnist_path
    rows = _mnist(mnist_path) if settings.dataset == "mnist" else _BUNDLED[settings.dataset]()
    try:
        to_inputs(rows.features, data, settings.out_of_bounds)
        data.answers(rows.labels)
    except CloisterError as error:
        raise CloisterError(
            f"the rows of {settings.dataset} do not fit the schema of {data.dataset} ({error}): "
            "set CLOISTER_DATA_PATH (CLOISTER_DATA_FILE with Compose) to the rows to deal"
        ) from None
    return rows


def _digits() -> Rows:
    data = load_digits()
    return Rows(data.data, data.target)


def _breast_cancer() -> Rows:
    data = load_breast_cancer()
    return Rows(data.data, data.target_names[data.target])


def _diabetes() -> Rows:
    data = load_diabetes(scaled=False)
    return Rows(data.data, data.target)


_BUNDLED: dict[str, Callable[[], Rows]] = {
    "digits": _digits,
    "breast_cancer": _breast_cancer,
    "diabetes": _diabetes,
}
"""Datasets that scikit-learn has in its package."""


def _mnist(path: Path | None) -> Rows:
    # A missing file is a mistake to be told.
    if file := given_file(path):
        return _mnist_file(file)
    log.info("downloading MNIST from OpenML; set MNIST_PATH to an .npz to do without")
    try:
        data = fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff")
    except OSError as error:
        raise CloisterError(
            f"MNIST cannot be downloaded from OpenML ({error}): set MNIST_PATH to an .npz that "
            "holds x_train, y_train, x_test and y_test"
        ) from None
    return Rows(data.data.astype(np.uint8), data.target.astype(np.int64))


def _mnist_file(path: Path) -> Rows:
    try:
        arrays = read_numbers(path, ("x_train", "y_train", "x_test", "y_test"))
    except CloisterError as error:
        raise CloisterError(f"MNIST_PATH cannot be used: {error}") from None
    features, labels = [], []
    for part, rows in (("train", MNIST_TRAIN_ROWS), ("test", MNIST_ROWS - MNIST_TRAIN_ROWS)):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.shape not in ((rows, 28, 28), (rows, 784)) or y.shape != (rows,):
            raise CloisterError(
                f"MNIST_PATH {path} cannot be used: x_{part} has shape {x.shape} and y_{part} "
                f"{y.shape}; they must be ({rows}, 28, 28) and ({rows},)"
            )
        features.append(x.reshape(rows, 784))
        labels.append(y.astype(np.int64))
    return Rows(np.concatenate(features), np.concatenate(labels))
