"""Many rows through encryption, requests and decryption at the same time.

Rows go in chunks, a flow each: its rows are encrypted, sent and their results decrypted. A bounded
number of chunks is under way at a time, and their answers are given in the order of the rows, so
that however many rows there are, only so many ciphertexts and results are held.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from cloister_keyholder.encryption.circuit import Circuit, Integers
from cloister_keyholder.errors import KeyholderError, RequestRefused
from cloister_keyholder.keys.keyed import UploadedKeys
from cloister_keyholder.keys.stored_key import StoredKey
from cloister_keyholder.querying.flow import Flow, wait
from cloister_keyholder.querying.slots import Slots
from cloister_keyholder.service.api import Description, Inference, InferenceService
from cloister_keyholder.workers.pool import Encryptors, Pool, discard
from cloister_shared.service import worker_threads

EVALUATE_SECONDS = 5.0
"""The most encrypted evaluation that one request asks for, once the service has stated what a
query takes: an answer has to come before anyone takes the connection for dead."""
CHUNKS_A_CONNECTION = 2
"""A few rows are cut into so many chunks that encrypting and evaluating them overlap."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """The decrypted answer to one query, and what it took."""

    integer_scores: Integers
    """Shape (n_outputs,)."""
    encrypt_ms: float
    """Key generation, where the key is fresh, and encryption, in milliseconds, without waiting for
    its turn."""
    request_ms: float
    """Of the whole request that carried the query: from first sending it to holding its answer,
    repetitions included."""
    server_ms: float | None
    """The encrypted evaluation: what the service states for the request, divided by its queries;
    None where it states nothing."""
    decrypt_ms: float
    queries: int
    """That the same request carried."""
    bytes_up: int
    """Length of the ciphertext."""
    bytes_down: int
    """Length of the result."""


@dataclass(frozen=True)
class Limits:
    """How much happens at a time.

    Raises:
        KeyholderError: a number is below 1.
    """

    processes: int = field(default_factory=worker_threads)
    """Cores that encrypt, all by default. The native client has a thread for each; Concrete's has
    processes, which are started when there are rows enough for seconds of encryption, hold the keys
    of what they encrypt, and end when the model is closed. With 1, everything is encrypted by one
    thread of the process itself."""
    connections: int = 4
    """Requests to the service at a time."""
    batch: int = 16
    """Queries in a request, at most; fewer once the service refuses so many."""

    def __post_init__(self) -> None:
        if min(self.processes, self.connections, self.batch) < 1:
            raise KeyholderError("processes, connections and batch must each be at least 1")


class Pipeline:
    """Queries about one version of a model.

    Args:
        service: asked.
        description: of the version.
        circuit: of the version.
        limits: on what happens at a time.
        keys: gives the stored key that all rows are encrypted under, in this process; without it
            each row has a key of its own.
    """

    def __init__(
        self,
        service: InferenceService,
        description: Description,
        circuit: Circuit,
        limits: Limits,
        keys: UploadedKeys | None = None,
    ) -> None:
        if keys:
            # One evaluation takes so long that nothing is gained by sending several together.
            limits = replace(limits, processes=1, batch=1)
        self._service = service
        self._description = description
        compact = description.compact if circuit.client.name == "native" else None
        self._is_compact = compact is not None
        self._result_limit = circuit.result_limit(compact)
        self._encryptors = Encryptors(circuit, compact, limits.processes)
        self._limits = limits
        self._keys = keys
        self._slots = Slots(limits.connections)
        self._largest = limits.batch

    @property
    def batch(self) -> int:
        """Queries in a request, at most."""
        return self._limits.batch

    @property
    def window(self) -> int:
        """Chunks under way at a time: a request each, and one or more that are encrypted."""
        return self._limits.connections + 1 + self._limits.processes // self._limits.batch

    def close(self) -> None:
        """Drop all keys and end all processes that encrypt."""
        self._encryptors.close()

    def ask(self, row: Integers) -> Flow[list[Answer]]:
        """Query with one quantised row, shape (n_features,)."""
        return self._ask([row], self._encryptors.for_rows(1))

    def chunks(self, rows: Integers) -> Iterator[Flow[list[Answer]]]:
        """Cut quantised rows, shape (n, n_features), into flows that each answer the next few."""
        if not len(rows):
            return
        pool = self._encryptors.for_rows(len(rows))
        size = -(-len(rows) // (CHUNKS_A_CONNECTION * self._limits.connections))
        size = min(size, self._limits.batch)
        for start in range(0, len(rows), size):
            yield self._ask(rows[start : start + size], pool)

    def stream(self, rows: Iterable[Integers]) -> Iterator[Flow[list[Answer]]]:
        """Cut any number of quantised rows into flows as they are needed."""
        rows, taken = iter(rows), 0
        while chunk := list(islice(rows, self.batch)):
            taken += len(chunk)
            yield self.chunk(chunk, taken)

    def chunk(self, rows: Sequence[Integers], taken: int) -> Flow[list[Answer]]:
        """Query with the next rows of a stream, at most ``batch``.

        Args:
            rows: each of shape (n_features,).
            taken: rows of the stream so far, these included; as many again can be expected.
        """
        return self._ask(rows, self._encryptors.for_rows(taken))

    def _ask(self, rows: Sequence[Integers] | Integers, pool: Pool) -> Flow[list[Answer]]:
        if self._keys is None:
            return (yield from self._query(rows, pool))
        key = yield from self._keys.ready()
        try:
            return (yield from self._query(rows, self._encryptors.here(), key))
        except RequestRefused as error:
            # What is not there may be the model.
            if error.status != 404 or not (yield from self._keys.is_missing(key)):
                raise
        key = yield from self._keys.ready()
        return (yield from self._query(rows, self._encryptors.here(), key))

    def _query(
        self, rows: Sequence[Integers] | Integers, pool: Pool, key: StoredKey | None = None
    ) -> Flow[list[Answer]]:
        """Query with rows, encrypted under a stored key or else under a new one each."""
        sealing = [pool.encrypt(row, key.secret if key else None) for row in rows]
        try:
            queries = yield from wait(sealing)
            inferences = yield from self._infer(
                [query.ciphertext for query in queries], key.digest if key else None
            )
            opened = yield from wait(
                [
                    query.decrypt(inference.result)
                    for query, inference in zip(queries, inferences, strict=True)
                ]
            )
        finally:
            # Whatever happened, no key outlives its query.
            for sealed in sealing:
                discard(sealed)
        return [
            Answer(
                integer_scores=decrypted.integer_scores,
                encrypt_ms=query.milliseconds,
                request_ms=inference.request_ms,
                server_ms=inference.evaluate_ms,
                decrypt_ms=decrypted.milliseconds,
                queries=inference.queries,
                bytes_up=len(query.ciphertext),
                bytes_down=len(inference.result),
            )
            for query, inference, decrypted in zip(queries, inferences, opened, strict=True)
        ]

    def _infer(
        self, ciphertexts: Sequence[bytes], evaluation_key: str | None
    ) -> Flow[list[Inference]]:
        """Send ciphertexts in as few requests as the service takes."""
        inferences: list[Inference] = []
        while len(inferences) < len(ciphertexts):
            some = ciphertexts[len(inferences) : len(inferences) + self._largest]
            slot = self._slots.acquire()
            try:
                yield from wait([slot])
                answered = yield from self._service.infer(
                    self._description,
                    some,
                    result_limit=self._result_limit,
                    evaluation_key=evaluation_key,
                    compact=self._is_compact,
                )
            except RequestRefused as error:
                if error.status != 413 or len(some) == 1:
                    raise
                self._take_at_most(len(some) // 2)
                continue
            finally:
                self._slots.release(slot)
            inferences += answered
            evaluate_ms = answered[0].evaluate_ms
            if evaluate_ms:
                self._take_at_most(int(1000 * EVALUATE_SECONDS / evaluate_ms))
        return inferences

    def _take_at_most(self, queries: int) -> None:
        if queries < self._largest:
            self._largest = max(1, queries)
            log.info("requests have %d queries from here on", self._largest)
