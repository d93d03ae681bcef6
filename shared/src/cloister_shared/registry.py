"""Immutable, numbered versions in folders, each with a manifest of digests.

Layout: ``<root>/<name>/<n>/`` with n = 1, 2, ..., a ``manifest.json`` in each, and
``<root>/<name>/current``, a file that holds the number of the version in use. A version appears
whole or not at all: it is written aside, synced, then renamed. Writers of one name take turns by a
lock on ``<root>/<name>/.lock``, which ends with the process that holds it; readers need no lock.

``<root>/<name>/.adopted`` holds the number of the version that a publisher put into use last. It is
written after ``current``, so that an interrupted publication can be told from a rollback: of the
first it does not know yet, and in the second ``current`` alone has changed.

``<root>/<name>/.deleted`` lists the versions that were deleted, and what they were made from: their
numbers are not used again, and a publisher does not take them for missing. A deletion writes it
first and renames the version's folder then, so that a version is whole or gone, whatever happens.
"""

import fcntl
import logging
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cloister_shared.digests import digest_file
from cloister_shared.errors import CloisterError
from cloister_shared.files import sync, write_atomically

MANIFEST = "manifest.json"
CURRENT = "current"
ADOPTED = ".adopted"
DELETED = ".deleted"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_VERSION = re.compile(r"[1-9][0-9]*")
_STAGING = ".staging-"
_DISCARDED = ".deleted-"
_LOCK = ".lock"

log = logging.getLogger(__name__)


def _plain_file_name(name: str) -> str:
    if name in ("", ".", "..", MANIFEST) or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not the plain name of a file other than {MANIFEST}")
    return name


FileName = Annotated[str, AfterValidator(_plain_file_name)]
"""The name of a file in the version's own folder: a manifest can name none outside it."""


class Manifest(BaseModel):
    """What a version is made of and what it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int = Field(ge=1)
    created: datetime
    inputs_digest: str
    """Digest of everything that determined the content: equal inputs, no new version."""
    files: dict[FileName, str]
    """SHA-256 of every other file of the version, by name."""
    details: dict[str, Any] = {}
    """What the writer adds: settings, sizes, the digest of the model it came from."""


class _Deleted(BaseModel):
    """What was deleted under a name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs_digests: dict[int, str | None] = {}
    """By version number; None where the manifest could not be read."""


