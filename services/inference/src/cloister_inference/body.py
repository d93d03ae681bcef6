"""Reading a request's body within a limit."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import ClientDisconnect, Request

from cloister_inference.problems import (
    LengthRequiredError,
    MalformedRequestError,
    TooLargeError,
    TooSlowError,
)

BODY_SECONDS = 30.0
"""The longest that a body may take to arrive."""


async def read_body(request: Request, limit: int) -> bytes:
    """Read the body of a request that states its length.

    Args:
        request: whose body was not yet read.
        limit: bytes at most.

    Raises:
        LengthRequiredError: there is no Content-Length, or the body comes in chunks.
        TooLargeError: the length is above the limit; nothing was read.
        MalformedRequestError: the length is no number, or other than that of the body.
        TooSlowError: it took longer than ``BODY_SECONDS``.
    """
    length = announced_length(request, limit)
    return b"".join([piece async for piece in Body(request, length, BODY_SECONDS)])


def announced_length(request: Request, limit: int) -> int:
    """Return the length of a body as its request states it.

    Raises:
        LengthRequiredError, TooLargeError, MalformedRequestError: as ``read_body``.
    """
    stated = request.headers.get("content-length")
    if stated is None or "transfer-encoding" in request.headers:
        raise LengthRequiredError(
            "state the length of the body in Content-Length instead of sending it in chunks"
        )
    # int() would also take signs, spaces and digits of other scripts.
    if not (stated.isascii() and stated.isdecimal()):
        raise MalformedRequestError("Content-Length is not a number")
    # Longer than any limit, and than what int() takes.
    length = int(stated) if len(stated) <= 20 else limit + 1
    if length > limit:
        raise TooLargeError(f"the body is larger than the {limit} bytes that are taken here")
    return length


class Body:
    """The pieces of a body as they arrive."""

    def __init__(self, request: Request, length: int, seconds: float) -> None:
        """Read the body of a request.

        Args:
            request: whose body was not yet read.
            length: that it must have, in bytes.
            seconds: the longest that it may take to arrive.
        """
        self._request = request
        self._length = length
        self._seconds = seconds
        self.complete = False
        """Whether all of it has come."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces.

        Raises:
            TooLargeError, MalformedRequestError, TooSlowError: as ``read_body``.
        """
        deadline = asyncio.get_running_loop().time() + self._seconds
        stream = self._request.stream()
        received = 0
        while True:
            try:
                # The time that whoever takes the pieces needs is not cut short.
                async with asyncio.timeout_at(deadline):
                    piece = await anext(stream, None)
            except TimeoutError:
                raise TooSlowError(
                    f"the body did not arrive within {self._seconds:.0f} s"
                ) from None
            except ClientDisconnect:
                raise MalformedRequestError("the connection ended before the body did") from None
            if piece is None:
                break
            received += len(piece)
            if received > self._length:
                raise TooLargeError(
                    f"the body is longer than its Content-Length of {self._length} bytes"
                )
            yield piece
        if received != self._length:
            raise MalformedRequestError(
                f"the body has {received} bytes, Content-Length says {self._length}"
            )
        self.complete = True
