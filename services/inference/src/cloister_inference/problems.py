"""Every error that a client can be answered with, as problem details (RFC 9457)."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus
from types import MappingProxyType
from typing import ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 30
"""After how long clients are told to ask again for a model that cannot be served."""
DRAIN_BYTES = 8 << 20
"""Of a body that is not wanted, this much is read before the connection is closed on the rest."""
DRAIN_SECONDS = 0.5
LINGER_SECONDS = 0.2
"""How long a client that is still sending has to notice the answer before it is cut off."""


class Problem(BaseModel):
    """Problem details."""

    type: str = "about:blank"
    title: str
    """The phrase of the HTTP status."""
    status: int
    detail: str
    """What is wrong and what to do."""
    error: str
    """The same as ``detail``, where the Open Inference Protocol has it."""
    ready: bool | None = None
    """False where a model or the service is not ready; left out elsewhere."""


class ProblemError(Exception):
    """A request that cannot be answered as asked; the message is for the client."""

    status: ClassVar[HTTPStatus]
    leaves_body: bool = False
    """Whether the request's body is left unread, so that the connection cannot go on."""
    ready: ClassVar[bool | None] = None
    headers: Mapping[str, str] = MappingProxyType({})


class MalformedRequestError(ProblemError):
    """The request is not what the protocol or the circuit's form says."""

    status = HTTPStatus.BAD_REQUEST


class UnauthenticatedError(ProblemError):
    """The request states no valid API key; says no more, whatever was wrong with the one stated."""

    status = HTTPStatus.UNAUTHORIZED
    leaves_body = True
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})

    def __init__(self) -> None:
        super().__init__(
            "state a valid API key of this service in the header Authorization: Bearer KEY; its "
            "operator gives them out"
        )


class NoControlError(ProblemError):
    """Clients may not load and unload models."""

    status = HTTPStatus.FORBIDDEN


class UnknownError(ProblemError):
    """There is no such model, version or file."""

    status = HTTPStatus.NOT_FOUND


class UnloadedError(UnknownError):
    """The model was unloaded, and is not served until it is loaded."""

    ready = False


class OtherClientError(ProblemError):
    """The ciphertext was made for another client.zip."""

    status = HTTPStatus.CONFLICT


class LengthRequiredError(ProblemError):
    """The request does not state the length of its body."""

    status = HTTPStatus.LENGTH_REQUIRED
    leaves_body = True


class TooSlowError(ProblemError):
    """The body takes too long to arrive."""

    status = HTTPStatus.REQUEST_TIMEOUT
    leaves_body = True


class TooLargeError(ProblemError):
    """The body, or the batch in it, is larger than the service takes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    leaves_body = True


class MediaTypeError(ProblemError):
    """The body is of a type or encoding that the service does not read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class InsufficientStorageError(ProblemError):
    """What is uploaded has no room: the owner's quota or the disk is full."""

    status = HTTPStatus.INSUFFICIENT_STORAGE


class BatchAboveRateError(ProblemError):
    """The batch alone is more than its API key's rate limit allows at any time."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class RateLimitedError(ProblemError):
    """The API key's rate limit is used up; raised once the body is read."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, detail: str, retry_seconds: int) -> None:
        """Say when to try again.

        Args:
            detail: what is wrong and what to do.
            retry_seconds: until there is room, at least 1.
        """
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_seconds)}


class RequestRateLimitedError(RateLimitedError):
    """The same, raised before the body is read."""

    leaves_body = True


class UnavailableError(ProblemError):
    """The model is published but cannot be served."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    ready = False
    headers = MappingProxyType({"Retry-After": str(RETRY_SECONDS)})


class StoppingError(ProblemError):
    """The service is asked whether it is ready while it stops.

    Not found is what a load balancer takes for "send nothing new here" (HAProxy's
    ``http-check disable-on-404``), where 503 would mean that what is running here is lost.
    """

    status = HTTPStatus.NOT_FOUND
    ready = False

    def __init__(self) -> None:
        super().__init__("the service is stopping: send requests to another replica")


class BusyError(ProblemError):
    """The service has more to do than it can; the answer says when to come again."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str, retry_seconds: int) -> None:
        """Say what is wrong.

        Args:
            detail: for the client.
            retry_seconds: an estimate, at least 1.
        """
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_seconds)}


