"""``EncryptedModel`` for programs with an event loop."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
import numpy as np

from cloister_keyholder.encryption.client import ClientSetting
from cloister_keyholder.keys.stored_key import KeyFolder
from cloister_keyholder.model import (
    Floats,
    Integers,
    Labels,
    LocalModel,
    decision,
)
from cloister_keyholder.querying.flow import Flow
from cloister_keyholder.querying.pipeline import Answer, Limits
from cloister_keyholder.service.transport import AsyncTransport
from cloister_shared.preprocessing import OutOfBounds, Row, Table
from cloister_shared.reference import ClearCircuit

T = TypeVar("T")


class AsyncEncryptedModel(LocalModel):
    """Predicts on values that the service never sees, without blocking the event loop.

    The same as ``EncryptedModel``, by the same rules; see there for what its methods take and
    raise. Encryption happens in threads and processes of its own. A cancelled call ends its
    requests, and its keys are dropped. To be used in one event loop.

    >>> async with AsyncEncryptedModel("http://127.0.0.1:8000", "digits") as model:
    ...     await model.predict(rows)

    Args:
        url: of the inference service.
        name: of the model.
        version: to query; the current one by default.
        transport: what httpx sends through; its own by default.
        retry_seconds: how long one request is repeated while the service is unreachable or busy.
        out_of_bounds: ``refuse`` or ``clip`` values outside their declared bounds.
        limits: on cores that encrypt, on requests at a time and on queries in a request.
        api_key: of the service, where it needs one.
        ca_path: PEM file with the CA certificates that are trusted for https.
        key_folder: for the stored keys of models that need evaluation keys.
        client: what makes keys, encrypts and decrypts.
        compact: whether messages are compact where the service and the client can.

    Raises:
        KeyholderError: ``url`` is no address, or the API key or ``ca_path`` cannot be used; from
            methods, the model is not open yet. Opening raises as ``EncryptedModel``.
    """

    def __init__(  # noqa: PLR0913 - as ``EncryptedModel``
        self,
        url: str,
        name: str,
        *,
        version: int | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        retry_seconds: float = 60.0,
        out_of_bounds: OutOfBounds | None = None,
        limits: Limits | None = None,
        api_key: str | None = None,
        ca_path: Path | None = None,
        key_folder: KeyFolder | None = None,
        client: ClientSetting = "auto",
        compact: bool = True,
    ) -> None:
        self._transport = AsyncTransport(
            url,
            retry_seconds=retry_seconds,
            transport=transport,
            api_key=api_key,
            ca_path=ca_path,
        )
        super().__init__(
            name, self._transport, out_of_bounds, limits, key_folder, client, compact=compact
        )
        self._version = version

    async def __aenter__(self) -> Self:
        try:
            await self._transport.run(self._open(self._version))
        except BaseException:
            await self._transport.aclose()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Drop all keys, and end processes and connections."""
        if self._opened:
            # Threads are waited for that finish the row at hand.
            await asyncio.to_thread(self._release)
        await self._transport.aclose()

    async def predict(self, X: Table) -> Labels:  # noqa: N803 - scikit-learn's name
        """Return the predicted class label, or value of a regression, of every row, shape (n,)."""
        return self.answers(await self._scores(X))

    async def predict_proba(self, X: Table) -> Floats:  # noqa: N803 - scikit-learn's name
        """Return class probabilities, shape (n, n_classes)."""
        self._check_probabilities()
        return self.probabilities(await self._scores(X))

    async def decision_function(self, X: Table) -> Floats:  # noqa: N803 - scikit-learn's
        """Return the scores, shape (n,) for two classes, else (n, n_classes)."""
        self._check_scores()
        return decision(await self._scores(X))

    async def iter_predict(
        self, rows: Iterable[Row] | AsyncIterable[Row]
    ) -> AsyncGenerator[np.generic, None]:
        """Give what is predicted of each row, in order, while further rows are under way.

        Args:
            rows: each of shape (n_features,); any number.
        """
        async with aclosing(self._stream(self._chunks(rows))) as answers:
            async for answer in answers:
                yield self._answer_of(answer)

    async def ask(self, quantised: Integers) -> Answer:
        """Query the service with one quantised row, shape (n_features,)."""
        (answer,) = await self._transport.run(self._pipeline.ask(quantised))
        return answer

    async def ask_all(self, quantised: Integers) -> AsyncGenerator[Answer, None]:
        """Query with quantised rows, shape (n, n_features), and give the answers in their order."""
        async with aclosing(self._stream(_each(self._pipeline.chunks(quantised)))) as answers:
            async for answer in answers:
                yield answer

    async def reference(self) -> ClearCircuit | None:
        """Return the circuit in the clear, or None where the service does not publish it."""
        return await self._transport.run(self._reference())

    async def _scores(self, rows: Table) -> Floats:
        quantised = self.quantise(rows)
        if len(quantised) == 1:
            return self._scores_of([await self.ask(quantised[0])])
        async with aclosing(self.ask_all(quantised)) as answers:
            return self._scores_of([answer async for answer in answers])

    async def _chunks(
        self, rows: Iterable[Row] | AsyncIterable[Row]
    ) -> AsyncIterator[Flow[list[Answer]]]:
        chunk: list[Integers] = []
        taken = 0
        async for row in rows if isinstance(rows, AsyncIterable) else _each(rows):
            chunk.append(self._quantise_next(row, taken))
            taken += 1
            if len(chunk) == self._pipeline.batch:
                yield self._pipeline.chunk(chunk, taken)
                chunk = []
        if chunk:
            yield self._pipeline.chunk(chunk, taken)

    async def _stream(
        self, flows: AsyncIterator[Flow[list[Answer]]]
    ) -> AsyncGenerator[Answer, None]:
        """Run flows side by side and give what they return; as ``background.stream``."""
        running: deque[asyncio.Task[list[Answer]]] = deque()
        try:
            async for flow in flows:
                running.append(asyncio.create_task(self._transport.run(flow)))
                while running and (len(running) >= self._pipeline.window or running[0].done()):
                    for answer in await running[0]:
                        yield answer
                    running.popleft()
            while running:
                for answer in await running[0]:
                    yield answer
                running.popleft()
        finally:
            for left in running:
                left.cancel()
            await asyncio.gather(*running, return_exceptions=True)


async def _each(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item
