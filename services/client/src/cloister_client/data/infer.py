"""``python -m cloister_client infer``: a schema to begin with, guessed from a sample."""

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cloister_client.data.sample import Table, read_sample
from cloister_shared.cells import is_missing, to_number
from cloister_shared.errors import CloisterError
from cloister_shared.estimators import Task
from cloister_shared.files import write_atomically
from cloister_shared.samples import LABELS
from cloister_shared.schema import Category, DatasetSchema, Feature, Label, Target

MAX_CATEGORIES = 20
"""Different texts up to which a column is taken for a category, and labels for classes."""
CODES = 10
"""Different whole numbers up to which they may be codes."""
MIN_REPEATS = 2
"""Rows a category needs on average; a text column with fewer is taken for an identifier."""
USUAL_LABELS = ("label", LABELS)
"""Of columns in tables, and of an .npz file."""
_IDENTIFIER = re.compile(r"(.*[_ .-])?(id|uuid|key|index|number|nr)", re.IGNORECASE)

Floats = npt.NDArray[np.float64]

NOTICE = """\
This is a guess, to be checked by hand before anyone trains with it:
- Bounds are rounded outwards from the sample. Set them to what is known of each quantity: a row
  outside them is refused, or clipped, at every site and at the key holder.
- Whole numbers that are codes are categories: give their list as "categories" in the place of low
  and high.
- A missing value is refused, unless a feature has a "missing" that stands for it.
"""


@dataclass(frozen=True)
class Guess:
    """A schema, and what was seen in each column."""

    schema: DatasetSchema
    seen: dict[str, str]


def infer_file(
    path: Path, label: str | None, task: Task | None, name: str, output: Path | None, *, force: bool
) -> None:
    """Write a guessed schema to a file or to standard output, and to standard error why.

    Args:
        path: a CSV, Parquet or .npz file with a sample of the rows.
        label: column with the labels or targets; None for the usual name.
        task: what they are; None to guess that too.
        name: of the dataset.
        output: a file to make; None for standard output.
        force: overwrite it.

    Raises:
        CloisterError: the file cannot be read, nothing can be guessed from it, or the output is
            there already.
    """
    if output and output.exists() and not force:
        raise CloisterError(f"{output} is there already: give --force to overwrite it")
    table = read_sample(path)
    guess = infer(table, label or _usual_label(table), task, name)
    width = max(map(len, guess.seen))
    lines = [f"  {column:{width}}  {what}" for column, what in guess.seen.items()]
    sys.stderr.write("\n".join([f"{path}:", *lines, "", NOTICE]))
    text = guess.schema.model_dump_json(exclude_defaults=True, indent=2) + "\n"
    if output:
        write_atomically(output, text.encode())
    else:
        sys.stdout.write(text)
        sys.stdout.flush()


def _usual_label(table: Table) -> str:
    return next((name for name in USUAL_LABELS if name in table), USUAL_LABELS[0])


def infer(table: Table, label: str, task: Task | None, name: str) -> Guess:
    """Guess the schema of a table.

    Args:
        table: cells of its columns.
        label: which of these has the labels or targets.
        task: classification or regression; None to tell by the labels.
        name: of the dataset.

    Raises:
        CloisterError: there is no such column, it says nothing, or no column is a feature.
    """
    if label not in table:
        raise CloisterError(
            f"there is no column {label!r}: name the column of the labels with --label; there are "
            f"{', '.join(map(repr, table))}"
        )
    seen: dict[str, str] = {}
    features: list[Feature | Category] = []
    for column, cells in table.items():
        if column == label:
            continue
        feature, seen[column] = _feature(column, cells)
        if feature:
            features.append(feature)
    if not features:
        raise CloisterError("no column can be a feature: " + "; ".join(seen.values()))
    answers, seen[label] = _answers(label, table[label], task)
    return Guess(
        DatasetSchema(dataset=name, features=tuple(features), label=label, **answers), seen
    )


