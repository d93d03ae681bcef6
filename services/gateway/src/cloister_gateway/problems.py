"""What the gateway itself answers where no replica does, as problem details (RFC 9457)."""

import json
from http import HTTPStatus

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
"""When a client may try again after 502, 503 and 504: a lost replica is out of use by then."""

_DETAILS = {
    HTTPStatus.BAD_REQUEST: "this is not a valid HTTP/1.1 request",
    HTTPStatus.NOT_FOUND: "there is nothing here",
    HTTPStatus.REQUEST_TIMEOUT: "the request did not arrive in time",
    HTTPStatus.LENGTH_REQUIRED: (
        "state the length of the body in Content-Length instead of sending it in chunks"
    ),
    HTTPStatus.INTERNAL_SERVER_ERROR: "the gateway failed to answer this request",
    HTTPStatus.BAD_GATEWAY: "the inference service broke off its answer; try again",
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "no replica of the inference service can take this request now; try again"
    ),
    HTTPStatus.GATEWAY_TIMEOUT: "the inference service did not answer in time; try again",
}
_TEMPORARY = {
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


def problem(status: HTTPStatus, body_bytes: int) -> str:
    """Return the answer's body, in the form of the inference service's own problems.

    Args:
        status: one that the gateway answers with.
        body_bytes: the limit of a request's body.
    """
    if status is HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        detail = f"the body is larger than the {body_bytes} bytes that are taken here"
    else:
        detail = _DETAILS[status]
    return json.dumps(
        {
            "type": "about:blank",
            "title": status.phrase,
            "status": status.value,
            "detail": detail,
            "error": detail,
        }
    )


def answer(status: HTTPStatus, body_bytes: int) -> str:
    """Return a problem in HAProxy's words: status, type, body and headers; see ``problem``."""
    words = f"status {status.value} content-type {MEDIA_TYPE}"
    # Strong quotes: nothing in them is expanded, and no detail has one.
    words += f" string '{problem(status, body_bytes)}'"
    return f"{words} hdr Retry-After {RETRY_SECONDS}" if status in _TEMPORARY else words


def own_errors(body_bytes: int) -> list[str]:
    """Return a line of configuration for every error that HAProxy makes by itself."""
    statuses = (_DETAILS.keys() | {HTTPStatus.REQUEST_ENTITY_TOO_LARGE}) - {
        # HAProxy makes none by itself and refuses to be told what it would look like.
        HTTPStatus.LENGTH_REQUIRED
    }
    return [f"http-error {answer(status, body_bytes)}" for status in sorted(statuses)]
