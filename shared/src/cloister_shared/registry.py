"""Immutable, numbered versions in folders, each with a manifest of digests.

Layout: ``<root>/<name>/<n>/`` with n = 1, 2, ..., a ``manifest.json`` in each, and
``<root>/<name>/current``, a file that holds the number of the version in use. A version appears
whole or not at all: it is written aside, synced, then renamed.
"""

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cloister_shared.digests import digest_file
from cloister_shared.errors import CloisterError

MANIFEST = "manifest.json"
CURRENT = "current"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_STAGING = ".staging-"


class Manifest(BaseModel):
    """What a version is made of and what it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    created: datetime
    inputs_digest: str
    """Digest of everything that determined the content: equal inputs, no new version."""
    files: dict[str, str]
    """SHA-256 of every other file of the version, by name."""
    details: dict[str, Any] = {}
    """What the writer adds: settings, sizes, the digest of the model it came from."""


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
        for name, digest in self.manifest.files.items():
            try:
                actual = digest_file(self.path / name)
            except OSError as error:
                raise CloisterError(f"{self.path / name} cannot be read: {error}") from None
            if actual != digest:
                raise CloisterError(
                    f"{self.path / name} is not what was published: its SHA-256 is {actual}, "
                    f"the manifest says {digest}"
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
        """Published version numbers of ``name``, ascending; empty for an unknown name."""
        folder = self._folder(name)
        if not folder.is_dir():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())

    def current(self, name: str) -> int | None:
        """The version in use, or None where none was published."""
        with suppress(FileNotFoundError, ValueError):
            return int((self._folder(name) / CURRENT).read_text())
        return None

    def open(self, name: str, version: int) -> Version:
        """Return a version with its manifest; its files are not yet verified.

        Raises:
            CloisterError: there is no such version, or its manifest is damaged.
        """
        path = self._folder(name) / str(version)
        try:
            manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
        except FileNotFoundError:
            raise CloisterError(f"there is no version {version} of {name}") from None
        except ValidationError as error:
            raise CloisterError(f"{path / MANIFEST} is damaged: {error}") from None
        return Version(path, manifest)

    def open_current(self, name: str) -> Version:
        """Return the version in use.

        Raises:
            CloisterError: nothing was published under ``name``, or its manifest is damaged.
        """
        version = self.current(name)
        if version is None:
            raise CloisterError(f"nothing is published under {name} in {self._root}")
        return self.open(name, version)

    def published_from(self, name: str, inputs_digest: str) -> Version | None:
        """Return the newest version made from these inputs, or None."""
        for version in reversed(self.versions(name)):
            found = self.open(name, version)
            if found.manifest.inputs_digest == inputs_digest:
                return found
        return None

    def set_current(self, name: str, version: int) -> None:
        """Put ``version`` into use, atomically.

        Raises:
            CloisterError: there is no such version.
        """
        self.open(name, version)
        folder = self._folder(name)
        aside = folder / f"{_STAGING}{uuid.uuid4().hex}"
        aside.write_text(f"{version}\n")
        _sync(aside)
        aside.replace(folder / CURRENT)
        _sync(folder)

    def publish(
        self,
        name: str,
        inputs_digest: str,
        write: Callable[[Path], dict[str, Any]],
    ) -> Version:
        """Write the next version and put it into use.

        Args:
            name: lower-case letters, digits, ``-`` and ``_``.
            inputs_digest: see ``Manifest.inputs_digest``.
            write: puts the files into the empty folder it is given and returns the manifest's
                details. Whatever it raises leaves the registry as it was.

        Raises:
            CloisterError: ``name`` is not valid.
            OSError: the volume is full or not writable.
        """
        folder = self._folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        for abandoned in folder.glob(f"{_STAGING}*"):
            _remove(abandoned)
        staging = folder / f"{_STAGING}{uuid.uuid4().hex}"
        staging.mkdir()
        try:
            details = write(staging)
            version = self._rename_to_next(name, inputs_digest, staging, details)
        except BaseException:
            _remove(staging)
            raise
        self.set_current(name, version.manifest.version)
        return version

    def _rename_to_next(
        self, name: str, inputs_digest: str, staging: Path, details: dict[str, Any]
    ) -> Version:
        files = {path.name: digest_file(path) for path in sorted(staging.iterdir())}
        for number in self._free_numbers(name):
            manifest = Manifest(
                name=name,
                version=number,
                created=datetime.now(UTC),
                inputs_digest=inputs_digest,
                files=files,
                details=details,
            )
            (staging / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
            for path in staging.iterdir():
                _sync(path)
            _sync(staging)
            target = self._folder(name) / str(number)
            try:
                staging.rename(target)
            except OSError as error:
                # Another writer has taken the number: a folder cannot replace a filled one.
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue
                raise
            _sync(target.parent)
            return Version(target, manifest)
        raise AssertionError("unreachable: the numbers do not end")

    def _free_numbers(self, name: str) -> Iterator[int]:
        number = max(self.versions(name), default=0)
        while True:
            number += 1
            if not (self._folder(name) / str(number)).exists():
                yield number

    def _folder(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise CloisterError(
                f"{name!r} is not a model name: use 1 to 63 lower-case letters, digits, - and _"
            )
        return self._root / name


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
