"""API keys in requests, and how much each may ask for."""

import re
from collections.abc import Iterable
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from cloister_inference.access.control import AccessControl, Caller
from cloister_inference.access.rate_limits import RateLimits
from cloister_inference.api.answers import problem_response
from cloister_inference.api.openapi import OPEN_PATHS
from cloister_inference.problems import UnauthenticatedError

# RFC 9110, 11.4, and RFC 6750, 2.1.
_BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


class Authentication:
    """ASGI middleware that lets nothing but health checks through without an API key.

    It stands in front of the application instead of being a dependency of the endpoints: so it
    covers whatever is added to them, descriptions and unknown addresses included, and refuses
    before anything is read of a body, which FastAPI does first for endpoints that declare one.
    It sets ``request.state.caller``, and ``request.state.owner`` to the caller's name.
    """

    def __init__(self, app: ASGIApp, access: AccessControl) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with 401."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            caller = self._access.identify(bearer_token(scope["headers"]))
            if caller is None:
                await problem_response(UnauthenticatedError())(scope, receive, send)
                return
            scope.setdefault("state", {}).update(caller=caller, owner=caller.owner)
        await self._app(scope, receive, send)


def bearer_token(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the token of the one Authorization header, or None where there is no such token.

    Args:
        headers: names in lower case, and values, from anywhere.
    """
    stated = [value for name, value in headers if name == b"authorization"]
    # Of two, something in front of the service may have looked at the other one.
    match = _BEARER.fullmatch(stated[0].strip(b" \t")) if len(stated) == 1 else None
    return match[1].decode("ascii") if match else None


class Allowance:
    """What the caller of one request may ask for."""

    def __init__(self, limits: RateLimits, caller: Caller | None) -> None:
        """Let a caller ask for what is left of the limit.

        Args:
            limits: of all callers.
            caller: who asks; None for health checks, which come from nobody and are not counted.
        """
        self._limits = limits
        self._caller = caller

    def take_ciphertexts(self, count: int) -> None:
        """Count ciphertexts.

        Raises:
            RateLimitedError: they are too many for now.
            BatchAboveRateError: they are too many at any time.
        """
        if self._caller:
            self._limits.take(self._caller, count, "ciphertexts")

    def take_request(self) -> None:
        """Count a request of another kind, before its body is read.

        Raises:
            RateLimitedError: it is one too many for now.
        """
        if self._caller:
            self._limits.take(self._caller, 1, "requests")


# A coroutine function because FastAPI calls others, and classes, in a thread.
async def _allowance(request: Request) -> Allowance:
    return Allowance(request.app.state.rate_limits, getattr(request.state, "caller", None))


Allowed = Annotated[Allowance, Depends(_allowance)]


async def count_request(allowance: Allowed) -> None:
    """Dependency of all endpoints but those that count ciphertexts; see ``take_request``."""
    allowance.take_request()
