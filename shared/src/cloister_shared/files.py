"""Files that appear whole or not at all."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file aside, sync it, rename it into place, and sync its folder.

    One process at a time may write to a path; what one that was killed left aside is overwritten.

    Args:
        path: where it goes; its folder is made where it is missing.
        content: all of it.
        mode: its permissions, before the umask.

    Raises:
        OSError: the volume is full or not writable; what was at ``path`` is still there, unless
            it is the folder that could not be synced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Put a file's content, or a folder's entries, onto the disk.

    Raises:
        OSError: the volume is full or broken.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process or thread at a time change the file at ``path``; the others wait.

    Raises:
        OSError: its folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file of its own: the other one is replaced with each change.
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def given_file(path: Path | None) -> Path | None:
    """Return the path of a file that a user may leave out.

    A file that is mounted cannot be left out: the null device stands for none.
    """
    return None if path is None or path.is_char_device() else path
