"""HTTP to a service that may be restarting, busy, or hostile."""

import asyncio
import ipaddress
import logging
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from pathlib import Path
from secrets import SystemRandom
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from cloister_keyholder.errors import (
    InvalidAnswer,
    KeyholderError,
    RequestRefused,
    ServiceUnavailable,
)
from cloister_keyholder.querying.flow import Flow, Send, Sleep, Step, Wait, run, run_async
from cloister_keyholder.service.credentials import authorization, trust

T = TypeVar("T")

RETRIED_STATUSES = frozenset({429, 502, 503, 504})
RETRY_AFTER_LIMIT = 30.0
"""The longest that an answer's Retry-After can make a client wait, in seconds."""
FIRST_DELAY = 0.25
"""Seconds before the first repetition; doubled each time."""
LONGEST_DELAY = 8.0
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
"""The longest silence within an answer."""
ANSWER_SECONDS = 300.0
"""The longest that a whole answer may take, against one that drips."""
PIECE_BYTES = 1 << 20
"""Of a file, in one go."""
PROGRESS_SECONDS = 5.0
"""How often an upload says how far it is."""
REQUEST_ID = "X-Request-Id"
"""Says in every log on the way which request it is; the same for its repetitions."""
PROBLEM_LIMIT = 64 * 1024
DETAIL_LIMIT = 500

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """A successful answer."""

    headers: httpx.Headers
    body: bytes


class _Problem(BaseModel):
    """The members of an RFC 9457 problem that are shown."""

    title: str = ""
    detail: str = ""


class _Busy(Exception):  # noqa: N818 - no error: it is answered by trying again
    """An answer with a status that another attempt may change."""

    def __init__(self, status: int, detail: str, retry_after: float) -> None:
        super().__init__(f"it answers {status}: {detail}")
        self.retry_after = retry_after


