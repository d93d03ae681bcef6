"""How errors are answered: as problem details (RFC 9457)."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Message, Receive, Scope, Send

from cloister_inference.problems import ProblemError

MEDIA_TYPE = "application/problem+json"
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