@dataclass(frozen=True)
class Version:
    """One published version."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Return the path of a file of this version.

        Raises:
            CloisterError: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise CloisterError(f"{self.path} has no file {name}")
        return self.path / name

    def verify(self) -> None:
        """Compare every file with its digest in the manifest.

        Raises:
            CloisterError: a file is missing or differs; the message names it.
        """
        advice = (
            "restore the file; or put another version into use, `delete "
            f"{self.manifest.name} {self.manifest.version}`, and have it made again with "
            "CLOISTER_RETRAIN=true"
        )
        for name, digest in self.manifest.files.items():
            try:
                actual = digest_file(self.path / name)
            except OSError as error:
                raise CloisterError(
                    f"{self.path / name} cannot be read ({error.strerror}): {advice}"
                ) from None
            if actual != digest:
                raise CloisterError(
                    f"{self.path / name} is not what was published: its SHA-256 is {actual}, "
                    f"the manifest says {digest}; {advice}"
                )


class Registry:
    """All versions of all names under one root folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> list[str]:
        """Names that have at least one version, sorted."""
        if not self._root.is_dir():
            return []
        folders = (path.name for path in self._root.iterdir() if _NAME.fullmatch(path.name))
        return sorted(name for name in folders if self.versions(name))

    def versions(self, name: str) -> list[int]:
        """Published version numbers of ``name``, ascending; empty for an unknown name.

        Raises:
            CloisterError: ``name`` is not valid.
        """
        folder = self._folder(name)
        if not folder.is_dir():
            return []
        return sorted(
            int(path.name)
            for path in folder.iterdir()
            if _VERSION.fullmatch(path.name) and path.is_dir()
        )

    def current(self, name: str) -> int | None:
        """The version in use, or None where there is none or the file does not say a number.

        Raises:
            CloisterError: ``name`` is not valid.
        """
        return _read_number(self._folder(name) / CURRENT)

    def open(self, name: str, version: int) -> Version:
        """Return a version with its manifest; its files are not yet verified.

        Raises:
            CloisterError: ``name`` is not valid, there is no such version, or its manifest is
                damaged.
        """
        path = self._folder(name) / str(version)
        try:
            manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise CloisterError(
                f"there is no version {version} of {name} in {self._root}"
            ) from None
        except ValidationError as error:
            raise CloisterError(
                f"{path / MANIFEST} is damaged: restore it, or `delete {name} {version}` ({error})"
            ) from None
        if (manifest.name, manifest.version) != (name, version):
            raise CloisterError(
                f"{path / MANIFEST} is damaged: it is of version {manifest.version} of "
                f"{manifest.name}"
            )
        return Version(path, manifest)

    def fingerprint(self, name: str, version: int) -> tuple[tuple[str, int, int, int], ...]:
        """What tells whether a version's files have changed, without reading them.

        Returns:
            Of each file its name, inode, size in bytes, and time of change in nanoseconds; nothing
            for a version that is not there.

        Raises:
            CloisterError: ``name`` is not valid.
            OSError: the folder cannot be read.
        """
        with suppress(FileNotFoundError, NotADirectoryError):
            files = sorted((self._folder(name) / str(version)).iterdir())
            stated = [(path.name, path.lstat()) for path in files]
            return tuple((file, s.st_ino, s.st_size, s.st_mtime_ns) for file, s in stated)
        return ()

    def open_current(self, name: str) -> Version:
        """Return the version in use.

        Raises:
            CloisterError: ``name`` is not valid, none of its versions is in use, the one in use is
                missing, or its manifest is damaged.
        """
        version, published = self.current(name), self.versions(name)
        if version in published:
            return self.open(name, version)
        if not published:
            raise CloisterError(f"nothing is published under {name} in {self._root}")
        says = "no version" if version is None else f"version {version}, which is missing"
        raise CloisterError(
            f"{self._folder(name) / CURRENT} names {says}; there are {published}: put one of them "
            f"into use with `promote {name} {published[-1]}`"
        )

    def published_from(self, name: str, inputs_digest: str) -> Version | None:
        """Return the newest version made from these inputs, or None.

        A version whose manifest is damaged counts as made from others, with a warning in the log.

        Raises:
            CloisterError: ``name`` is not valid.
        """
        for version in reversed(self.versions(name)):
            try:
                found = self.open(name, version)
            except CloisterError as error:
                log.warning("%s", error)
                continue
            if found.manifest.inputs_digest == inputs_digest:
                return found
        return None

    def deleted_from(self, name: str, inputs_digest: str) -> int | None:
        """Return the number of the version made last from these inputs, if it was deleted.

        Returns:
            None where nothing was ever made from them, and where what was made last is there.

        Raises:
            CloisterError: ``name`` is not valid, or the list of what was deleted is damaged.
        """
        published, deleted = self.versions(name), self._deleted(name).inputs_digests
        numbers = [
            number
            for number, made_from in deleted.items()
            # A deletion that was interrupted has noted what is still there.
            if made_from == inputs_digest and number not in published
        ]
        if not numbers:
            return None
        newest = self.published_from(name, inputs_digest)
        if newest is not None and newest.manifest.version > max(numbers):
            return None
        return max(numbers)

    def open_in_place_of(self, name: str, deleted: int, why: str) -> Version:
        """Return the version in use, checked, where the one that was wanted was deleted.

        Args:
            name: of the version.
            deleted: number of what was wanted.
            why: says what it was made from, and what makes it again.

        Raises:
            CloisterError: there is no other version, or the one in use is damaged.
        """
        told = f"version {deleted} of {name} was {why}"
        if not self.versions(name):
            raise CloisterError(told)
        in_use = self.open_current(name)
        in_use.verify()
        log.warning("%s; version %d stays in use", told, in_use.manifest.version)
        return in_use

    def is_gone(self, name: str, version: int) -> bool:
        """Whether a version is not there though the folder of its name is.

        Without that folder nothing is known: a volume may be away for a while.

        Raises:
            CloisterError: ``name`` is not valid.
        """
        folder = self._folder(name)
        return folder.is_dir() and not (folder / str(version)).is_dir()

    def promote(self, name: str, version: int) -> Version:
        """Put a version into use, until another one is published; wait while another writes.

        Returns:
            The version in use, verified before it was put into use.

        Raises:
            CloisterError: ``name`` is not valid, there is no such version, or it is damaged.
            OSError: the volume is full or not writable.
        """
        target = self.open(name, version)
        target.verify()
        with self._writing(name) as folder:
            self._put_into_use(folder, name, version)
        return target

    def adopt(self, name: str, version: int) -> Version:
        """Put a version that is there already into use, unless it was rolled back from.

        For a publisher that finds its inputs published. It puts the version into use where its
        publication was interrupted before that, and where other inputs were published or adopted
        since. It leaves ``current`` alone where this version is the one that was adopted last:
        somebody has chosen another one.

        Returns:
            The version in use, verified.

        Raises:
            CloisterError: ``name`` is not valid, or the version to be used is missing or damaged.
            OSError: the volume is full or not writable.
        """
        self.open(name, version)
        with self._writing(name) as folder:
            chosen = self.current(name)
            if chosen in self.versions(name) and self._adopted(name) == version:
                in_use = self.open(name, chosen)
                in_use.verify()
                return in_use
            adopted = self.open(name, version)
            adopted.verify()
            _write_current(folder, version)
            _write_adopted(folder, version)
        return adopted

    def roll_back(self, name: str, version: int | None = None) -> Version:
        """Put another version into use, until the next one is published.

        Args:
            name: of the model.
            version: any that is published; None for the one before the version in use.

        Returns:
            The version in use now, verified before it was put into use.

        Raises:
            CloisterError: ``name`` is not valid, there is no such version, it is damaged, or
                another one was put into use while this waited for a publisher.
            OSError: the volume is full or not writable.
        """
        current, published = self.current(name), self.versions(name)
        if not published:
            raise CloisterError(f"nothing is published under {name} in {self._root}")
        if version is None:
            if current is None:
                raise CloisterError(f"no version of {name} is in use: name one of {published}")
            earlier = [number for number in published if number < current]
            if not earlier:
                raise CloisterError(f"there is no version of {name} before {current}: {published}")
            version = earlier[-1]
        target = self.open(name, version)
        target.verify()
        with self._writing(name) as folder:
            if self.current(name) != current:
                raise CloisterError(
                    f"version {self.current(name)} of {name} was put into use meanwhile: "
                    "run this again, and name a version"
                )
            self._put_into_use(folder, name, version)
        return target

    def delete(self, name: str, version: int) -> None:
        """Remove a version that is not in use, for good; wait while another writes under ``name``.

        A process that is killed meanwhile leaves the version whole or gone. A damaged version can
        be deleted like any other.

        Raises:
            CloisterError: ``name`` is not valid, there is no such version, or it is in use.
            OSError: the volume is full or not writable.
        """
        self._check_published(name, version)
        with self._writing(name) as folder:
            self._check_published(name, version)
            if self.current(name) == version:
                others = [number for number in self.versions(name) if number != version]
                instead = (
                    f"put another into use first, with `promote {name} {others[-1]}`"
                    if others
                    else "it is the only one"
                )
                raise CloisterError(
                    f"version {version} of {name} is in use, and is not deleted: {instead}; "
                    f"or delete all of {name} with `delete {name} --force`"
                )
            self._discard(folder, name, [version])

    def delete_all(self, name: str) -> list[int]:
        """Remove every version of a name, that in use last; wait while another writes under it.

        Returns:
            The numbers of the versions removed, which are not used again.

        Raises:
            CloisterError: ``name`` is not valid, or nothing is published under it.
            OSError: the volume is full or not writable.
        """
        self._check_any_published(name)
        with self._writing(name) as folder:
            self._check_any_published(name)
            current, published = self.current(name), self.versions(name)
            # Whoever looks in between finds the version in use, or nothing.
            self._discard(folder, name, sorted(published, key=lambda number: number == current))
            (folder / CURRENT).unlink(missing_ok=True)
            sync(folder)
        return published

    def publish(
        self,
        name: str,
        inputs_digest: str,
        write: Callable[[Path], dict[str, Any]],
    ) -> Version:
        """Write the next version and put it into use; wait while another writes under ``name``.

        A process killed between the two leaves the version there but not in use:
        ``published_from`` finds it and ``adopt`` puts it into use.

        Args:
            name: lower-case letters, digits, ``-`` and ``_``.
            inputs_digest: see ``Manifest.inputs_digest``.
            write: puts the files, without folders, into the empty folder it is given and returns
                the manifest's details. Whatever it raises leaves all versions and ``current`` as
                they were. It must not write to this registry under the same name.

        Raises:
            CloisterError: ``name`` is not valid.
            OSError: the volume is full or not writable.
        """
        with self._writing(name) as folder:
            _clean_up(folder)
            staging = folder / f"{_STAGING}{uuid.uuid4().hex}"
            staging.mkdir()
            try:
                details = write(staging)
                manifest = Manifest(
                    name=name,
                    version=self._free_number(folder, name),
                    created=datetime.now(UTC),
                    inputs_digest=inputs_digest,
                    files={path.name: digest_file(path) for path in sorted(staging.iterdir())},
                    details=details,
                )
                (staging / MANIFEST).write_text(
                    manifest.model_dump_json(indent=2) + "\n", encoding="utf-8"
                )
                for path in (*staging.iterdir(), staging):
                    sync(path)
                target = folder / str(manifest.version)
                staging.rename(target)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
            _write_current(folder, manifest.version)
            _write_adopted(folder, manifest.version)
        return Version(target, manifest)

    def _check_published(self, name: str, version: int) -> None:
        published = self.versions(name)
        if version not in published:
            raise CloisterError(
                f"there is no version {version} of {name} in {self._root}, but {published}"
            )

    def _check_any_published(self, name: str) -> None:
        if not self.versions(name):
            raise CloisterError(f"nothing is published under {name} in {self._root}")

    def _put_into_use(self, folder: Path, name: str, version: int) -> None:
        """Write ``current``, as somebody's choice. Expects the lock to be held."""
        # It may have been deleted while this waited for the lock.
        self._check_published(name, version)
        current = self.current(name)
        # A publisher that was killed after it had put its version into use has not noted it.
        if current is not None and (self._adopted(name) or 0) < current:
            _write_adopted(folder, current)
        _write_current(folder, version)

    def _discard(self, folder: Path, name: str, versions: list[int]) -> None:
        """Note that versions are deleted, and remove them in order. Expects the lock to be held."""
        _clean_up(folder)
        noted = dict(self._deleted(name).inputs_digests)
        for version in versions:
            noted[version] = None
            with suppress(CloisterError):
                noted[version] = self.open(name, version).manifest.inputs_digest
        write_atomically(
            folder / DELETED, _Deleted(inputs_digests=noted).model_dump_json().encode()
        )
        for version in versions:
            (folder / str(version)).rename(folder / f"{_DISCARDED}{version}-{uuid.uuid4().hex}")
            sync(folder)
        _clean_up(folder)

    def _deleted(self, name: str) -> _Deleted:
        path = self._folder(name) / DELETED
        try:
            return _Deleted.model_validate_json(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return _Deleted()
        except ValidationError as error:
            raise CloisterError(
                f"{path}, the list of what was deleted, is damaged: restore it, or remove it, and "
                f"numbers of deleted versions may be used again ({error})"
            ) from None

    def _free_number(self, folder: Path, name: str) -> int:
        """Return the first number above all that were ever used."""
        taken = [int(path.name) for path in folder.iterdir() if _VERSION.fullmatch(path.name)]
        used = (*taken, *self._deleted(name).inputs_digests, self._adopted(name) or 0)
        return max(used, default=0) + 1

    def _adopted(self, name: str) -> int | None:
        return _read_number(self._folder(name) / ADOPTED)

    @contextmanager
    def _writing(self, name: str) -> Iterator[Path]:
        """Hold the lock of ``name``, and yield its folder, which is created where it is missing."""
        folder = self._folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        sync(self._root)
        with (folder / _LOCK).open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.info("waiting for another process that publishes %s", name)
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise CloisterError(
                f"{name!r} is not a model name: use 1 to 63 lower-case letters, digits, - and _"
            )
        return self._root / name


def _clean_up(folder: Path) -> None:
    """Remove what killed processes left half written or half removed."""
    # Whoever holds the lock is the only writer.
    for pattern in (f"{_STAGING}*", f"{_DISCARDED}*"):
        for abandoned in folder.glob(pattern):
            shutil.rmtree(abandoned, ignore_errors=True)


def _read_number(path: Path) -> int | None:
    with suppress(FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8").strip()
        return int(text) if _VERSION.fullmatch(text) else None
    return None


def _write_current(folder: Path, version: int) -> None:
    write_atomically(folder / CURRENT, f"{version}\n".encode())


def _write_adopted(folder: Path, version: int) -> None:
    write_atomically(folder / ADOPTED, f"{version}\n".encode())
