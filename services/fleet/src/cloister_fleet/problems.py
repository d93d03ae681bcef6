"""What the fleet's address itself answers."""

from http import HTTPStatus

from cloister_shared.haproxy import Problems

_DETAILS = {
    HTTPStatus.BAD_REQUEST: "this is not a valid HTTP/1.1 request",
    HTTPStatus.NOT_FOUND: (
        "nothing but the Fleet API and enrolment is here, by exact paths and methods"
    ),
    HTTPStatus.REQUEST_TIMEOUT: "the request did not arrive in time",
    HTTPStatus.LENGTH_REQUIRED: (
        "state the length of the body in Content-Length instead of sending it in chunks"
    ),
    HTTPStatus.INTERNAL_SERVER_ERROR: "the proxy failed to answer this request",
    HTTPStatus.BAD_GATEWAY: "the service behind this address broke off its answer; try again",
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "the service behind this address cannot take this request now; try again"
    ),
    HTTPStatus.GATEWAY_TIMEOUT: "the service behind this address did not answer; try again",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is larger than what is taken at this path",
}

PROBLEMS = Problems(_DETAILS)
