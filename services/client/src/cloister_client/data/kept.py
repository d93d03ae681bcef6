"""A shard that is read once, for this process and all that are forked from it."""

from contextlib import suppress
from pathlib import Path

from cloister_client.data.folder import data_file
from cloister_client.data.shard import Shard, read_shard
from cloister_shared.errors import CloisterError
from cloister_shared.preprocessing import OutOfBounds
from cloister_shared.rows.checking import Columns
from cloister_shared.samples import SCHEMA

_Key = tuple[Columns, tuple[tuple[Path, int, int, int], ...]]
"""What a shard was read from: path, inode, size and time of change in nanoseconds of each file."""


class KeptShard:
    """The shard that was read last, for as long as its files are the same."""

    def __init__(self) -> None:
        self._key: _Key | None = None
        self._shard: Shard | None = None

    def keep(self, folder: Path, columns: Columns) -> None:
        """Read a site's folder, unless that was done; what cannot be kept is left to ``get``.

        Only rows whose values are all within their bounds are kept: they are the same whatever is
        to happen to others.
        """
        try:
            key = _key(folder, columns)
            if key == self._key:
                return
            # The memory of the one is needed for the other.
            self._key, self._shard = key, None
            self._shard = read_shard(folder, "refuse", columns)
        except (CloisterError, OSError, MemoryError):
            return

    def get(self, folder: Path, out_of_bounds: OutOfBounds, columns: Columns) -> Shard:
        """Return the shard, read anew unless it is kept; see ``read_shard``."""
        if self._shard is not None and self._is_kept(folder, columns):
            return self._shard
        return read_shard(folder, out_of_bounds, columns)

    def forget_unless_same(self, folder: Path, columns: Columns) -> None:
        """Free the memory of a shard that is not this one any more."""
        if not self._is_kept(folder, columns):
            self._key, self._shard = None, None

    def _is_kept(self, folder: Path, columns: Columns) -> bool:
        with suppress(CloisterError, OSError):
            return self._key == _key(folder, columns)
        return False


def _key(folder: Path, columns: Columns) -> _Key:
    files = [folder / SCHEMA, data_file(folder)]
    found = [(path, path.stat()) for path in files]
    return columns, tuple((path, s.st_ino, s.st_size, s.st_mtime_ns) for path, s in found)


SHARD = KeptShard()
"""This process's."""
