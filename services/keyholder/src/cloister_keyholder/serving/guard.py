"""Who is let in, and how much: pages of the console and programs of this machine.

Whatever listens on a loopback address can be reached by every page that a browser of the machine
shows. So a request must name the machine as it is (a page whose own name resolves to 127.0.0.1
names itself), and a page that asks must be of an allowed origin.
"""

import asyncio
import ipaddress
import json
import logging
import re
from collections.abc import Collection
from http import HTTPStatus
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloister_keyholder.errors import KeyholderError

BODY_LIMIT = 1 << 20
"""Bytes of a request: 1 MiB."""
JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"

_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_HOST = re.compile(r"(\[[0-9a-f:]+\]|[^:]*)(?::[0-9]{1,5})?")

log = logging.getLogger(__name__)


def check_loopback(host: str) -> str:
    """Return an address to listen on.

    Raises:
        KeyholderError: others than programs of this machine could reach it.
    """
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise KeyholderError(
            f"{host!r} is no loopback address: keys and values are for this machine alone. Listen "
            "on 127.0.0.1 (--host, CLOISTER_HOST), and run the key holder where its users are"
        )
    return host


def problem(status: int, detail: str) -> bytes:
    """Return the body of an error, as RFC 9457 has it."""
    title = HTTPStatus(status).phrase
    return json.dumps(
        {"type": "about:blank", "title": title, "status": status, "detail": detail}
    ).encode()


async def answer_problem(send: Send, status: int, detail: str) -> None:
    """Answer with an error."""
    body = problem(status, detail)
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class OwnMachine:
    """Refuses requests by other names than this machine's own, and of pages of other origins.

    Args:
        app: answers the rest.
        origins: of the pages that are let in.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        found = _HOST.fullmatch(_header(scope, b"host").lower())
        if not found or found[1] not in _NAMES:
            await answer_problem(
                send, 421, "ask for this machine by a loopback address, such as 127.0.0.1"
            )
            return
        origin = _header(scope, b"origin")
        # A page that asks without an origin, as for an image, is told by its browser's other word.
        foreign = _header(scope, b"sec-fetch-site") in ("cross-site", "same-site")
        if origin not in self._origins if origin else foreign:
            await answer_problem(
                send,
                403,
                "pages of this origin are not let in: CLOISTER_CONSOLE_ORIGINS names those",
            )
            return
        await self._app(scope, receive, send)


class BoundedJson:
    """Lets JSON of bounded length through, and turns defects into answers that tell nothing.

    Args:
        app: answers.
        limit: the most bytes of a body.
    """

    def __init__(self, app: ASGIApp, limit: int = BODY_LIMIT) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = b""
        if scope["method"] == "POST":
            media_type = _header(scope, b"content-type").split(";")[0].strip().lower()
            if media_type != JSON_TYPE:
                await answer_problem(send, 415, f"send {JSON_TYPE}")
                return
            taken = await self._take(receive)
            if taken is None:
                await answer_problem(send, 413, f"send at most {self._limit} bytes")
                return
            body = taken
        await self._pass(scope, receive, send, body)

    async def _take(self, receive: Receive) -> bytes | None:
        """Return the body; None where it is longer than it may be, or its sender is gone."""
        content = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return None
            content += message.get("body", b"")
            if len(content) > self._limit:
                return None
            if not message.get("more_body", False):
                return bytes(content)

    async def _pass(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        given = False
        started = False

        async def given_body() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def noted_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, given_body, noted_send)
        except asyncio.CancelledError:
            # The server stops, and has waited for as long as it does.
            log.info("a request is given up")
            if not started:
                await answer_problem(send, 503, "the key holder is being stopped")
        except Exception as error:  # noqa: BLE001 - its message may hold a value of a row
            log.error("a defect: %s at %s", type(error).__name__, _place(error))
            if not started:
                await answer_problem(send, 500, "a defect of the key holder: its log says where")


def _header(scope: Scope, name: bytes) -> str:
    """Return a header that occurs once; empty where it is missing, or unclear."""
    values = [value for key, value in scope["headers"] if key == name]
    return values[0].decode("latin-1") if len(values) == 1 else ""


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
