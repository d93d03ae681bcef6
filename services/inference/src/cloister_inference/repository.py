"""The models that are published, each loaded once."""

import logging
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from cloister_inference.model import Model
from cloister_inference.problems import RETRY_SECONDS, UnavailableError, UnknownError
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry, Version

# Not "01", which would be a second address of version 1.
_VERSION = re.compile(r"[1-9][0-9]{0,8}")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Failure:
    reason: str
    since: float
    """When, by the repository's clock, in seconds."""


@dataclass(frozen=True)
class State:
    """Whether a published version can be served."""

    name: str
    version: int
    reason: str
    """Why it cannot; empty where it can."""


class Repository:
    """Finds models in a registry of artifacts and keeps what it has loaded.

    Versions are immutable, so a loaded one stays; which one is current is read each time it is
    asked for. May be used from any number of threads; its calls read files and compile.
    """

    def __init__(
        self,
        registry: Registry,
        load: Callable[[Version], Model],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve the artifacts of a registry.

        Args:
            registry: the artifacts.
            load: makes a model of a version, or raises CloisterError or OSError.
            clock: seconds, never going back.
        """
        self._registry = registry
        self._load = load
        self._clock = clock
        self._entries: dict[tuple[str, int], Model | _Failure] = {}
        self._loading = threading.Lock()

    def get(self, name: str, version: str | None = None) -> Model:
        """Return a model, loading it when it is asked for the first time.

        Args:
            name: of the model.
            version: its number, or None for the current one.

        Raises:
            UnknownError: there is no such model or version.
            UnavailableError: it is published, but cannot be served; the message says why.
        """
        if version is None:
            return self._entry(name, self._current(name))
        if not _VERSION.fullmatch(version):
            raise UnknownError(f"{version[:20]!r} is not a version: they are numbered from 1")
        return self._entry(name, int(version))

    def versions(self, name: str) -> list[int]:
        """Published version numbers of ``name``, ascending; empty for an unknown name.

        Raises:
            UnavailableError: the registry cannot be read.
        """
        try:
            return self._registry.versions(name)
        except CloisterError:
            return []
        except OSError as error:
            raise _unreadable(error) from error

    def by_client(self, digest: str) -> Model | None:
        """Return a model by the SHA-256 of its client.zip, or None where there is none.

        Raises:
            UnavailableError: it cannot be served, or the registry cannot be read.
        """
        for name in self._names():
            for version in reversed(self.versions(name)):
                with suppress(CloisterError):
                    details = self._registry.open(name, version).manifest.details
                    if details.get("client_digest") == digest:
                        return self._entry(name, version)
        return None

    def states(self) -> list[State]:
        """Return the state of every version of every model; loads each that was not yet loaded.

        Raises:
            UnavailableError: the registry cannot be read.
        """
        return [
            State(name, version, self._reason(name, version))
            for name in self._names()
            for version in self.versions(name)
        ]

    def any_servable(self) -> bool:
        """Whether the current version of at least one model can be served."""
        with suppress(UnavailableError):
            return any(self._is_servable(name) for name in self._names())
        return False

    def _is_servable(self, name: str) -> bool:
        with suppress(UnknownError, UnavailableError):
            self.get(name)
            return True
        return False

    def _names(self) -> list[str]:
        try:
            return self._registry.names()
        except OSError as error:
            raise _unreadable(error) from error

    def _reason(self, name: str, version: int) -> str:
        try:
            self._entry(name, version)
        except (UnknownError, UnavailableError) as error:
            return str(error)
        return ""

    def _current(self, name: str) -> int:
        try:
            current = self._registry.current(name)
        except CloisterError:
            current = None
        except OSError as error:
            raise _unreadable(error) from error
        if current is not None:
            return current
        if self.versions(name):
            raise UnavailableError(f"no version of {name} is current; state one in the address")
        raise UnknownError(
            f"there is no model {name}; POST /v2/repository/index lists what there is"
        )

    def _entry(self, name: str, version: int) -> Model:
        entry = self._known(name, version)
        if entry is None:
            if version not in self.versions(name):
                raise UnknownError(f"there is no version {version} of {name}")
            # One at a time: a version loads once, and compilers do not run side by side.
            with self._loading:
                entry = self._known(name, version) or self._try_load(name, version)
        if isinstance(entry, _Failure):
            raise UnavailableError(f"version {version} of {name} cannot be served: {entry.reason}")
        return entry

    def _known(self, name: str, version: int) -> Model | _Failure | None:
        entry = self._entries.get((name, version))
        if isinstance(entry, _Failure) and self._clock() - entry.since >= RETRY_SECONDS:
            return None
        return entry

    def _try_load(self, name: str, version: int) -> Model | _Failure:
        entry: Model | _Failure
        try:
            entry = self._load(self._registry.open(name, version))
        except (CloisterError, OSError) as error:
            log.error("version %d of %s cannot be served: %s", version, name, error)
            entry = _Failure(str(error), self._clock())
        else:
            log.info("loaded version %d of %s", version, name)
        self._entries[name, version] = entry
        return entry


def _unreadable(error: OSError) -> UnavailableError:
    log.error("the registry of artifacts cannot be read: %s", error)
    return UnavailableError("the registry of artifacts cannot be read; the service's log says why")
