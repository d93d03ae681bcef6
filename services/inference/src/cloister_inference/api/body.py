"""Bodies within limits: reading a request's, and what is held in memory of all."""

import asyncio
from collections.abc import AsyncIterator, Mapping

from fastapi.responses import Response
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from cloister_inference.problems import (
    BusyError,
    LengthRequiredError,
    MalformedRequestError,
    TooLargeError,
    TooSlowError,
)
from cloister_shared.open_inference import OCTETS

BODY_SECONDS = 30.0
"""The longest that a body may take to arrive."""


HELD_BYTES = 128 << 20
"""The most that bodies which are arriving, and answers which are leaving, may hold in memory."""
HELD_RETRY_SECONDS = 1


class HeldBytes:
    """Counts the bytes of all bodies that are still arriving, and of answers that are not yet sent.

    What has arrived counts, and not what is announced: else a few clients that announce much and
    send nothing would keep all others out.
    """

    def __init__(self, limit: int = HELD_BYTES) -> None:
        """Begin with nothing held.

        Args:
            limit: bytes that may be held at a time.
        """
        self._limit = limit
        self.held = 0
        """Bytes."""

    def check_room(self, length: int) -> None:
        """Raise unless so many bytes more could be held.

        Raises:
            BusyError: they are too many beside the others.
        """
        if self.held + length > self._limit:
            raise BusyError(
                "the service is receiving and sending as much as it can hold; send the request "
                "again after the seconds that Retry-After gives",
                HELD_RETRY_SECONDS,
            )

    def add(self, length: int) -> None:
        """Hold so many bytes more, whether there is room or not."""
        self.held += length

    def release(self, length: int) -> None:
        """Hold so many bytes less."""
        self.held -= length


class HeldResponse(Response):
    """A response that counts as held until its client has read it, but for what the system buffers.

    A server hands a body to the connection at once, however slowly it is read, and waits only
    before it is given more: so an empty end is sent after it.
    """

    def __init__(
        self,
        content: bytes,
        held: HeldBytes,
        headers: Mapping[str, str],
        media_type: str = OCTETS,
    ) -> None:
        """Answer with ciphertexts.

        Args:
            content: the body.
            held: counts it among others.
            headers: beside those of every response.
            media_type: of the body.
        """
        super().__init__(content, media_type=media_type, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""

        async def send_in_two(message: Message) -> None:
            if message["type"] != "http.response.body":
                await send(message)
                return
            await send({**message, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        length = len(self.body)
        self._held.add(length)
        try:
            await super().__call__(scope, receive, send_in_two)
        finally:
            self._held.release(length)


def stated_length(request: Request, limit: int) -> int:
    """Return the length of the body that a request states.

    Args:
        request: whose body was not yet read.
        limit: bytes at most.

    Raises:
        LengthRequiredError: there is no Content-Length, or the body comes in chunks.
        TooLargeError: the length is above the limit.
        MalformedRequestError: the length is no number.
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
                    f"the body did not arrive within {self._seconds:.3g} s"
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


async def read_body(
    request: Request, limit: int, *, seconds: float = BODY_SECONDS, held: HeldBytes | None = None
) -> bytes:
    """Read the body of a request that states its length.

    Args:
        request: whose body was not yet read.
        limit: bytes at most.
        seconds: the longest that it may take to arrive.
        held: counts it among others while it arrives.

    Raises:
        LengthRequiredError: there is no Content-Length, or the body comes in chunks.
        TooLargeError: the length is above the limit; nothing was read.
        MalformedRequestError: the length is no number, or other than that of the body.
        TooSlowError: it took longer than ``seconds``.
        BusyError: all bodies together hold too much.
    """
    length = stated_length(request, limit)
    held = held or HeldBytes()
    body = bytearray()
    try:
        async for piece in Body(request, length, seconds):
            held.check_room(len(piece))
            held.add(len(piece))
            body += piece
    finally:
        held.release(len(body))
    return bytes(body)


async def disconnected(request: Request) -> None:
    """Return when the client has ended the connection.

    Args:
        request: whose body was read.
    """
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def read_optional_body(request: Request, limit: int) -> bytes:
    """Read a body as ``read_body`` does; a request without one has an empty one."""
    if not {"content-length", "transfer-encoding"}.intersection(request.headers.keys()):
        return b""
    return await read_body(request, limit)
