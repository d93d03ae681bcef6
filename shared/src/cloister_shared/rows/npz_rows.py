"""Rows from .npz files."""

from pathlib import Path

from cloister_shared.npz import read_labelled
from cloister_shared.preprocessing import encode
from cloister_shared.rows.checking import InvalidRows, Reading, RowChecker, Rows, block_rows


def read_npz(path: Path, reading: Reading) -> Rows:
    """Read raw features ``X``, shape (n, n_features), and labels ``y``, shape (n,).

    Args:
        path: the file.
        reading: the schema; ``X`` may hold text where features are categories.

    Raises:
        InvalidRows: the arrays do not fit; problems name the row, counted from 0 as numpy does,
            and the column.
        CloisterError: the file is damaged, or has other arrays.
    """
    data = reading.data
    features, labels = read_labelled(path, text=data.has_categories)
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
    checker = RowChecker(path, reading, place="row", capacity=len(features))
    for start in range(0, len(features), block_rows(data)):
        rows = range(len(features))[start : start + block_rows(data)]
        block = slice(rows.start, rows.stop)
        checker.add(encode(features[block], data), labels[block].tolist(), rows)
    return checker.rows()