def _feature(name: str, cells: Sequence[Any]) -> tuple[Feature | Category | None, str]:
    """Return what a column is taken for, if for a feature, and why."""
    there = [cell for cell in cells if not is_missing(cell)]
    if len({str(cell).strip() for cell in there}) < 2:
        return None, f"left out: it {'has one value only' if there else 'is empty'}"
    numbers = _numbers(there)
    feature, what = _category(name, there) if numbers is None else _quantity(name, numbers)
    if feature and len(there) < len(cells):
        what += f"; {len(cells) - len(there)} of {len(cells)} rows lack it"
    return feature, what


def _category(name: str, cells: Sequence[Any]) -> tuple[Category | None, str]:
    labels = sorted({str(cell).strip() for cell in cells})
    if len(labels) > MAX_CATEGORIES or len(cells) < MIN_REPEATS * len(labels):
        return None, "left out: text that hardly repeats, as identifiers and notes do"
    return (
        Category(name=name, categories=tuple(map(_label, labels))),
        f"text of {len(labels)} kinds: a category",
    )


def _quantity(name: str, numbers: Floats) -> tuple[Feature | None, str]:
    whole = bool((numbers == np.rint(numbers)).all())
    kinds = len(np.unique(numbers))
    if kinds == 1:
        return None, "left out: it has one value only"
    counted = kinds > MAX_CATEGORIES and np.ptp(numbers) < len(numbers)
    if whole and kinds == len(numbers) and (counted or _IDENTIFIER.fullmatch(name)):
        return None, "left out: whole numbers that never repeat, as identifiers do"
    low, high = _bounds(numbers, whole=whole)
    codes = f" of {kinds} kinds, a category if they are codes" * (whole and kinds <= CODES)
    what = f"{'whole ' if whole else ''}numbers{codes}: bounds {low:g} to {high:g}"
    return Feature(name=name, low=low, high=high), what


def _answers(name: str, cells: Sequence[Any], task: Task | None) -> tuple[dict[str, Any], str]:
    """Return what a schema says of its labels, and why."""
    there = [cell for cell in cells if not is_missing(cell)]
    numbers = _numbers(there) if there else None
    labels = sorted({str(_label(cell)) for cell in there})
    if task is None:
        whole = numbers is None or (numbers == np.rint(numbers)).all()
        few = whole and len(labels) <= MAX_CATEGORIES
        task = "classification" if few or numbers is None else "regression"
    if task == "regression":
        if numbers is None or numbers.min() == numbers.max():
            raise CloisterError(f"{name!r} has no different numbers: it is no target")
        low, high = _bounds(numbers, whole=False)
        return (
            {"task": "regression", "target": Target(low=low, high=high)},
            f"the target, bounds {low:g} to {high:g}",
        )
    if len(labels) < 2 or (numbers is None and len(there) < MIN_REPEATS * len(labels)):
        raise CloisterError(
            f"{name!r} has {len(labels)} different labels in {len(there)} rows: it cannot be the "
            "classes; name the column of the labels with --label"
        )
    classes: list[Label] = [_label(label) for label in labels]
    if all(isinstance(label, int) for label in classes):
        classes.sort(key=int)
    return {"classes": tuple(classes)}, f"the label, {len(classes)} classes"


def _numbers(cells: Sequence[Any]) -> Floats | None:
    """Return the cells as finite numbers, or None where one is something else."""
    found = np.array([to_number(cell) for cell in cells], dtype=np.float64)
    return found if np.isfinite(found).all() else None


def _label(cell: Any) -> Label:
    """Return a label as a schema has it: a whole number where it is one."""
    if isinstance(cell, float | Decimal) and cell == int(cell):
        return int(cell)
    text = str(cell).strip()
    return int(text) if re.fullmatch(r"-?(0|[1-9][0-9]*)", text) else text


def _bounds(numbers: Floats, *, whole: bool) -> tuple[float, float]:
    """Round outwards, to two digits of the range and beyond, so that no row's value is told.

    What is never negative keeps 0 as its low; whole numbers have whole bounds.
    """
    least, most = float(numbers.min()), float(numbers.max())
    exponent = math.floor(math.log10(most - least)) - 1
    step = 10.0 ** (max(exponent, 0) if whole else exponent)
    low, high = math.floor(least / step) - 1, math.ceil(most / step) + 1
    if least >= 0:
        low = max(low, 0)
    digits = max(-exponent, 0)
    return round(low * step, digits), round(high * step, digits)
