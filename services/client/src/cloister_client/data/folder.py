"""A site's folder: its schema, and one file of rows."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cloister_client.data.npz_rows import read_npz
from cloister_client.data.rows import Columns, Rows
from cloister_shared.errors import CloisterError
from cloister_shared.samples import SCHEMA, SHARD
from cloister_shared.scaling import OutOfBounds
from cloister_shared.schema import DatasetSchema, read_schema

CSV = ".csv"
PARQUET = ".parquet"


def read_description(folder: Path) -> DatasetSchema:
    """Read the schema in a site's folder.

    Raises:
        CloisterError: it is missing, damaged or not to be read.
    """
    with _readable(folder / SCHEMA):
        return read_schema(folder / SCHEMA)


def data_file(folder: Path) -> Path:
    """Return the file with the rows in a site's folder.

    Raises:
        CloisterError: there is none, or more than one; the message lists what is there.
    """
    with _readable(folder):
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    found = [name for name in names if name == SHARD or _suffix(name) in (CSV, PARQUET)]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise CloisterError(f"{folder} has several files of rows, {', '.join(found)}: leave one")
    raise CloisterError(
        f"{folder} has no file of rows: put {SHARD}, or one file that ends in {CSV} or {PARQUET}, "
        f"there; it holds {', '.join(names) or 'nothing'}"
    )


def read_rows(
    path: Path, data: DatasetSchema, out_of_bounds: OutOfBounds, columns: Columns | None = None
) -> Rows:
    """Read all rows of a file that :func:`data_file` found.

    Raises:
        InvalidRows: with all that is wrong, or the first 20 problems.
        CloisterError: the file is damaged or not to be read.
    """
    columns = columns or Columns()
    with _readable(path):
        # pyarrow is large, and needed by sites alone that have such a file.
        if _suffix(path.name) == CSV:
            from cloister_client.data.csv_rows import read_csv  # noqa: PLC0415

            return read_csv(path, data, out_of_bounds, columns)
        if _suffix(path.name) == PARQUET:
            from cloister_client.data.parquet_rows import read_parquet  # noqa: PLC0415

            return read_parquet(path, data, out_of_bounds, columns)
        return read_npz(path, data, out_of_bounds)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CloisterError(
            f"{path} cannot be read ({error.strerror}): it must be there, and readable for the "
            f"user of this process, whose number is {os.getuid()}"
        ) from None


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()
