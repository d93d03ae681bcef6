"""Evaluation keys on a volume that all replicas of the service share.

Layout: ``content/<sha256>`` holds a set of keys once, whoever uploaded it;
``owners/<id>/<sha256>.json`` says that an owner has it and for which client.zip, where ``<id>`` is
the SHA-256 of the owner's name; the modification time of that file is when the keys were last
used. ``owners/<id>/<uuid>.upload`` is an upload in progress, locked by the process that receives it
and of its final size from the start, so that a full disk shows at once and quotas count it.

What is on the volume is the truth, read each time. Every change of what is there takes the one
lock of the store for the moment that it lasts; a process that dies lets go of its locks.
"""

import errno
import fcntl
import hashlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cloister_inference.problems import (
    InsufficientStorageError,
    OtherClientError,
    UnavailableError,
)
from cloister_shared.digests import digest_bytes
from cloister_shared.files import sync, write_atomically

MODE = 0o600
FOLDER_MODE = 0o700
TOUCH_SECONDS = 3600.0
"""How old the time of last use may grow before it is written anew."""
FULL = (errno.ENOSPC, errno.EDQUOT)
_RECORD, _UPLOAD = ".json", ".upload"

log = logging.getLogger(__name__)


class KeyRecord(BaseModel):
    """That an owner has a set of evaluation keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    owner: str
    client_digest: str
    """SHA-256 of the client.zip that they were made with."""
    bytes: int
    created: datetime


@dataclass(frozen=True)
class Held:
    """A set of evaluation keys that an owner has."""

    record: KeyRecord
    used: datetime
    """When it was uploaded or last used, with a tolerance of ``TOUCH_SECONDS``."""


class Upload:
    """A set of evaluation keys on its way to the store; ``discard`` unless it is committed."""

    def __init__(self, path: Path, descriptor: int, length: int) -> None:
        self.path = path
        self._stream = os.fdopen(descriptor, "wb")
        self._length = length
        self._hash = hashlib.sha256()
        self.received = 0

    def write(self, chunk: bytes) -> None:
        """Append to the file.

        Raises:
            InsufficientStorageError: the disk is full.
        """
        if self.received + len(chunk) > self._length:
            raise ValueError(f"more than the {self._length} bytes that were announced")
        with _storage():
            self._stream.write(chunk)
        self._hash.update(chunk)
        self.received += len(chunk)

    def finish(self) -> str:
        """Put what was written onto the disk, and return its SHA-256.

        Raises:
            InsufficientStorageError: the disk is full.
        """
        with _storage():
            self._stream.flush()
            os.fsync(self._stream.fileno())
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Remove the file, unless it was committed, and let go of its lock."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        # A full disk shows again when what is buffered is written.
        with suppress(OSError):
            self._stream.close()


class EvaluationKeyStore:
    """The evaluation keys of all owners.

    May be used from any number of threads and processes; its calls read and write files. Digests
    must be 64 hex digits.
    """

    def __init__(
        self,
        root: Path,
        *,
        quota_bytes: int,
        days: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep keys under a folder, which is made when the first arrive.

        Args:
            root: on a volume that all replicas mount.
            quota_bytes: that the keys of one owner may have together, uploads in progress included.
            days: since their last use after which keys are removed.
            clock: seconds since the epoch.
        """
        self._root = root
        self._content = root / "content"
        self._owners = root / "owners"
        self._quota_bytes = quota_bytes
        self._seconds = days * 86400
        self._clock = clock

    def path(self, digest: str) -> Path:
        """Where the set with this digest lies, if it does."""
        return self._content / digest

    def find(self, owner: str, digest: str) -> Held | None:
        """Return what is known of an owner's keys, or None where the owner has no such keys.

        Raises:
            UnavailableError: the store cannot be read.
        """
        path = self._record(owner, digest)
        with _storage(), suppress(FileNotFoundError):
            used = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            try:
                record = KeyRecord.model_validate_json(path.read_bytes())
            except ValidationError:
                log.error("%s is damaged: the keys must be uploaded again", path)
                return None
            if record.owner == owner and self.path(digest).exists():
                return Held(record, used)
        return None

    def touch(self, owner: str, digest: str, used: datetime) -> None:
        """Note that keys were used now, unless that was noted a short while ago."""
        now = self._clock()
        if now - used.timestamp() >= TOUCH_SECONDS:
            # Removed meanwhile, or on a volume that is full or broken: the use itself succeeds.
            with suppress(OSError):
                os.utime(self._record(owner, digest), (now, now))

    def begin(self, owner: str, length: int) -> Upload:
        """Reserve space for an upload.

        Args:
            owner: in whose quota it counts.
            length: bytes of the keys.

        Raises:
            InsufficientStorageError: the owner's quota or the disk is full; nothing is left behind.
            UnavailableError: the store cannot be written.
        """
        with self._changing():
            folder = self._folder(owner)
            _make(folder)
            self._drop_abandoned(folder)
            taken = sum(self._sizes(folder))
            if taken + length > self._quota_bytes:
                raise InsufficientStorageError(
                    f"these evaluation keys have {length} bytes, and of your quota of "
                    f"{self._quota_bytes} bytes {max(0, self._quota_bytes - taken)} are free: "
                    "delete keys that you no longer use with DELETE /v2/keys/{sha256}, or ask for "
                    "a higher CLOISTER_KEY_QUOTA_BYTES"
                )
            path = folder / f"{uuid.uuid4().hex}{_UPLOAD}"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.posix_fallocate(descriptor, 0, length)
            except BaseException:
                path.unlink()
                os.close(descriptor)
                raise
            return Upload(path, descriptor, length)

    def has_for(self, digest: str, client_digest: str) -> bool:
        """Whether anyone has these very keys, and for this client.zip: they are verified then.

        Raises:
            UnavailableError: the store cannot be read.
        """
        with _storage():
            if not self.path(digest).exists():
                return False
            for path in self._owners.glob(f"*/{digest}{_RECORD}"):
                with suppress(FileNotFoundError, ValidationError):
                    record = KeyRecord.model_validate_json(path.read_bytes())
                    if record.client_digest == client_digest:
                        return True
        return False

    def commit(self, upload: Upload, owner: str, digest: str, client_digest: str) -> bool:
        """Keep an upload that is finished and verified.

        Returns:
            Whether it is new to the owner.

        Raises:
            OtherClientError: the owner has the same keys for another client.zip.
            InsufficientStorageError: the disk is full.
            UnavailableError: the store cannot be written.
        """
        with self._changing():
            held = self.find(owner, digest)
            if held:
                check_client(held, client_digest)
                return False
            _make(self._content)
            if not self.path(digest).exists():
                upload.path.rename(self.path(digest))
                sync(self._content)
            record = KeyRecord(
                owner=owner,
                client_digest=client_digest,
                bytes=upload.received,
                created=datetime.fromtimestamp(self._clock(), UTC),
            )
            path = self._record(owner, digest)
            try:
                write_atomically(path, record.model_dump_json().encode(), MODE)
                os.utime(path, (self._clock(), self._clock()))
            except OSError:
                self._drop_unowned({digest})
                raise
            return True

    def delete(self, owner: str, digest: str) -> bool:
        """Remove an owner's keys, and return whether there were any.

        Raises:
            UnavailableError: the store cannot be written.
        """
        if not self._root.exists():
            return False
        with self._changing():
            found = self.find(owner, digest) is not None
            self._record(owner, digest).unlink(missing_ok=True)
            self._drop_unowned({digest})
            return found

    def forget(self, digest: str) -> None:
        """Remove keys whose file is damaged from all owners, so that they are uploaded again.

        Raises:
            UnavailableError: the store cannot be written.
        """
        with self._changing():
            for path in self._owners.glob(f"*/{digest}{_RECORD}"):
                path.unlink(missing_ok=True)
            self._drop_unowned({digest})

    def sweep(self) -> None:
        """Remove what has not been used for long, and what processes that died left behind.

        Raises:
            UnavailableError: the store cannot be written.
        """
        if not self._root.exists():
            return
        with self._changing():
            for path in list(self._owners.glob(f"*/*{_RECORD}")):
                if self._clock() - path.stat().st_mtime >= self._seconds:
                    path.unlink()
                    log.info("removed evaluation keys %s, which were not used", path.stem[:12])
            for folder in list(self._owners.iterdir()):
                self._drop_abandoned(folder)
            if self._content.exists():
                self._drop_unowned({path.name for path in self._content.iterdir()})

    def digests(self) -> set[str]:
        """Digests of all sets that are there.

        Raises:
            UnavailableError: the store cannot be read.
        """
        with _storage(), suppress(FileNotFoundError):
            return {path.name for path in self._content.iterdir()}
        return set()

    def _folder(self, owner: str) -> Path:
        # An owner's name may hold anything.
        return self._owners / digest_bytes(owner.encode())

    def _record(self, owner: str, digest: str) -> Path:
        return self._folder(owner) / f"{digest}{_RECORD}"

    def _sizes(self, folder: Path) -> Iterator[int]:
        for path in folder.iterdir():
            if path.suffix == _UPLOAD:
                # It may be committed or discarded at any time, but not both counted and gone: its
                # owner's record appears under the lock that is held here.
                with suppress(FileNotFoundError):
                    yield path.stat().st_size
            elif path.suffix == _RECORD:
                with suppress(FileNotFoundError):
                    yield self.path(path.stem).stat().st_size

    def _drop_abandoned(self, folder: Path) -> None:
        for path in list(folder.glob(f"*{_UPLOAD}")):
            if _is_abandoned(path):
                path.unlink(missing_ok=True)
                log.info("removed an upload that another process left unfinished")
        # Records are written under the lock that is held here: this one was never finished.
        for path in list(folder.glob(".*.partial")):
            path.unlink(missing_ok=True)

    def _drop_unowned(self, digests: set[str]) -> None:
        owned = {path.stem for path in self._owners.glob(f"*/*{_RECORD}")}
        for digest in digests - owned:
            self.path(digest).unlink(missing_ok=True)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        with _storage():
            _make(self._owners)
            with (self._root / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield


def check_client(held: Held, client_digest: str) -> None:
    """Raise unless an owner's keys are for this client.zip.

    Raises:
        OtherClientError: they are for another.
    """
    if held.record.client_digest != client_digest:
        raise OtherClientError(
            f"these evaluation keys belong to the client.zip {held.record.client_digest}, not to "
            f"{client_digest}: make keys with this version's client.zip and upload them"
        )


def _make(folder: Path) -> None:
    if not folder.exists():
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        sync(folder.parent)


def _is_abandoned(upload: Path) -> bool:
    """Whether no process holds the lock of an upload any more."""
    try:
        descriptor = os.open(upload, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


@contextmanager
def _storage() -> Iterator[None]:
    """Say in the service's own words what is wrong with the volume."""
    try:
        yield
    except OSError as error:
        log.error("the store of evaluation keys: %s", error)
        if error.errno in FULL:
            raise InsufficientStorageError(
                "the service's disk for evaluation keys is full: try again later, or tell whoever "
                "runs it"
            ) from error
        raise UnavailableError(
            "the service's store of evaluation keys cannot be used; its log says why"
        ) from error
