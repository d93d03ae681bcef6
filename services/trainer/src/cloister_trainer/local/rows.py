"""The rows of a local training: read, checked against the schema, and split."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

from cloister_shared.errors import CloisterError
from cloister_shared.links import Floats
from cloister_shared.rows.checking import Reading
from cloister_shared.rows.files import kind_by_content, read_file
from cloister_shared.schema import Answers, DatasetSchema


@dataclass(frozen=True)
class Rows:
    """Rows of one schema."""

    inputs: Floats
    """In [0, 1], shape (n, n_inputs)."""
    answers: Answers
    """Positions of classes, or targets, shape (n,)."""

    def take(self, indices: npt.NDArray[np.int64]) -> "Rows":
        """Return the rows at ``indices``, in that order."""
        return Rows(self.inputs[indices], self.answers[indices])


def read_rows(path: Path, reading: Reading) -> Rows:
    """Read all rows of a CSV, Parquet or .npz file, which its content tells.

    Args:
        path: the file.
        reading: the schema of the rows, and what is said of the file.

    Raises:
        CloisterError: the file is missing or damaged, or a value or label is not in the schema.
            The message names row and column, and never a value.
    """
    found = read_file(path, kind_by_content(path), reading)
    return Rows(found.features, found.answers)


def split(rows: Rows, data: DatasetSchema, share: float, seed: int) -> tuple[Rows, Rows]:
    """Split into rows to fit and rows to measure on, with each class's share in both.

    Args:
        rows: all there are.
        data: their schema.
        share: of the rows, to measure on.
        seed: equal seeds give equal splits.

    Raises:
        CloisterError: there are too few rows, in all or of a class.
    """
    _check_classes(rows, data, 2, "bring rows of it,")
    least = max(len(data.classes), 1)
    n_measured = max(round(share * len(rows.answers)), least)
    if len(rows.answers) - n_measured < max(least, 2):
        raise CloisterError(
            f"of {len(rows.answers)} rows {n_measured} would be kept to measure on, and too few "
            "left to fit: lower CLOISTER_VALIDATION_SHARE, or bring more rows"
        )
    strata = rows.answers if data.classes else None
    inputs, measured, answers, expected = train_test_split(
        rows.inputs, rows.answers, test_size=n_measured, random_state=seed, stratify=strata
    )
    fitted = Rows(inputs, answers)
    _check_classes(fitted, data, 1, "lower CLOISTER_VALIDATION_SHARE, bring more rows of it,")
    return fitted, Rows(measured, expected)


def check_folds(rows: Rows, data: DatasetSchema, folds: int) -> None:
    """Raise unless every class, or a regression, has a row for each fold.

    Raises:
        CloisterError: naming the class that has too few.
    """
    if len(rows.answers) < folds:
        raise CloisterError(
            f"there are {len(rows.answers)} rows to fit: lower CLOISTER_FOLDS, {folds}, or bring "
            "more rows"
        )
    _check_classes(rows, data, folds, f"lower CLOISTER_FOLDS, {folds},")


def splitter(data: DatasetSchema, folds: int, seed: int) -> StratifiedKFold | KFold:
    """Return what splits rows into folds, with each class's share in all of them.

    Args:
        data: the schema of the rows.
        folds: parts, each to be predicted by a fit of the others.
        seed: equal seeds give equal splits.
    """
    kind = StratifiedKFold if data.classes else KFold
    return kind(folds, shuffle=True, random_state=seed)


def _check_classes(rows: Rows, data: DatasetSchema, needed: int, advice: str) -> None:
    if not data.classes:
        return
    counts = np.bincount(rows.answers.astype(np.int64), minlength=len(data.classes))
    rarest = int(np.argmin(counts))
    if counts[rarest] < needed:
        raise CloisterError(
            f"class {data.classes[rarest]} has {counts[rarest]} rows to fit, and {needed} are "
            f"needed: {advice} or take the class out of the schema"
        )
