"""What the gateway itself answers where no replica does."""

from http import HTTPStatus

from cloister_shared.haproxy import Problems

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


def problems(body_bytes: int) -> Problems:
    """Return the answers, in the form of the inference service's own problems.

    Args:
        body_bytes: the limit of a request's body.
    """
    too_large = f"the body is larger than the {body_bytes} bytes that are taken here"
    return Problems(_DETAILS | {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: too_large})
