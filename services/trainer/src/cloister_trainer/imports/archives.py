"""Zip archives from others: read within bounds, never unpickled."""

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from cloister_shared.errors import CloisterError

LARGEST_BYTES = 1 << 28
"""Of all that an archive unpacks to: 32 million weights."""
ARRAY = ".npy"


class Archive:
    """An open archive."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._path = path
        self._archive = archive
        # One copy, however often the rest of the archive names it.
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    @property
    def names(self) -> list[str]:
        """Of all files in it."""
        return self._archive.namelist()

    def read(self, name: str) -> bytes:
        """Return a file's content.

        Raises:
            CloisterError: there is none of this name, or it is damaged.
        """
        try:
            return self._archive.read(name)
        except KeyError:
            raise CloisterError(f"{self._path} is damaged: it has no file {name}") from None
        except Exception as error:  # noqa: BLE001 - zipfile and zlib name no closed set of errors
            raise CloisterError(f"{self._path} is damaged: {name}: {error}") from None

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return an array that is as large as its file.

        Raises:
            CloisterError: there is none of this name, it is damaged, or it holds objects, which
                are pickled.
        """
        if name not in self._arrays:
            self._arrays[name] = self._array(name)
        return self._arrays[name]

    def _array(self, name: str) -> npt.NDArray[Any]:
        content = self.read(name)
        stream = io.BytesIO(content)
        try:
            shape, dtype = _header(stream)
            # What only claims to be large would be allocated before it is read.
            if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
                raise ValueError(f"its content is no array of {dtype}, shape {shape}")
            stream.seek(0)
            found: npt.NDArray[Any] = np.load(stream, allow_pickle=False)
        except Exception as error:  # noqa: BLE001 - numpy names no closed set of errors
            raise CloisterError(f"{self._path} is damaged: {name}: {error}") from None
        return found


def _header(stream: io.BytesIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"version {version} of the format is unknown")
    shape, _, dtype = cast("Any", read)(stream)
    return shape, dtype


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open an archive.

    Raises:
        CloisterError: it is damaged, or would unpack to more than it may.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError) as error:
        raise CloisterError(f"{path} is damaged: {error}") from None
    with archive:
        total = sum(info.file_size for info in archive.infolist())
        if total > LARGEST_BYTES:
            raise CloisterError(
                f"{path} would unpack to {total:,} bytes, and no model needs more than "
                f"{LARGEST_BYTES:,}"
            )
        yield Archive(path, archive)
