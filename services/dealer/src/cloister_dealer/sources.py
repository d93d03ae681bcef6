"""Datasets by name as raw arrays, checked against their public schema."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import fetch_openml, load_breast_cancer, load_diabetes, load_digits
from sklearn.model_selection import train_test_split

from cloister_shared.datasets import DatasetName, schema
from cloister_shared.errors import CloisterError
from cloister_shared.npz import read_numbers
from cloister_shared.preprocessing import to_inputs

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


def load_source(
    name: DatasetName, *, mnist_path: Path | None, held_out_fraction: float, seed: int
) -> Source:
    """Load a dataset and split off what is held out, the same for the same seed.

    Args:
        name: which dataset.
        mnist_path: an .npz with MNIST; None, or a device, fetches it from OpenML.
        held_out_fraction: share of the rows held out, stratified by class; not used for MNIST,
            which has a canonical split.
        seed: of the split.

    Raises:
        CloisterError: the data cannot be had, or lies outside the declared bounds.
    """
    description = schema(name)
    if name == "mnist":
        rows = _mnist(mnist_path)
        source = Source(
            rows.take(np.arange(MNIST_TRAIN_ROWS)),
            rows.take(np.arange(MNIST_TRAIN_ROWS, MNIST_ROWS)),
        )
    else:
        rows = _BUNDLED[name]()
        # There is no share of each value of a regression's target to be kept.
        stratify = rows.labels if description.task == "classification" else None
        try:
            train, held_out = train_test_split(
                np.arange(len(rows.labels)),
                test_size=held_out_fraction,
                random_state=seed,
                stratify=stratify,
            )
        except ValueError as error:
            raise CloisterError(
                f"CLOISTER_HELD_OUT_FRACTION={held_out_fraction} of {len(rows.labels)} rows leaves "
                f"no row of some class on one side ({error}): move it towards 0.5"
            ) from None
        source = Source(rows.take(train), rows.take(held_out))
    to_inputs(rows.features, description)
    description.answers(rows.labels)
    return source


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
    # The null device, mounted, stands for "none"; a missing file is a mistake to be told.
    if path is not None and not path.is_char_device():
        return _mnist_file(path)
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
