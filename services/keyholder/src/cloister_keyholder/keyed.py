"""Queries under a stored key, whose evaluation keys the service must have."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from cloister_keyholder.answer import Answer
from cloister_keyholder.api import METADATA_LIMIT, Inference
from cloister_keyholder.circuit import Circuit
from cloister_keyholder.errors import KeyholderError, RequestRefused
from cloister_keyholder.stored_key import StoredKey, StoredKeys
from cloister_keyholder.transport import Reply
from cloister_shared.open_inference import CLIENT_DIGEST

Integers = npt.NDArray[np.int64]

CHUNK_BYTES = 1 << 20
PROGRESS_SECONDS = 5.0
NOT_FOUND = 404

log = logging.getLogger(__name__)


class Send(Protocol):
    """``Transport.send``."""

    def __call__(
        self,
        method: str,
        path: str,
        *,
        limit: int,
        content: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the answer to a request."""


class KeyedQueries:
    """Queries of one model whose circuit needs evaluation keys.

    The key is made when the first query asks for one, and its evaluation keys are uploaded once,
    and again where the service no longer has them. May be used from several threads.
    """

    def __init__(
        self,
        send: Send,
        infer: Callable[[bytes, str], Inference],
        circuit: Circuit,
        keys: StoredKeys,
        client_digest: str,
    ) -> None:
        """Query a model.

        Args:
            send: a request to the service.
            infer: returns the encrypted result for a ciphertext, with the evaluation keys of this
                digest.
            circuit: of the model.
            keys: of the circuit.
            client_digest: SHA-256 of its client.zip.
        """
        self._send = send
        self._infer = infer
        self._circuit = circuit
        self._keys = keys
        self._client_digest = client_digest
        self._ready: StoredKey | None = None
        self._changing = threading.Lock()

    def ask(self, quantised: Integers) -> Answer:
        """Query the service with one quantised row, shape (n_features,).

        Raises:
            KeyUnusable: the stored key is damaged, or others could read it.
            KeyholderError: the query failed; see ``EncryptedModel``.
        """
        key = self._key()
        try:
            return self._ask(quantised, key)
        except RequestRefused as error:
            if error.status != NOT_FOUND or self._is_there(key):
                raise
        # It expired there, or another process has replaced the key.
        with self._changing:
            if self._ready is key:
                self._ready = None
        return self._ask(quantised, self._key())

    def _ask(self, quantised: Integers, key: StoredKey) -> Answer:
        start = time.perf_counter()
        query = self._circuit.encrypt(quantised, key.keyset)
        encrypted = time.perf_counter()
        inference = self._infer(query.ciphertext, key.digest)
        answered = time.perf_counter()
        integer_scores = query.decrypt(inference.result)
        decrypted = time.perf_counter()
        return Answer(
            integer_scores=integer_scores,
            encrypt_ms=1000 * (encrypted - start),
            request_ms=1000 * (answered - encrypted),
            server_ms=inference.evaluate_ms,
            decrypt_ms=1000 * (decrypted - answered),
            bytes_up=len(query.ciphertext),
            bytes_down=len(inference.result),
        )

    def _key(self) -> StoredKey:
        with self._changing:
            if self._ready is None or not self._keys.is_current(self._ready):
                key = self._keys.current()
                if not self._is_there(key):
                    self._upload(key)
                self._ready = key
                self._delete_retired()
            return self._ready

    def _is_there(self, key: StoredKey) -> bool:
        try:
            self._send("GET", _path(key.digest), limit=METADATA_LIMIT)
        except RequestRefused as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True

    def _upload(self, key: StoredKey) -> None:
        size = key.evaluation_keys.stat().st_size
        log.info("uploading evaluation keys, %.1f MB, once", size / 1e6)
        self._send(
            "PUT",
            _path(key.digest),
            limit=METADATA_LIMIT,
            content=lambda: _pieces(key.evaluation_keys, size),
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
                CLIENT_DIGEST: self._client_digest,
            },
        )
        log.info("the service has verified the evaluation keys")

    def _delete_retired(self) -> None:
        for digest in self._keys.retired():
            try:
                self._send("DELETE", _path(digest), limit=METADATA_LIMIT)
            except RequestRefused as error:
                if error.status != NOT_FOUND:
                    log.warning("old evaluation keys were not deleted at the service: %s", error)
                    continue
            except KeyholderError as error:
                log.warning("old evaluation keys were not deleted at the service: %s", error)
                continue
            self._keys.forget(digest)


def _path(digest: str) -> str:
    return f"/v2/keys/{digest}"


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    """Give a file's content, and log how far it is."""
    sent, said = 0, time.monotonic()
    with path.open("rb") as stream:
        while piece := stream.read(CHUNK_BYTES):
            yield piece
            sent += len(piece)
            if time.monotonic() - said >= PROGRESS_SECONDS:
                said = time.monotonic()
                log.info("uploaded %.0f %% of the evaluation keys", 100 * sent / size)
