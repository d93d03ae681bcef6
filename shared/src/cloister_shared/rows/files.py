"""One file of rows, read by the kind that its name or its first bytes say."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal, get_args

from cloister_shared.errors import CloisterError
from cloister_shared.rows.checking import Reading, Rows
from cloister_shared.rows.csv_rows import read_csv
from cloister_shared.rows.npz_rows import read_npz

Kind = Literal[".csv", ".parquet", ".npz"]
CSV: Final = ".csv"
PARQUET: Final = ".parquet"
NPZ: Final = ".npz"
KINDS: tuple[Kind, ...] = get_args(Kind)


def kind_by_name(name: str) -> Kind | None:
    """Return the kind that a file's name says, or None."""
    suffix = Path(name).suffix.lower()
    return next((kind for kind in KINDS if suffix == kind), None)


def kind_by_content(path: Path) -> Kind:
    """Return the kind that a file's first bytes say, whatever its name: text is taken for CSV.

    Raises:
        CloisterError: the file cannot be read.
    """
    with readable(path), path.open("rb") as stream:
        start = stream.read(4)
    if start == b"PAR1":
        return PARQUET
    return NPZ if start == b"PK\x03\x04" else CSV


def read_file(path: Path, kind: Kind, reading: Reading) -> Rows:
    """Read all rows of a file.

    Raises:
        InvalidRows: with all that is wrong, or the first 20 problems.
        CloisterError: the file is damaged or not to be read, or of a kind that cannot be read here.
    """
    with readable(path):
        return _read(path, kind, reading)


def _read(path: Path, kind: Kind, reading: Reading) -> Rows:
    if kind == CSV:
        return read_csv(path, reading)
    if kind == NPZ:
        return read_npz(path, reading)
    try:
        # pyarrow is large, and needed by those alone who have such a file.
        from cloister_shared.rows.parquet_rows import read_parquet  # noqa: PLC0415
    except ModuleNotFoundError:
        raise CloisterError(
            f"{path} is a Parquet file, and pyarrow is not installed here: install it, or write "
            "the rows as CSV"
        ) from None
    return read_parquet(path, reading)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Tell what cannot be opened or read, and what that needs.

    Raises:
        CloisterError: in the place of ``OSError``.
    """
    try:
        yield
    except OSError as error:
        raise CloisterError(
            f"{path} cannot be read ({error.strerror}): it must be there, and readable for the "
            f"user of this process, whose number is {os.getuid()}"
        ) from None
