"""Secret keys that are kept, for circuits whose evaluation keys are too large to make every time.

Layout: ``<root>/<client digest>/<SHA-256 of the evaluation keys>/`` with ``keyset`` (secret),
``evaluation_keys`` (what the service gets) and ``key.json``. A folder appears whole or not at all.
One without ``keyset`` is of a key that is no longer used: the secret is gone, and the service has
yet to be told to delete its evaluation keys.

A kept key decrypts many results, so that the rule against reaction attacks matters all the more:
neither scores nor failures to decrypt ever go back to the service.
"""

import fcntl
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cloister_keyholder.encryption.client import Client, SecretKey
from cloister_keyholder.errors import KeyUnusable
from cloister_keyholder.keys.keyfile import KEY_MODE, write_new
from cloister_shared.digests import digest_bytes
from cloister_shared.files import sync

FOLDER_MODE = 0o700
KEYSET, EVALUATION_KEYS, DESCRIPTION = "keyset", "evaluation_keys", "key.json"
_NEW = ".new-"
DAY_SECONDS = 86400

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeyFolder:
    """Where secret keys are kept, and how long they are used."""

    path: Path
    """Made where it is missing; its owner alone can read what is in it."""
    rotate_days: float = 30.0
    """Age at which a key is replaced."""


class _Description(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    created: float
    """Seconds since the epoch."""
    keyset_digest: str
    """SHA-256: Concrete's reader may run without end on a damaged file."""


@dataclass(frozen=True)
class StoredKey:
    """A key in use."""

    digest: str
    """SHA-256 of the evaluation keys, by which the service knows them."""
    secret: SecretKey
    evaluation_keys: Path
    """File with what the service gets."""
    created: float
    """Seconds since the epoch."""

    def __repr__(self) -> str:
        return f"StoredKey({self.digest})"


class StoredKeys:
    """The keys of one client.zip in a folder; processes that share it use the same key."""

    def __init__(
        self,
        place: KeyFolder,
        client_digest: str,
        client: Client,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep keys under a folder, which is made where it is missing.

        Args:
            place: for the keys of all models.
            client_digest: SHA-256 of the client.zip.
            client: of the circuit in it.
            clock: seconds since the epoch.
        """
        self._folder = place.path / client_digest
        self._client = client
        self._seconds = place.rotate_days * DAY_SECONDS
        self._clock = clock

    def is_current(self, key: StoredKey) -> bool:
        """Whether a key is still young enough to encrypt under."""
        return self._clock() - key.created < self._seconds

    def current(self) -> StoredKey:
        """Return the key to encrypt under; make one where there is none that is young enough.

        The secret parts of all older keys are deleted.

        Raises:
            KeyUnusable: its file is damaged, or others could read it.
            OSError: the folder is not writable or the volume is full.
        """
        with self._changing():
            keys = self._complete()
            if not keys or self._clock() - keys[0][1].created >= self._seconds:
                keys.insert(0, self._make())
            for folder, _ in keys[1:]:
                _retire(folder)
            return self._read(*keys[0])

    def retired(self) -> list[str]:
        """Digests of evaluation keys that the service may delete."""
        if not self._folder.is_dir():
            return []
        return [
            path.name
            for path in self._folder.iterdir()
            if (path / DESCRIPTION).exists() and not (path / KEYSET).exists()
        ]

    def forget(self, digest: str) -> None:
        """Note that the service has deleted evaluation keys that are retired."""
        with self._changing():
            if not (self._folder / digest / KEYSET).exists():
                shutil.rmtree(self._folder / digest, ignore_errors=True)

    def _complete(self) -> list[tuple[Path, _Description]]:
        """Keys that can be used, the newest first."""
        found = []
        for folder in self._folder.iterdir():
            if not folder.name.startswith(_NEW) and (folder / KEYSET).exists():
                try:
                    text = (folder / DESCRIPTION).read_bytes()
                    found.append((folder, _Description.model_validate_json(text)))
                except (FileNotFoundError, ValidationError):
                    raise _damaged(folder) from None
        return sorted(found, key=lambda entry: entry[1].created, reverse=True)

    def _make(self) -> tuple[Path, _Description]:
        log.info("making a secret key and its evaluation keys, which takes some seconds")
        # Whoever holds the lock is the only one who makes keys: these were left unfinished.
        for abandoned in self._folder.glob(f"{_NEW}*"):
            shutil.rmtree(abandoned)
        key = self._client.new_key()
        secret, public = key.export(), key.evaluation_keys()
        description = _Description(created=self._clock(), keyset_digest=digest_bytes(secret))
        aside = self._folder / f"{_NEW}{uuid.uuid4().hex}"
        aside.mkdir(mode=FOLDER_MODE)
        try:
            # Concrete's own cache would write them readable for everybody.
            write_new(aside / KEYSET, secret, KEY_MODE)
            write_new(aside / EVALUATION_KEYS, public, KEY_MODE)
            write_new(aside / DESCRIPTION, description.model_dump_json().encode(), KEY_MODE)
            sync(aside)
            target = self._folder / digest_bytes(public)
            aside.rename(target)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync(self._folder)
        return target, description

    def _read(self, folder: Path, description: _Description) -> StoredKey:
        path = folder / KEYSET
        if path.stat().st_mode & 0o077:
            raise KeyUnusable(
                f"others than its owner can read {path}, and may know the key: delete the folder "
                f"{folder} and a new key is made, or, if nobody did, chmod 600 it"
            )
        content = path.read_bytes()
        if digest_bytes(content) != description.keyset_digest:
            raise _damaged(folder)
        return StoredKey(
            digest=folder.name,
            secret=self._client.read_key(content),
            evaluation_keys=folder / EVALUATION_KEYS,
            created=description.created,
        )

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock, which ends with the process."""
        self._folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT, KEY_MODE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _retire(folder: Path) -> None:
    log.info("the key %s is no longer used: its secret is deleted", folder.name[:12])
    (folder / KEYSET).unlink()
    (folder / EVALUATION_KEYS).unlink(missing_ok=True)
    sync(folder)


def _damaged(folder: Path) -> KeyUnusable:
    return KeyUnusable(f"the key in {folder} is damaged: delete the folder and a new key is made")
