"""Encrypted queries at a steady rate, each sent once, and what became of them."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx
import numpy as np
import numpy.typing as npt

from cloister_keyholder import EncryptedModel

SENDERS = 24


@dataclass(frozen=True)
class Prepared:
    """An encrypted query and its right answer."""

    ciphertext: bytes
    answer: bytes
    """Decrypts to the scores that the query has in the clear. A linear model's evaluation has no
    chance in it: every right answer is this one."""


@dataclass(frozen=True)
class Outcome:
    """What one query came to."""

    result: str
    """``right``, ``wrong``, an HTTP status or the name of an exception."""
    seconds: float


def prepare(model: EncryptedModel, rows: npt.NDArray[np.float64]) -> list[Prepared]:
    """Encrypt rows, have each evaluated once, and see that the results are right."""
    reference = model.reference()
    assert reference is not None
    prepared = []
    for row in model.quantise(rows):
        query = model.encrypt(row)
        response = httpx.post(
            model.infer_url, content=query.ciphertext, headers=model.infer_headers
        ).raise_for_status()
        expected = reference.integer_scores(row[None])[0]
        assert np.array_equal(query.decrypt(response.content), expected)
        prepared.append(Prepared(query.ciphertext, response.content))
    return prepared


class Load:
    """Sends queries at a rate, whatever the answers, while the context lasts.

    Args:
        url: to post to.
        headers: of every request.
        queries: sent in turn.
        rate: queries a second.
    """

    def __init__(
        self, url: str, headers: dict[str, str], queries: Sequence[Prepared], rate: float
    ) -> None:
        self._url, self._headers, self._queries, self._rate = url, headers, queries, rate
        self._futures: list[Future[Outcome]] = []
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(SENDERS)
        self._client = httpx.Client(
            timeout=30, limits=httpx.Limits(max_keepalive_connections=SENDERS)
        )
        self._pacer = threading.Thread(target=self._pace)

    def __enter__(self) -> Self:
        self._pacer.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._pacer.join()
        self._pool.shutdown()
        self._client.close()

    def outcomes(self) -> list[Outcome]:
        """What became of every query; once the context is left."""
        return [future.result() for future in self._futures]

    def counts(self) -> Counter[str]:
        """How often each result occurred; once the context is left."""
        return Counter(outcome.result for outcome in self.outcomes())

    def _pace(self) -> None:
        start = time.monotonic()
        for number in itertools.count():
            if self._stop.wait(max(0.0, start + number / self._rate - time.monotonic())):
                return
            prepared = self._queries[number % len(self._queries)]
            self._futures.append(self._pool.submit(self._send, prepared))

    def _send(self, prepared: Prepared) -> Outcome:
        start = time.monotonic()
        try:
            response = self._client.post(
                self._url, content=prepared.ciphertext, headers=self._headers
            )
            result = str(response.status_code)
            if response.status_code == 200:
                result = "right" if response.content == prepared.answer else "wrong"
        except httpx.HTTPError as error:
            result = type(error).__name__
        return Outcome(result, time.monotonic() - start)