class FileBody(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A file as the body of a request, read anew whenever the request is repeated."""

    def __init__(self, path: Path) -> None:
        """Send a file.

        Raises:
            OSError: it cannot be read.
        """
        self._path = path
        self.size = path.stat().st_size
        """Bytes."""

    def __iter__(self) -> Iterator[bytes]:
        """Give its pieces."""
        with self._path.open("rb") as stream:
            said = _Said(self.size)
            while piece := stream.read(PIECE_BYTES):
                yield piece
                said.add(len(piece))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give its pieces, without holding up the event loop."""
        with await asyncio.to_thread(self._path.open, "rb") as stream:
            said = _Said(self.size)
            while piece := await asyncio.to_thread(stream.read, PIECE_BYTES):
                yield piece
                said.add(len(piece))


class _Said:
    """Logs how far an upload is, now and then."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._sent = 0
        self._at = time.monotonic()

    def add(self, length: int) -> None:
        self._sent += length
        if time.monotonic() - self._at >= PROGRESS_SECONDS:
            self._at = time.monotonic()
            log.info("sent %.0f %% of %.1f MB", 100 * self._sent / self._size, self._size / 1e6)


class Exchanges:
    """Requests to one service, repeated where it could not answer: all but sending and sleeping.

    A request is repeated after connection and read errors and after 429, 502, 503 and 504, waiting
    twice as long each time, with jitter, and at least what Retry-After says up to
    ``RETRY_AFTER_LIMIT``. Inference keeps no state, so that repeating a POST is as safe as a GET,
    and evaluation keys are put at the address of their own digest.
    """

    _client: httpx.Client | httpx.AsyncClient

    def __init__(
        self,
        url: str,
        retry_seconds: float,
        clock: Callable[[], float],
        api_key: str | None,
        ca_path: Path | None,
    ) -> None:
        try:
            base = httpx.URL(url)
        except httpx.InvalidURL:
            base = httpx.URL("")
        if base.scheme not in ("http", "https") or not base.host:
            raise KeyholderError(f"{url!r} is not the address of a service: use http://host:port")
        self._base = base
        self.url = str(base.copy_with(userinfo=b"")).rstrip("/")
        """The address, without credentials: safe to show."""
        shown = authorization(api_key)
        if shown and base.userinfo:
            raise KeyholderError(
                f"give either an API key or a user name in the address of {self.url}, not both"
            )
        if shown and base.scheme == "http" and not _is_loopback(base.host):
            log.warning(
                "the API key passes in the clear on the way to %s: use https unless that network "
                "is trusted",
                self.url,
            )
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._jitter = SystemRandom()
        self._timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        # A compressed answer could unfold to any size before its length can be checked. In this
        # form an API key does not appear where the object is shown.
        self._headers = httpx.Headers({"Accept-Encoding": "identity", **shown})
        self._verify = trust(ca_path)

    def exchange(
        self,
        method: str,
        path: str,
        *,
        limit: int,
        content: bytes | FileBody | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Flow[Reply]:
        """Return the answer to a request; see ``Transport.post`` for arguments and errors."""
        request_id = uuid.uuid4().hex
        stated = {**(headers or {}), REQUEST_ID: request_id}
        request = self._request(method, path, content, stated)
        give_up = self._clock() + self._retry_seconds
        for attempt in count():
            retry_after = 0.0
            try:
                reply: Reply = yield Send(request, limit)
            except httpx.TransportError as error:
                self._check_trust(error)
                reason = str(error) or type(error).__name__
            except _Busy as error:
                reason, retry_after = str(error), error.retry_after
            else:
                return reply
            backoff = min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)
            delay = max(retry_after, backoff * self._jitter.uniform(0.5, 1.0))
            if self._clock() + delay > give_up:
                raise ServiceUnavailable(
                    f"{self.url} is not available ({reason}; request {request_id}): see that the "
                    "inference service runs "
                    "there, or give its address with --url or CLOISTER_URL"
                )
            log.info(
                "%s is not available (%s): trying again in %.1f s",
                self.url,
                reason,
                delay,
                extra={"request_id": request_id},
            )
            yield Sleep(delay)
        raise AssertionError("unreachable: the attempts do not end")

    def _request(
        self,
        method: str,
        path: str,
        content: bytes | FileBody | None,
        headers: Mapping[str, str],
    ) -> httpx.Request:
        if not isinstance(content, FileBody):
            return self._client.build_request(method, path, content=content, headers=headers)
        stated = {**headers, "Content-Length": str(content.size)}
        bare = self._client.build_request(method, path, headers=stated)
        # Of a body that can be read both ways, the client would choose the one for threads.
        return httpx.Request(
            method, bare.url, headers=bare.headers, stream=content, extensions=bare.extensions
        )

    def _check_trust(self, error: httpx.TransportError) -> None:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise KeyholderError(
                    f"the certificate of {self.url} is not trusted ({cause.verify_message}): name "
                    "the CA certificates of the service in CLOISTER_CA_PATH, and use the host name "
                    "that the certificate is for"
                ) from None
            cause = cause.__cause__ or cause.__context__

    def _body(self, response: httpx.Response, limit: int) -> "_Body":
        """Return what takes the parts of an answer in; an error's text may have its own length."""
        return _Body(
            self.url, response, limit if response.is_success else PROBLEM_LIMIT, self._clock
        )


class _Body:
    """The body of an answer as it arrives, within limits."""

    def __init__(
        self, url: str, response: httpx.Response, limit: int, clock: Callable[[], float]
    ) -> None:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise InvalidAnswer(f"{url} compressed an answer, which it was told not to do")
        self._url = url
        self._response = response
        self._limit = limit
        self._clock = clock
        self._deadline = clock() + ANSWER_SECONDS
        self._content = bytearray()

    def take(self, part: bytes) -> None:
        """Add what has arrived."""
        self._content += part
        if len(self._content) > self._limit:
            raise InvalidAnswer(f"{self._url} answered with more than {self._limit} bytes")
        if self._clock() > self._deadline:
            raise InvalidAnswer(f"an answer of {self._url} took more than {ANSWER_SECONDS:g} s")

    def reply(self) -> Reply:
        """Return the whole answer, or raise what it means if it is an error."""
        response = self._response
        if response.is_success:
            return Reply(response.headers, bytes(self._content))
        detail = _detail(bytes(self._content)) or response.reason_phrase
        if response.status_code in RETRIED_STATUSES:
            raise _Busy(response.status_code, detail, _retry_after(response.headers))
        raise RequestRefused(response.status_code, detail)


class Transport(Exchanges):
    """Sends requests to one service and repeats those that it could not answer.

    See ``Exchanges`` for what is repeated. May be used from several threads.

    Args:
        url: of the service, http or https.
        retry_seconds: how long to repeat one request; 0 means a single attempt.
        transport: what httpx sends through; its own by default.
        sleep: waits that many seconds.
        clock: seconds of a clock that never goes back.
        api_key: shown to this service and to no other host; None or empty for none.
        ca_path: PEM file with the CA certificates that are trusted for https, the usual ones by
            default.

    Raises:
        KeyholderError: ``url`` is not an http address, or the API key or ``ca_path`` cannot be
            used.
    """

    def __init__(
        self,
        url: str,
        *,
        retry_seconds: float,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        api_key: str | None = None,
        ca_path: Path | None = None,
    ) -> None:
        super().__init__(url, retry_seconds, clock, api_key, ca_path)
        self._client: httpx.Client = httpx.Client(
            base_url=self._base,
            transport=transport,
            verify=self._verify,
            # Who answers with another address would be shown the API key there.
            follow_redirects=False,
            timeout=self._timeout,
            headers=self._headers,
        )
        self._sleep = sleep

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, *, limit: int) -> Reply:
        """Return the answer to a GET; see ``post`` for what it raises.

        Args:
            path: below the service's address.
            limit: the most bytes that the answer may have.
        """
        return self.run(self.exchange("GET", path, limit=limit))

    def post(self, path: str, content: bytes, headers: Mapping[str, str], *, limit: int) -> Reply:
        """Return the answer to a POST.

        Args:
            path: below the service's address.
            content: the body.
            headers: beside those of every request.
            limit: the most bytes that the answer may have.

        Raises:
            ServiceUnavailable: there was no answer within the time for retries.
            RequestRefused: the answer is an error.
            InvalidAnswer: the answer is too large, too slow, or compressed.
        """
        return self.run(self.exchange("POST", path, limit=limit, content=content, headers=headers))

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow and return its result."""
        return run(flow, self._do)

    def attempt(self, step: Send) -> Reply:
        """Send a request once."""
        response = self._client.send(step.request, stream=True)
        try:
            body = self._body(response, step.limit)
            for part in response.iter_bytes():
                body.take(part)
            return body.reply()
        finally:
            response.close()

    def _do(self, step: Step) -> object:
        match step:
            case Send():
                return self.attempt(step)
            case Sleep(seconds):
                self._sleep(seconds)
                return None
            case Wait(futures):
                return [future.result() for future in futures]


class AsyncTransport(Exchanges):
    """``Transport`` for an event loop.

    Args:
        url: as ``Transport`` has it, like the others.
        retry_seconds: how long to repeat one request.
        transport: what httpx sends through; its own by default.
        clock: seconds of a clock that never goes back.
        api_key: shown to this service and to no other host.
        ca_path: PEM file with the CA certificates that are trusted for https.

    Raises:
        KeyholderError: as ``Transport``.
    """

    def __init__(
        self,
        url: str,
        *,
        retry_seconds: float,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
        api_key: str | None = None,
        ca_path: Path | None = None,
    ) -> None:
        super().__init__(url, retry_seconds, clock, api_key, ca_path)
        self._client: httpx.AsyncClient = httpx.AsyncClient(
            base_url=self._base,
            transport=transport,
            verify=self._verify,
            # Who answers with another address would be shown the API key there.
            follow_redirects=False,
            timeout=self._timeout,
            headers=self._headers,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def run(self, flow: Flow[T]) -> T:
        """Carry out a flow and return its result."""
        return await run_async(flow, self._do)

    async def _send(self, step: Send) -> Reply:
        response = await self._client.send(step.request, stream=True)
        try:
            body = self._body(response, step.limit)
            async for part in response.aiter_bytes():
                body.take(part)
            return body.reply()
        finally:
            await response.aclose()

    async def _do(self, step: Step) -> object:
        match step:
            case Send():
                return await self._send(step)
            case Sleep(seconds):
                await asyncio.sleep(seconds)
                return None
            case Wait(futures):
                return await asyncio.gather(*map(asyncio.wrap_future, futures))


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _detail(body: bytes) -> str:
    with suppress(ValidationError):
        problem = _Problem.model_validate_json(body)
        text = problem.detail or problem.title
        # Control characters from the network could steer the terminal that shows them.
        return "".join(c if c.isprintable() else " " for c in text[:DETAIL_LIMIT])
    return ""


def _retry_after(headers: httpx.Headers) -> float:
    """Seconds from Retry-After, which is a number or a date (RFC 9110, 10.2.3); else 0."""
    value = headers.get("Retry-After", "")
    seconds = 0.0
    if value.isascii() and value.isdecimal():
        seconds = float(value)
    else:
        with suppress(ValueError, TypeError):
            seconds = (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), RETRY_AFTER_LIMIT)
