"""HTTP to a service that may be restarting, busy, or hostile."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import count
from secrets import SystemRandom

import httpx
from pydantic import BaseModel, ValidationError

from cloister_keyholder.errors import (
    InvalidAnswer,
    KeyholderError,
    RequestRefused,
    ServiceUnavailable,
)

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


class Transport:
    """Sends requests to one service and repeats those that it could not answer.

    A request is repeated after connection and read errors and after 429, 502, 503 and 504, waiting
    twice as long each time, with jitter, and at least what Retry-After says up to
    ``RETRY_AFTER_LIMIT``. Inference keeps no state, so that repeating a POST is as safe as a GET.

    Args:
        url: of the service, http or https.
        retry_seconds: how long to repeat one request; 0 means a single attempt.
        transport: what httpx sends through; its own by default.
        sleep: waits that many seconds.
        clock: seconds of a clock that never goes back.

    Raises:
        KeyholderError: ``url`` is not an http address.
    """

    def __init__(
        self,
        url: str,
        *,
        retry_seconds: float,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        try:
            base = httpx.URL(url)
        except httpx.InvalidURL:
            base = httpx.URL("")
        if base.scheme not in ("http", "https") or not base.host:
            raise KeyholderError(f"{url!r} is not the address of a service: use http://host:port")
        self.url = str(base.copy_with(userinfo=b"")).rstrip("/")
        """The address, without credentials: safe to show."""
        self._client = httpx.Client(
            base_url=base,
            transport=transport,
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            # A compressed answer could unfold to any size before its length can be checked.
            headers={"Accept-Encoding": "identity"},
        )
        self._retry_seconds = retry_seconds
        self._sleep = sleep
        self._clock = clock
        self._jitter = SystemRandom()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def get(self, path: str, *, limit: int) -> Reply:
        """Return the answer to a GET; see ``post`` for what it raises.

        Args:
            path: below the service's address.
            limit: the most bytes that the answer may have.
        """
        return self._request("GET", path, limit=limit)

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
        return self._request("POST", path, limit=limit, content=content, headers=headers)

    def send(
        self,
        method: str,
        path: str,
        *,
        limit: int,
        content: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the answer to a request whose repetition changes nothing; raises as ``post``.

        Args:
            method: PUT or DELETE, for example.
            path: below the service's address.
            limit: the most bytes that the answer may have.
            content: gives the body's pieces, anew for every attempt; ``headers`` state its length.
            headers: beside those of every request.
        """
        return self._request(method, path, limit=limit, content=content, headers=headers)

    def _request(
        self,
        method: str,
        path: str,
        *,
        limit: int,
        content: bytes | Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        give_up = self._clock() + self._retry_seconds
        for attempt in count():
            retry_after = 0.0
            body = content() if callable(content) else content
            request = self._client.build_request(method, path, content=body, headers=headers)
            try:
                return self._once(request, limit)
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
            except _Busy as error:
                reason, retry_after = str(error), error.retry_after
            backoff = min(LONGEST_DELAY, FIRST_DELAY * 2**attempt)
            delay = max(retry_after, backoff * self._jitter.uniform(0.5, 1.0))
            if self._clock() + delay > give_up:
                raise ServiceUnavailable(
                    f"{self.url} is not available ({reason}): see that the inference service runs "
                    "there, or give its address with --url or CLOISTER_URL"
                )
            log.info("%s is not available (%s): trying again in %.1f s", self.url, reason, delay)
            self._sleep(delay)
        raise AssertionError("unreachable: the attempts do not end")

    def _once(self, request: httpx.Request, limit: int) -> Reply:
        response = self._client.send(request, stream=True)
        try:
            if response.is_success:
                return Reply(response.headers, self._read(response, limit))
            detail = _detail(self._read(response, PROBLEM_LIMIT)) or response.reason_phrase
            if response.status_code in RETRIED_STATUSES:
                raise _Busy(response.status_code, detail, _retry_after(response.headers))
            raise RequestRefused(response.status_code, detail)
        finally:
            response.close()

    def _read(self, response: httpx.Response, limit: int) -> bytes:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise InvalidAnswer(f"{self.url} compressed an answer, which it was told not to do")
        deadline = self._clock() + ANSWER_SECONDS
        body = bytearray()
        for part in response.iter_bytes():
            body += part
            if len(body) > limit:
                raise InvalidAnswer(f"{self.url} answered with more than {limit} bytes")
            if self._clock() > deadline:
                raise InvalidAnswer(f"an answer of {self.url} took more than {ANSWER_SECONDS:g} s")
        return bytes(body)


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
