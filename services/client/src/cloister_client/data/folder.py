"""A site's folder: its schema, and one file of rows."""

from pathlib import Path

from cloister_shared.errors import CloisterError
from cloister_shared.rows.checking import InvalidRows, Reading, Rows
from cloister_shared.rows.files import CSV, NPZ, PARQUET, kind_by_name, read_file, readable
from cloister_shared.samples import SCHEMA, SHARD
from cloister_shared.schema import DatasetSchema, read_schema


def read_description(folder: Path) -> DatasetSchema:
    """Read the schema in a site's folder.

    Raises:
        CloisterError: it is missing, damaged or not to be read.
    """
    with readable(folder / SCHEMA):
        return read_schema(folder / SCHEMA)


def data_file(folder: Path) -> Path:
    """Return the file with the rows in a site's folder.

    Raises:
        CloisterError: there is none, or more than one; the message lists what is there.
    """
    with readable(folder):
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    found = [name for name in names if name == SHARD or kind_by_name(name) in (CSV, PARQUET)]
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise CloisterError(f"{folder} has several files of rows, {', '.join(found)}: leave one")
    raise CloisterError(
        f"{folder} has no file of rows: put {SHARD}, or one file that ends in {CSV} or {PARQUET}, "
        f"there; it holds {', '.join(names) or 'nothing'}"
    )


def read_rows(path: Path, reading: Reading) -> Rows:
    """Read all rows of a file that :func:`data_file` found.

    Raises:
        InvalidRows: with all that is wrong, or the first 20 problems.
        CloisterError: the file is damaged or not to be read.
    """
    try:
        return read_file(path, kind_by_name(path.name) or NPZ, reading)
    except InvalidRows as error:
        hint = f"`python -m cloister_client check {path.parent}` lists them"
        raise InvalidRows(path, error.problems, more=error.more, hint=hint) from None
