"""The HTTP interface: enrol, and health."""

import asyncio
import logging
from functools import partial

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from cloister_enrolment.admission import Admission, ConflictError, RevokedError, TokenError
from cloister_enrolment.attempts import Attempts
from cloister_enrolment.join_tokens import JoinTokens
from cloister_enrolment.public_key import KeyNotTakenError, PublicKey, read_public_key
from cloister_enrolment.request_ids import RequestIds
from cloister_enrolment.superlink import SuperLinkAwayError
from cloister_shared.errors import CloisterError
from cloister_shared.joining import (
    ENROL_PATH,
    HEALTH_PATH,
    Enrolled,
    EnrolmentRequest,
    JoinToken,
    Refused,
)

BODY_BYTES = 4096
BODY_SECONDS = 10.0
RETRY_SECONDS = 5
"""After which a site may ask again while the SuperLink is away."""
BROKEN_SECONDS = 60
"""After which it may while the register cannot be used."""
_BEARER = "bearer "
_UNKNOWN = (
    "this join token is not known here: see that CLOISTER_JOIN_TOKEN_PATH names the file with the "
    "token for this federation, or ask for a new one (invite)"
)
_NO_KEY = "public_key must be an EC key on P-256, P-384 or P-521, in OpenSSH's form"

log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """The answer to a request that does not enrol."""

    def __init__(self, status: int, detail: str, retry: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers: dict[str, str] = {}
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"
        if retry is not None:
            self.headers["Retry-After"] = str(retry)


def create_app(tokens: JoinTokens, admission: Admission, attempts: Attempts) -> FastAPI:
    """Return the application that enrols sites."""
    app = FastAPI(title="Cloister enrolment", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(RequestIds)

    @app.get(HEALTH_PATH)
    async def health() -> dict[str, str]:
        return {"status": "ready"}

    @app.post(ENROL_PATH)
    async def enrol(request: Request) -> JSONResponse:
        # The token before the body: who has none is not listened to.
        token = tokens.find(_bearer(request))
        if token is None:
            if not attempts.allow():
                raise _RefusedError(429, "too many attempts", retry=60)
            log.warning("refused an attempt with a join token that is not known")
            raise _RefusedError(401, _UNKNOWN)
        asked = _parsed(await _body(request))
        try:
            key = read_public_key(asked.public_key)
        except KeyNotTakenError:
            raise _RefusedError(422, _NO_KEY) from None
        return await _admit(admission, token, key, asked.name)

    @app.exception_handler(_RefusedError)
    async def refused(_request: Request, error: _RefusedError) -> JSONResponse:
        answer = Refused(detail=error.detail)
        return JSONResponse(answer.model_dump(), error.status, error.headers)

    return app


async def _admit(admission: Admission, token: JoinToken, key: PublicKey, name: str) -> JSONResponse:
    try:
        admitted = await run_in_threadpool(partial(admission.admit, token, key, name))
    except (TokenError, RevokedError, ConflictError) as error:
        status = {TokenError: 401, RevokedError: 403, ConflictError: 409}[type(error)]
        log.warning("refused %s, key %s: %s", name, key.fingerprint, error)
        raise _RefusedError(status, str(error)) from None
    except SuperLinkAwayError as error:
        log.warning("%s, key %s, has to wait: %s", name, key.fingerprint, error)
        raise _RefusedError(503, "the SuperLink does not answer", RETRY_SECONDS) from None
    except (CloisterError, OSError) as error:
        log.error("%s, key %s, has to wait: %s", name, key.fingerprint, error)
        detail = "the register of sites cannot be used; enrolment's log says why"
        raise _RefusedError(503, detail, BROKEN_SECONDS) from None
    answer = Enrolled(node_id=admitted.node_id)
    return JSONResponse(answer.model_dump(), 201 if admitted.is_new else 200)


def _bearer(request: Request) -> str:
    header = request.headers.get("authorization", "")
    if header[: len(_BEARER)].lower() != _BEARER:
        return ""
    return header[len(_BEARER) :].strip()


async def _body(request: Request) -> bytes:
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > BODY_BYTES:
                    raise _RefusedError(413, f"the body has more than {BODY_BYTES} bytes")
    except TimeoutError:
        raise _RefusedError(408, f"the body took more than {BODY_SECONDS:.0f} s") from None
    except ClientDisconnect:
        raise _RefusedError(400, "the body is not complete") from None
    return bytes(content)


def _parsed(body: bytes) -> EnrolmentRequest:
    try:
        return EnrolmentRequest.model_validate_json(body)
    except ValidationError as error:
        (first, *_) = error.errors(include_input=False, include_url=False)
        where = ".".join(map(str, first["loc"]))
        raise _RefusedError(422, f"{where}: {first['msg']}".lstrip(": ")) from None
