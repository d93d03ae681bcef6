"""The models that are open, each at its current version."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from cloister_keyholder.model import EncryptedModel
from cloister_keyholder.service.api import Description
from cloister_shared.reference import ClearCircuit

Describe = Callable[[str], Description]
Open = Callable[[str, int], EncryptedModel]


@dataclass
class OpenModel:
    """A version of a model that is open, and its circuit in the clear."""

    encrypted: EncryptedModel
    users: int = 0
    is_replaced: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _reference: list[ClearCircuit | None] = field(default_factory=list)

    def reference(self) -> ClearCircuit | None:
        """Return the circuit in the clear, fetched once; None where it is not published.

        Raises:
            KeyholderError: as ``EncryptedModel.reference``.
        """
        with self._lock:
            if not self._reference:
                self._reference.append(self.encrypted.reference())
            return self._reference[0]


class OpenModels:
    """Opens models as they are asked for, and anew once another version is current.

    May be used from several threads. A version that is replaced is closed after its last user.

    Args:
        describe: says which version of a model is current.
        open_version: opens one.
    """

    def __init__(self, describe: Describe, open_version: Open) -> None:
        self._describe = describe
        self._open = open_version
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._models: dict[str, OpenModel] = {}

    @contextmanager
    def current(self, name: str) -> Iterator[OpenModel]:
        """Use the current version of a model.

        Raises:
            KeyholderError: as ``EncryptedModel``.
        """
        model = self._take(name, self._describe(name))
        try:
            yield model
        finally:
            with self._lock:
                model.users -= 1
                is_done = model.is_replaced and not model.users
            if is_done:
                model.encrypted.close()

    def close(self) -> None:
        """Close all of them; what is under way fails."""
        with self._lock:
            models = list(self._models.values())
            self._models.clear()
        for model in models:
            model.encrypted.close()

    def _take(self, name: str, described: Description) -> OpenModel:
        with self._lock:
            opening = self._opening.setdefault(name, threading.Lock())
        with opening:
            with self._lock:
                model = self._models.get(name)
                if model and _is(model, described):
                    model.users += 1
                    return model
            # Takes a second where Concrete is loaded: other models are not held up.
            opened = OpenModel(self._open(name, described.version), users=1)
            with self._lock:
                replaced = self._models.get(name)
                self._models[name] = opened
                if replaced:
                    replaced.is_replaced = True
                is_done = replaced is not None and not replaced.users
        if replaced and is_done:
            replaced.encrypted.close()
        return opened


def _is(model: OpenModel, described: Description) -> bool:
    held = model.encrypted.description
    return (held.version, held.client_digest) == (described.version, described.client_digest)
