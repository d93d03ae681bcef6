"""The id that the fleet's address gives every request, in the log lines about it."""

import re
import secrets

from starlette.types import ASGIApp, Receive, Scope, Send

from cloister_shared.logs import about

_NAME = b"x-request-id"
_FORM = re.compile(rb"[\x21-\x7e]{1,128}")


class RequestIds:
    """Has every log line about a request bear its id: the one that it states, or a new one."""

    def __init__(self, app: ASGIApp) -> None:
        """Stand in front of an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        stated = [value for name, value in scope.get("headers", ()) if name == _NAME]
        usable = len(stated) == 1 and _FORM.fullmatch(stated[0])
        request_id = stated[0].decode("ascii") if usable else secrets.token_hex(16)
        with about(request_id=request_id):
            await self._app(scope, receive, send)
