"""Reading a request's body within a limit."""

import asyncio

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
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > length:
                    raise TooLargeError(
                        f"the body is longer than its Content-Length of {length} bytes"
                    )
    except TimeoutError:
        raise TooSlowError(f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
    except ClientDisconnect:
        raise MalformedRequestError("the connection ended before the body did") from None
    if len(body) != length:
        raise MalformedRequestError(f"the body has {len(body)} bytes, Content-Length says {length}")
    return bytes(body)


async def read_optional_body(request: Request, limit: int) -> bytes:
    """Read a body as ``read_body`` does; a request without one has an empty one."""
    if not {"content-length", "transfer-encoding"}.intersection(request.headers.keys()):
        return b""
    return await read_body(request, limit)
