"""Rows from .npz files."""

from pathlib import Path

import numpy as np

from cloister_client.data.rows import InvalidRows, RowChecker, Rows, block_rows
from cloister_shared.npz import read_labelled
from cloister_shared.scaling import OutOfBounds
from cloister_shared.schema import DatasetSchema


def read_npz(path: Path, data: DatasetSchema, out_of_bounds: OutOfBounds) -> Rows:
    """Read raw features ``X``, shape (n, n_features), and labels ``y``, shape (n,).

    Args:
        path: the file.
        data: the schema.
        out_of_bounds: what happens to a value outside its bounds.

    Raises:
        InvalidRows: the arrays do not fit; problems name the row, counted from 0 as numpy does,
            and the column.
        CloisterError: the file is damaged, or has other arrays.
    """
    features, labels = read_labelled(path)
    if features.ndim != 2 or features.shape[1] != data.n_features:
        raise InvalidRows(
            path, [f"X has shape {features.shape}; {data.dataset} needs (n, {data.n_features})"]
        )
    if labels.ndim != 1:
        raise InvalidRows(path, [f"y has shape {labels.shape}; it must be one column, shape (n,)"])
    if len(features) != len(labels):
        raise InvalidRows(
            path,
            [
                f"it has {len(features)} rows of features and {len(labels)} labels; each row needs "
                "a label"
            ],
        )
    checker = RowChecker(path, data, out_of_bounds, place="row", capacity=len(features))
    for start in range(0, len(features), block_rows(data)):
        rows = range(len(features))[start : start + block_rows(data)]
        block = slice(rows.start, rows.stop)
        checker.add(features[block].astype(np.float64), labels[block].tolist(), rows)
    return checker.rows()
