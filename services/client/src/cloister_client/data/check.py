"""``python -m cloister_client check``: does a site's folder fit, before it joins."""

import sys
from pathlib import Path

import numpy as np

from cloister_client.data.folder import data_file, read_description, read_rows
from cloister_client.data.shard import split
from cloister_client.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.preprocessing import OutOfBounds
from cloister_shared.rows.checking import PROBLEMS_SHOWN, InvalidRows, Reading, Rows
from cloister_shared.schema import DatasetSchema


def check_folder(settings: Settings, folder: Path | None, out_of_bounds: OutOfBounds) -> None:
    """Write to standard output how many rows of which classes there are, or every problem.

    Counts are data: they go to the terminal of the data's owner, and into no log.

    Args:
        settings: name the columns.
        folder: the site's.
        out_of_bounds: what happens to a value outside its bounds.

    Raises:
        CloisterError: the folder does not fit.
    """
    if folder is None:
        raise CloisterError("name the folder to check, or set CLOISTER_SHARD_DIR")
    data, path = read_description(folder), data_file(folder)
    try:
        rows = read_rows(path, Reading(data, out_of_bounds, settings.columns))
    except InvalidRows as error:
        _say(f"{path} does not fit {data.dataset}:", *(f"  {line}" for line in error.problems))
        count = f"the first {PROBLEMS_SHOWN} problems" if error.more else "all problems"
        raise CloisterError(f"{path} does not fit: {count} are listed above") from None
    _say(*_report(path, data, rows))


def _report(path: Path, data: DatasetSchema, rows: Rows) -> list[str]:
    if data.task == "regression":
        counts = np.ones(1, dtype=np.int64)
        told = [f"  targets from {rows.answers.min()} to {rows.answers.max()}"]
    else:
        counts = np.bincount(rows.answers.astype(np.int64), minlength=len(data.classes))
        told = [f"  {label}: {count}" for label, count in zip(data.classes, counts, strict=True)]
    shard = split(data, rows)
    report = [
        f"{path} fits {data.dataset}: {len(rows.answers)} rows, {data.n_features} features.",
        *told,
        f"Of these, {len(shard.train.answers)} rows are fitted, and models are measured on the "
        f"other {len(shard.validation.answers)}.",
    ]
    if not counts.all():
        report.append(
            "Of the classes without a row this site teaches nothing: they keep what other sites "
            "teach."
        )
    if len(data.classes) == 2 and not counts.all():
        report.append(
            "With a single one of two classes there is nothing to fit: this site only measures."
        )
    return report


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()
