"""Reading a request's body within limits."""

import asyncio

from starlette.requests import ClientDisconnect, Request

from cloister_inference.problems import (
    BusyError,
    LengthRequiredError,
    MalformedRequestError,
    TooLargeError,
    TooSlowError,
)

BODY_SECONDS = 30.0
"""The longest that a body may take to arrive."""


HELD_BYTES = 64 << 20
"""The most that bodies which are still arriving may hold in memory together."""
HELD_RETRY_SECONDS = 1


class HeldBodies:
    """Counts the bytes of all bodies that are still arriving.

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

    def add(self, length: int) -> None:
        """Hold so many bytes more.

        Raises:
            BusyError: they are too many beside the others'.
        """
        if self.held + length > self._limit:
            error = BusyError(
                "the service is receiving as much as it can hold; send the request again after the "
                "seconds that Retry-After gives",
                HELD_RETRY_SECONDS,
            )
            error.leaves_body = True
            raise error
        self.held += length

    def release(self, length: int) -> None:
        """Hold so many bytes less."""
        self.held -= length


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


async def read_body(
    request: Request, limit: int, *, seconds: float = BODY_SECONDS, held: HeldBodies | None = None
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
    held = held or HeldBodies(limit + length)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                if len(body) + len(chunk) > length:
                    raise TooLargeError(
                        f"the body is longer than its Content-Length of {length} bytes"
                    )
                held.add(len(chunk))
                body += chunk
    except TimeoutError:
        raise TooSlowError(f"the body did not arrive within {seconds:.3g} s") from None
    except ClientDisconnect:
        raise MalformedRequestError("the connection ended before the body did") from None
    finally:
        held.release(len(body))
    if len(body) != length:
        raise MalformedRequestError(f"the body has {len(body)} bytes, Content-Length says {length}")
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