class QueueFullError(BusyError):
    """The ciphertexts of a request do not all fit into the queue."""


class DeadlineError(BusyError):
    """A request was not evaluated in time."""

    def __init__(self, retry_seconds: int) -> None:
        super().__init__(
            "the ciphertexts were not all evaluated in the time that the service allows, or that "
            "the request's timeout states; send fewer at a time, or again after the seconds that "
            "Retry-After gives",
            retry_seconds,
        )


class ClientGoneError(ProblemError):
    """The client has ended its connection: nobody will see the answer."""

    status = HTTPStatus.BAD_REQUEST

    def __init__(self) -> None:
        super().__init__("the connection ended before the answer")


def install_handlers(app: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make ``app`` answer every error as a problem.

    Args:
        app: to answer.
        routes: of all its endpoints, whose methods are told where another one is used.
    """

    @app.exception_handler(ProblemError)
    async def _problem(_request: Request, error: ProblemError) -> Response:
        return problem_response(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(_request: Request, error: RequestValidationError) -> Response:
        # The values themselves stay out of the answer: a client may have mistaken what goes where.
        details = (
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors()
        )
        return _response(HTTPStatus.BAD_REQUEST, "; ".join(details))

    @app.exception_handler(HTTPException)
    async def _http(request: Request, error: HTTPException) -> Response:
        detail, headers = str(error.detail), error.headers
        if error.status_code == HTTPStatus.NOT_FOUND:
            detail = (
                f"there is nothing at {request.url.path}; GET /openapi.json lists what there is"
            )
        elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers = {"Allow": _allowed(request, routes)}
            detail = (
                f"{request.method} is not possible at {request.url.path}; use {headers['Allow']}"
            )
        return _response(error.status_code, detail, headers)

    @app.exception_handler(Exception)
    async def _defect(_request: Request, _error: Exception) -> Response:
        # Starlette raises the exception again after this answer, and the server logs it.
        return _response(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "the service failed to answer this request; its log says why",
        )


def _allowed(request: Request, routes: Sequence[BaseRoute]) -> str:
    """Return the methods that an address has, in alphabetical order.

    Starlette names only those of the first endpoint there.
    """
    methods: set[str] = set()
    for route in routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    return ", ".join(sorted(methods))


class _ClosingResponse(Response):
    """A response to a request whose body was not read; ends the connection.

    Many clients read nothing before they have sent everything, and closing a connection on which
    bytes are still arriving resets it, which some clients report instead of the answer. So the
    answer goes out at once, and then what arrives is read and dropped, before the connection is
    closed. A body that is too long for that is cut off, after a moment for clients that read while
    they send.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_and_drain(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({**message, "more_body": True})
            if not await _drain(scope, receive):
                await asyncio.sleep(LINGER_SECONDS)
            await send({**message, "body": b""})

        self.headers["connection"] = "close"
        await super().__call__(scope, receive, send_and_drain)


async def _drain(scope: Scope, receive: Receive) -> bool:
    """Read and drop a request's body, and return whether all of it has come."""
    stated = Headers(scope=scope).get("content-length", "0")
    # A body known to be too long is not begun: it would only keep its sender busy.
    if len(stated) > 20 or not stated.isdecimal() or int(stated) > DRAIN_BYTES:
        return False
    dropped = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while dropped <= DRAIN_BYTES:
                message = await receive()
                dropped += len(message.get("body", b""))
                if not message.get("more_body"):
                    return True
    return False


def problem_response(error: ProblemError) -> Response:
    """Return the answer that tells a client of ``error``."""
    return _response(
        error.status, str(error), error.headers, ready=error.ready, closing=error.leaves_body
    )


def _response(
    status: int,
    detail: str,
    headers: Mapping[str, str] | None = None,
    *,
    ready: bool | None = None,
    closing: bool = False,
) -> Response:
    problem = Problem(
        title=HTTPStatus(status).phrase, status=status, detail=detail, error=detail, ready=ready
    )
    return (_ClosingResponse if closing else Response)(
        problem.model_dump_json(exclude_none=True),
        status_code=status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )
