"""The models that are published: which of them serve, which are loaded, and which cannot be."""

import logging
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cloister_inference.observability.metrics import Metrics
from cloister_inference.problems import UnavailableError, UnknownError, UnloadedError
from cloister_inference.serving.catalogue import Published, describe
from cloister_inference.serving.choices import Choices
from cloister_inference.serving.model import Model
from cloister_shared.errors import CloisterError
from cloister_shared.registry import Registry, Version

RETRY_REFUSED_SECONDS = 300.0
"""After how long a version that was refused is tried again though its files have not changed."""
NOT_LOADED = "not loaded yet: it loads when it is asked for"

# Not "01", which would be a second address of version 1.
_VERSION = re.compile(r"[1-9][0-9]{0,8}")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Refusal:
    reason: str
    since: float
    """When, by the repository's clock, in seconds."""
    fingerprint: object
    """Of the files that were refused."""


@dataclass(frozen=True)
class State:
    """Whether a published version is loaded."""

    name: str
    version: int
    reason: str
    """Why it is not; empty where it is."""


class Repository:
    """Follows a registry of artifacts, and keeps what it has loaded.

    Of each model one version serves the requests that name none: the current one, or while that
    cannot be loaded the one that served before. ``look`` follows the registry; between two looks
    nothing is read for a version that is loaded, so that a registry that cannot be read for a
    while stops nobody. Other versions are loaded when they are asked for, and the least recently
    used are let go. Versions are immutable: a loaded one is never read again.

    May be used from any number of threads. All but ``loaded`` may read files and compile.
    """

    def __init__(
        self,
        registry: Registry,
        load: Callable[[Version], Model],
        metrics: Metrics,
        *,
        keep: int,
        choices: Choices | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Serve the artifacts of a registry.

        Args:
            registry: the artifacts.
            load: makes a model of a version, or raises. Whatever holds on to the model, an
                evaluation for example, may go on using it after it is let go here.
            metrics: counts the loads.
            keep: loaded versions, over all models, besides those that serve.
            choices: versions that serve in the place of those that the registry puts into use;
                none by default, and none are taken.
            clock: seconds, never going back.
        """
        self._registry = registry
        self._choices = choices or Choices(None)
        self._load = load
        self._metrics = metrics
        self._keep = keep
        self._clock = clock
        # Guards the five below; held for moments only.
        self._lock = threading.Lock()
        self._models: OrderedDict[tuple[str, int], Model] = OrderedDict()
        self._serving: dict[str, int] = {}
        self._unloaded: set[str] = set()
        self._refused: dict[tuple[str, int], _Refusal] = {}
        self._trouble = ""
        # One at a time: a version loads once, and compilers do not run side by side.
        self._loading = threading.Lock()
        self._following = threading.RLock()
        self._looked = threading.Event()

    def loaded(self, name: str, version: str | None = None) -> Model | None:
        """Return a version if it is loaded, without reading or waiting for anything.

        Args:
            name: of the model.
            version: its number, or None for the version that serves.
        """
        with self._lock:
            if version is None:
                number = self._serving.get(name, 0)
            else:
                number = int(version) if _VERSION.fullmatch(version) else 0
            return self._used(name, number)

    def get(self, name: str, version: str | None = None) -> Model:
        """Return a version, loading it where it is not loaded.

        Args:
            name: of the model.
            version: its number, or None for the version that serves.

        Raises:
            UnknownError: there is no such model or version, or the model was unloaded.
            UnavailableError: it is published, but cannot be served; the message says why.
        """
        model = self.loaded(name, version)
        if model is not None:
            return model
        self._check_not_unloaded(name)
        if version is not None:
            return self._obtain(name, self._published(name, version))
        current = self._current(name)
        self._follow_now(name)
        return self.loaded(name) or self._obtain(name, current)

    def versions(self, name: str) -> list[int]:
        """Version numbers of ``name`` that are published or loaded, ascending; empty for none.

        Raises:
            UnavailableError: the registry cannot be read, and none is loaded.
        """
        with self._lock:
            loaded = {number for known, number in self._models if known == name}
        try:
            return sorted(loaded.union(self._registry.versions(name)))
        except CloisterError:
            return []
        except OSError as error:
            unreadable = self._unreadable(error)
            if loaded:
                return sorted(loaded)
            raise unreadable from error

    def by_client(self, digest: str) -> Model | None:
        """Return a model by the SHA-256 of its client.zip, or None where there is none.

        Raises:
            UnknownError: it was unloaded.
            UnavailableError: it cannot be served, or the registry cannot be read.
        """
        with self._lock:
            for model in self._models.values():
                if model.client.digest == digest:
                    return model
        try:
            names = self._registry.names()
        except OSError as error:
            raise self._unreadable(error) from error
        for name in names:
            for version in reversed(self.versions(name)):
                if self._client_digest(name, version) == digest:
                    return self.get(name, str(version))
        return None

    def states(self) -> list[State]:
        """Return the state of every version of every model, loading none for it.

        Raises:
            UnavailableError: the registry cannot be read, and nothing is loaded.
        """
        self._look_once()
        with self._lock:
            loaded = {name for name, _ in self._models}
        try:
            names = loaded.union(self._registry.names())
        except OSError as error:
            unreadable = self._unreadable(error)
            if not loaded:
                raise unreadable from error
            names = loaded
        return [
            State(name, version, self._reason(name, version))
            for name in sorted(names)
            for version in self.versions(name)
        ]

    def any_servable(self) -> bool:
        """Whether some version of at least one model is loaded and serves."""
        self._look_once()
        with self._lock:
            return bool(self._serving)

    def look(self) -> None:
        """Look at the registry, and load what is current in it and does not serve yet.

        What was deleted from it is let go; whatever evaluates with it ends its work. What cannot be
        loaded is logged and left; the versions that serve go on.
        """
        with self._following:
            try:
                names = self._registry.names()
                self._drop_deleted()
                with self._lock:
                    gone = sorted(set(self._serving).difference(names))
                for name in names:
                    self._follow(name)
            except OSError as error:
                self._unreadable(error)
            else:
                self._note(f"it no longer holds {', '.join(gone)}" if gone else "")
            finally:
                self._looked.set()

    def load(self, name: str, version: str | None = None) -> Model:
        """Look at the registry now, and load a version even if it was refused or unloaded before.

        Args:
            name: of the model, which the registry's following looks load again.
            version: its number, which it is then loaded under and nothing else; None for the
                current one, which then serves.

        Raises:
            UnknownError: there is no such model or version.
            UnavailableError: it cannot be served; the message says why, and what serves instead.
        """
        number = self._current(name) if version is None else self._published(name, version)
        with self._lock:
            self._unloaded.discard(name)
            self._refused.pop((name, number), None)
        if version is not None:
            return self._obtain(name, number)
        self._follow_now(name)
        try:
            return self._obtain(name, number)
        except UnavailableError as error:
            serving = self.loaded(name)
            if serving is None:
                raise
            raise UnavailableError(f"{error}; version {serving.version} goes on serving") from None

    def promote(self, name: str, version: str) -> Model:
        """Have a version serve in the place of the one that the registry puts into use.

        It serves until the registry puts another one into use. Other processes that share the
        choices follow with their next look.

        Args:
            name: of the model.
            version: its number.

        Returns:
            The version, which serves.

        Raises:
            UnknownError: there is no such model or version.
            UnavailableError: it cannot be served, or the choice cannot be kept; nothing changes.
        """
        if not self._choices.can_keep:
            raise UnavailableError("choices of versions are not kept here (CLOISTER_CHOICES_DIR)")
        if not self.versions(name):
            raise self._unknown(name)
        model = self.load(name, version)
        with self._following:
            try:
                self._choices.choose(name, model.version, self._registry.current(name))
            except OSError as error:
                log.error("the choice of version %s of %s cannot be kept: %s", version, name, error)
                raise UnavailableError(
                    "the choice cannot be kept; the service's log says why"
                ) from error
            self._follow_now(name)
        log.info("version %d of %s was put into use over HTTP", model.version, name)
        return model

    def published(self, name: str) -> list[tuple[State, Published]]:
        """Return all that is known of every version of a model, loading none for it, ascending.

        Raises:
            UnknownError: there is no such model.
            UnavailableError: the registry cannot be read, and none is loaded.
        """
        self._look_once()
        numbers = self.versions(name)
        if not numbers:
            raise self._unknown(name)
        return [
            (
                State(name, number, self._reason(name, number)),
                describe(self._registry, name, number),
            )
            for number in numbers
        ]

    def serving(self, name: str) -> tuple[int | None, int | None]:
        """Return the version that serves, and the one that the registry puts into use.

        Args:
            name: of a model.
        """
        with self._lock:
            serving = self._serving.get(name)
        try:
            return serving, self._registry.current(name)
        except (CloisterError, OSError):
            return serving, None

    def unload(self, name: str) -> None:
        """Let all versions of a model go, and refuse it until ``load`` asks for it again.

        Raises:
            UnknownError: there is no such model.
            UnavailableError: the registry cannot be read.
        """
        if not self.versions(name):
            raise self._unknown(name)
        with self._lock:
            self._unloaded.add(name)
            self._serving.pop(name, None)
            for key in [key for key in self._models if key[0] == name]:
                self._remove(key)
        log.info("unloaded %s", name)

    def _in_use(self, name: str) -> int | None:
        """Return the version that is to serve.

        Raises:
            CloisterError: ``name`` is not valid.
            OSError: the registry cannot be read.
        """
        current = self._registry.current(name)
        chosen = self._choices.instead_of(name, current)
        # One that was deleted is nobody's choice any more.
        if chosen is None or chosen == current or self._registry.is_gone(name, chosen):
            return current
        return chosen

    def _look_once(self) -> None:
        if not self._looked.is_set():
            with self._following:
                if not self._looked.is_set():
                    self.look()

    def _drop_deleted(self) -> None:
        """Let loaded versions go that are no longer in the folder of their name.

        Raises:
            OSError: the registry cannot be read.
        """
        with self._lock:
            loaded = list(self._models)
        for name, version in loaded:
            if not self._registry.is_gone(name, version):
                continue
            with self._lock:
                if self._serving.get(name) == version:
                    del self._serving[name]
                if (name, version) in self._models:
                    self._remove((name, version))
            log.info("let version %d of %s go: it was deleted", version, name)

    def _follow_now(self, name: str) -> None:
        with self._following:
            try:
                self._follow(name)
            except OSError as error:
                raise self._unreadable(error) from error

    def _follow(self, name: str) -> None:
        """Let the current version of a model serve if it can, and an older one if none does.

        Raises:
            OSError: the registry cannot be read.
        """
        current = self._in_use(name)
        with self._lock:
            serving = self._serving.get(name)
            if name in self._unloaded or current is None or current == serving:
                return
        if self._try_to_serve(name, current) or serving is not None:
            return
        for older in reversed(self._registry.versions(name)):
            if older < current and self._try_to_serve(name, older):
                log.warning("version %d of %s serves instead of %d", older, name, current)
                return

    def _try_to_serve(self, name: str, version: int) -> bool:
        try:
            self._obtain(name, version)
        except (UnknownError, UnavailableError):
            return False
        with self._lock:
            # It may have been unloaded by now, or let go for others.
            if (name, version) not in self._models:
                return False
            before = self._serving.get(name)
            self._serving[name] = version
            self._let_go()
        log.info("version %d of %s serves%s", version, name, f" after {before}" if before else "")
        return True

    def _obtain(self, name: str, version: int) -> Model:
        for attempt in (self._known, self._load_now):
            model = attempt(name, version)
            if model is not None:
                return model
        raise AssertionError  # pragma: no cover - loading returns or raises

    def _known(self, name: str, version: int) -> Model | None:
        """Return a loaded version; None where it should be loaded.

        Raises:
            UnavailableError: it was refused, and nothing has changed since.
        """
        with self._lock:
            model = self._used(name, version)
        if model is None:
            refusal = self._refusal(name, version)
            if refusal is not None:
                raise _refused(name, version, refusal.reason)
        return model

    def _load_now(self, name: str, version: int) -> Model:
        with self._loading:
            model = self._known(name, version)
            if model is not None:
                return model
            fingerprint = self._fingerprint(name, version)
            try:
                published = self._registry.open(name, version)
                model = self._load(published)
            except (CloisterError, OSError) as error:
                if fingerprint and self._fingerprint(name, version) == ():
                    # Deleted while it was read.
                    raise _no_version(name, version) from error
                reason = str(error)
                log.error("version %d of %s is refused: %s", version, name, reason)
            except Exception as error:
                # An artifact can be broken in ways that nobody thought of; it is refused alone.
                reason = f"{type(error).__name__}; the service's log says more"
                log.exception("version %d of %s is refused", version, name)
            if model is None:
                self._metrics.loads.labels(name, "refused").inc()
                with self._lock:
                    self._refused[name, version] = _Refusal(reason, self._clock(), fingerprint)
                raise _refused(name, version, reason)
            self._metrics.loads.labels(name, "loaded").inc()
            log.info(
                "loaded version %d of %s: %s (%s)",
                version,
                name,
                model.circuit.name,
                model.evaluation.reason,
            )
            with self._lock:
                if name in self._unloaded:
                    raise _unloaded(name)
                self._refused.pop((name, version), None)
                self._models[name, version] = model
                self._metrics.evaluator.labels(name, version, model.circuit.name).set(1)
                self._let_go()
            return model

    def _let_go(self) -> None:
        """Keep no more versions than are to be kept. Expects the lock to be held."""
        others = [key for key in self._models if self._serving.get(key[0]) != key[1]]
        # The newest of them may be about to serve.
        for key in others[: max(0, len(others) - self._keep)]:
            self._remove(key)
            log.info("let version %d of %s go: others were used more recently", key[1], key[0])

    def _remove(self, key: tuple[str, int]) -> None:
        """Let a loaded version go. Expects the lock to be held."""
        model = self._models.pop(key)
        self._metrics.evaluator.remove(*key, model.circuit.name)

    def _used(self, name: str, version: int) -> Model | None:
        """Return a loaded version, now the most recently used. Expects the lock to be held."""
        model = self._models.get((name, version))
        if model is not None:
            self._models.move_to_end((name, version))
        return model

    def _refusal(self, name: str, version: int) -> _Refusal | None:
        """Return why a version was refused, unless that is long ago or its files have changed."""
        with self._lock:
            refusal = self._refused.get((name, version))
        if (
            refusal is None
            or self._clock() - refusal.since >= RETRY_REFUSED_SECONDS
            or self._fingerprint(name, version) != refusal.fingerprint
        ):
            return None
        return refusal

    def _fingerprint(self, name: str, version: int) -> object:
        try:
            return self._registry.fingerprint(name, version)
        except OSError as error:
            return str(error)

    def _reason(self, name: str, version: int) -> str:
        with self._lock:
            if (name, version) in self._models:
                return ""
            if name in self._unloaded:
                return str(_unloaded(name))
        refusal = self._refusal(name, version)
        return NOT_LOADED if refusal is None else refusal.reason

    def _client_digest(self, name: str, version: int) -> object:
        """Return what a version's manifest says; None where it cannot be read."""
        try:
            return self._registry.open(name, version).manifest.details.get("client_digest")
        except (CloisterError, OSError):
            return None

    def _check_not_unloaded(self, name: str) -> None:
        with self._lock:
            if name in self._unloaded:
                raise _unloaded(name)

    def _published(self, name: str, version: str) -> int:
        if not _VERSION.fullmatch(version):
            raise UnknownError(f"{version[:20]!r} is not a version: they are numbered from 1")
        number, published = int(version), self.versions(name)
        if number not in published:
            raise _no_version(name, number)
        return number

    def _current(self, name: str) -> int:
        try:
            current = self._in_use(name)
        except CloisterError:
            current = None
        except OSError as error:
            raise self._unreadable(error) from error
        published = self.versions(name)
        if current is not None and published:
            return current
        if published:
            raise UnavailableError(f"no version of {name} is current; state one in the address")
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownError:
        return UnknownError(
            f"there is no model {name}; POST /v2/repository/index lists what there is"
        )

    def _unreadable(self, error: OSError) -> UnavailableError:
        self._note(f"it cannot be read: {error}")
        return UnavailableError(
            "the registry of artifacts cannot be read; the service's log says why"
        )

    def _note(self, trouble: str) -> None:
        """Log what is wrong with the registry, or that nothing is any more, when that changes."""
        with self._lock:
            before, self._trouble = self._trouble, trouble
        if trouble and trouble != before:
            log.error("the registry of artifacts: %s; what is loaded goes on serving", trouble)
        elif before and not trouble:
            log.info("the registry of artifacts is as it should be again")


def _refused(name: str, version: int, reason: str) -> UnavailableError:
    return UnavailableError(f"version {version} of {name} cannot be served: {reason}")


def _unloaded(name: str) -> UnloadedError:
    return UnloadedError(f"{name} is unloaded; POST /v2/repository/models/{name}/load loads it")


def _no_version(name: str, version: int) -> UnknownError:
    return UnknownError(f"there is no version {version} of {name}")
