"""The stored key of a model whose circuit needs evaluation keys, which the service must have."""

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal, TypeVar

from cloister_keyholder.errors import KeyholderError
from cloister_keyholder.keys.stored_key import StoredKey, StoredKeys
from cloister_keyholder.querying.flow import Flow, wait
from cloister_keyholder.querying.slots import Slots
from cloister_keyholder.service.api import KeyService

T = TypeVar("T")
KeyState = Literal["absent", "making", "uploading", "ready"]
"""Of a stored key: none was asked for yet, it is made or read, its evaluation keys are uploaded, or
queries can be encrypted under it."""

log = logging.getLogger(__name__)


class UploadedKeys:
    """Gives the key to encrypt under, once the service has its evaluation keys.

    The key is made when the first query asks for one, and its evaluation keys are uploaded once,
    and again where the service no longer has them. May be used by flows side by side.
    """

    def __init__(self, service: KeyService, keys: StoredKeys) -> None:
        """Use the keys of one circuit.

        Args:
            service: gets their evaluation keys.
            keys: of the circuit.
        """
        self._service = service
        self._keys = keys
        self._ready: StoredKey | None = None
        self._changing = Slots(1)
        self._step: KeyState | None = None

    @property
    def state(self) -> KeyState:
        """How far the key is; the first two states can take seconds, or minutes."""
        return self._step or ("ready" if self._ready else "absent")

    def ready(self) -> Flow[StoredKey]:
        """Return the key to encrypt under.

        Raises:
            KeyUnusable: the stored key is damaged, or others could read it.
            KeyholderError: the service did not take the evaluation keys; as ``Transport.post``.
        """
        slot = self._changing.acquire()
        try:
            yield from wait([slot])
            key = self._ready
            if key is None or not self._keys.is_current(key):
                key = self._ready = yield from self._uploaded()
                yield from self._delete_retired()
            return key
        finally:
            self._changing.release(slot)

    def _uploaded(self) -> Flow[StoredKey]:
        try:
            # Takes seconds where one is made, and reads files in any case.
            self._step = "making"
            (key,) = yield from wait([_in_thread(self._keys.current)])
            if not (yield from self._service.has(key.digest)):
                self._step = "uploading"
                yield from self._service.upload(key.digest, key.evaluation_keys)
        finally:
            self._step = None
        return key

    def is_missing(self, key: StoredKey) -> Flow[bool]:
        """Whether the service lacked a key that was ready, which is then no longer taken for ready.

        It expired there, or another process has replaced the key.
        """
        # Where it was given up meanwhile, the service may have it by now, and did not before.
        if self._ready is key:
            if (yield from self._service.has(key.digest)):
                return False
            if self._ready is key:
                self._ready = None
        return True

    def _delete_retired(self) -> Flow[None]:
        for digest in self._keys.retired():
            try:
                yield from self._service.delete(digest)
            except KeyholderError as error:
                log.warning("old evaluation keys were not deleted at the service: %s", error)
            else:
                self._keys.forget(digest)


def _in_thread(work: Callable[[], T]) -> Future[T]:
    executor = ThreadPoolExecutor(1, thread_name_prefix="key")
    try:
        return executor.submit(work)
    finally:
        executor.shutdown(wait=False)
