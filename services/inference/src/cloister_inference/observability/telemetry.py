"""What is counted, timed and logged of every request."""

import json
import logging
import re
import secrets
import time
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import count
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloister_inference.lifecycle import Lifecycle
from cloister_inference.observability.metrics import Metrics
from cloister_shared.logs import about

REQUEST_ID = "X-Request-Id"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""Label of a method or address that the service does not know: clients must not make labels."""
CLIENT_GONE = 499
"""Status in logs and metrics of a request whose client left before its answer, as nginx has it."""
HEALTH_ROUTES = frozenset({"/v2/health/live", "/v2/health/ready"})
PATH_LIMIT = 200
"""Characters of a path that are logged."""

_REQUEST_ID_NAME = REQUEST_ID.lower().encode()
_REQUEST_ID_FORM = re.compile(rb"[\x20-\x7e]{1,128}")
_CLOSE = (b"connection", b"close")

log = logging.getLogger(__name__)


@dataclass
class _Exchange:
    """A request and its answer, as they pass."""

    request_id: str
    started: float = field(default_factory=time.monotonic)
    status: int = HTTPStatus.INTERNAL_SERVER_ERROR
    """The server's own answer where there is no other."""
    received: int = 0
    """Bytes of the request's body that were read."""
    sent: int = 0
    """Bytes of the answer's body."""
    answering: bool = False
    """Whether the answer has begun."""
    ended: bool = False
    """Whether the answer is complete."""
    gone: bool = False
    """Whether the client left before the answer began."""


class Telemetry:
    """Counts, times and logs requests, gives each an id, and moves clients away while it stops.

    It stands outside everything else, so that nothing is answered without it. The state of a
    request gets ``arrived``, the time of its head by ``time.monotonic()``, and ``request_id``.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, lifecycle: Lifecycle) -> None:
        """Observe an application.

        Args:
            app: answers the requests.
            metrics: get what is counted and timed.
            lifecycle: once it stops, every answer ends its connection.
        """
        self._app = app
        self._metrics = metrics
        self._lifecycle = lifecycle
        # An id need be no secret, and random numbers are asked of the kernel one by one.
        self._process_id = secrets.token_hex(8)
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(self._request_id(scope))
        state = scope.setdefault("state", {})
        state.update(arrived=exchange.started, request_id=exchange.request_id)
        id_header = (_REQUEST_ID_NAME, exchange.request_id.encode())

        async def observed_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                exchange.received += len(message.get("body", b""))
            elif not exchange.answering:
                exchange.gone = True
            return message

        async def observed_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status, exchange.answering = message["status"], True
                headers = [*message.get("headers", ()), id_header]
                if self._lifecycle.stopping and _CLOSE not in headers:
                    headers.append(_CLOSE)
                message = {**message, "headers": headers}
            elif message["type"] == "http.response.body":
                exchange.sent += len(message.get("body", b""))
                exchange.ended = not message.get("more_body", False)
            await send(message)

        try:
            with about(request_id=exchange.request_id):
                await self._app(scope, observed_receive, observed_send)
        except Exception:
            log.exception(
                "request %s failed", exchange.request_id, extra={"request_id": exchange.request_id}
            )
            # The server cuts an incomplete answer off.
            if not exchange.ended:
                raise
        finally:
            self._note(scope, exchange)

    def _request_id(self, scope: Scope) -> str:
        """Return the id that the client states, or a new one."""
        for name, value in scope["headers"]:
            if name == _REQUEST_ID_NAME and _REQUEST_ID_FORM.fullmatch(value):
                stated: bytes = value
                return stated.decode("ascii")
        return f"{self._process_id}-{next(self._numbers)}"

    def _note(self, scope: Scope, exchange: _Exchange) -> None:
        seconds = time.monotonic() - exchange.started
        status = CLIENT_GONE if exchange.gone else exchange.status
        method = scope["method"] if scope["method"] in METHODS else OTHER
        route = getattr(scope.get("route"), "path", OTHER)
        metrics = self._metrics
        metrics.requests.labels(method, route, status).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        metrics.received_bytes.inc(exchange.received)
        metrics.sent_bytes.inc(exchange.sent)
        level = logging.DEBUG if route in HEALTH_ROUTES else logging.INFO
        if log.isEnabledFor(level):
            _log_access(level, scope, exchange, route, status, seconds)


def _log_access(
    level: int, scope: Scope, exchange: _Exchange, route: str, status: int, seconds: float
) -> None:
    # As it was sent, percent-encoded, and escaped where it is not: it must not end the line.
    path = scope["raw_path"].decode("latin-1") if scope.get("raw_path") else scope["path"]
    values: dict[str, Any] = {
        "method": scope["method"],
        "path": path[:PATH_LIMIT].encode("unicode_escape").decode("ascii"),
        "route": route,
        "status": status,
        "milliseconds": round(seconds * 1000, 3),
        "received_bytes": exchange.received,
        "sent_bytes": exchange.sent,
        "request_id": exchange.request_id,
        "owner": scope["state"].get("owner", "-"),
    }
    log.log(
        level,
        "%s %s %d in %.3f ms, %d bytes in, %d out, owner %s, id %s",
        values["method"],
        values["path"],
        status,
        values["milliseconds"],
        exchange.received,
        exchange.sent,
        json.dumps(values["owner"]),
        json.dumps(exchange.request_id),
        extra=values,
    )
