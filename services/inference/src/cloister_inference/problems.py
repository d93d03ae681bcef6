"""Every error that a client can be answered with."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import ClassVar

RETRY_SECONDS = 30
"""After how long clients are told to ask again for a model that cannot be served."""


class ProblemError(Exception):
    """A request that cannot be answered as asked; the message is for the client."""

    status: ClassVar[HTTPStatus]
    leaves_body: bool = False
    """Whether the request's body is left unread, so that the connection cannot go on."""
    ready: ClassVar[bool | None] = None
    headers: Mapping[str, str] = MappingProxyType({})


class MalformedRequestError(ProblemError):
    """The request is not what the protocol or the circuit's form says."""

    status = HTTPStatus.BAD_REQUEST


class UnauthenticatedError(ProblemError):
    """The request states no valid API key; says no more, whatever was wrong with the one stated."""

    status = HTTPStatus.UNAUTHORIZED
    leaves_body = True
    headers = MappingProxyType({"WWW-Authenticate": "Bearer"})

    def __init__(self) -> None:
        super().__init__(
            "state a valid API key of this service in the header Authorization: Bearer KEY; its "
            "operator gives them out"
        )


class NoControlError(ProblemError):
    """Clients may not load and unload models."""

    status = HTTPStatus.FORBIDDEN


class UnknownError(ProblemError):
    """There is no such model, version or file."""

    status = HTTPStatus.NOT_FOUND


class UnloadedError(UnknownError):
    """The model was unloaded, and is not served until it is loaded."""

    ready = False


class OtherClientError(ProblemError):
    """The ciphertext was made for another client.zip."""

    status = HTTPStatus.CONFLICT


class LengthRequiredError(ProblemError):
    """The request does not state the length of its body."""

    status = HTTPStatus.LENGTH_REQUIRED
    leaves_body = True


class TooSlowError(ProblemError):
    """The body takes too long to arrive."""

    status = HTTPStatus.REQUEST_TIMEOUT
    leaves_body = True


class TooLargeError(ProblemError):
    """The body, or the batch in it, is larger than the service takes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    leaves_body = True


class MediaTypeError(ProblemError):
    """The body is of a type or encoding that the service does not read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class UnservedFormError(ProblemError):
    """The version takes or gives no messages of the form that a request states."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class InsufficientStorageError(ProblemError):
    """What is uploaded has no room: the owner's quota or the disk is full."""

    status = HTTPStatus.INSUFFICIENT_STORAGE


class BatchAboveRateError(ProblemError):
    """The batch alone is more than its API key's rate limit allows at any time."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE


class RateLimitedError(ProblemError):
    """The API key's rate limit is used up; raised once the body is read."""

    status = HTTPStatus.TOO_MANY_REQUESTS

    def __init__(self, detail: str, retry_seconds: int) -> None:
        """Say when to try again.

        Args:
            detail: what is wrong and what to do.
            retry_seconds: until there is room, at least 1.
        """
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_seconds)}


class RequestRateLimitedError(RateLimitedError):
    """The same, raised before the body is read."""

    leaves_body = True


class UnavailableError(ProblemError):
    """The model is published but cannot be served."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    ready = False
    headers = MappingProxyType({"Retry-After": str(RETRY_SECONDS)})


class StoppingError(ProblemError):
    """The service is asked whether it is ready while it stops.

    Not found is what a load balancer takes for "send nothing new here" (HAProxy's
    ``http-check disable-on-404``), where 503 would mean that what is running here is lost.
    """

    status = HTTPStatus.NOT_FOUND
    ready = False

    def __init__(self) -> None:
        super().__init__("the service is stopping: send requests to another replica")


class BusyError(ProblemError):
    """The service has more to do than it can; the answer says when to come again."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str, retry_seconds: int) -> None:
        """Say what is wrong.

        Args:
            detail: for the client.
            retry_seconds: an estimate, at least 1.
        """
        super().__init__(detail)
        self.headers = {"Retry-After": str(retry_seconds)}


class QueueFullError(BusyError):
    """The ciphertexts of a request do not all fit into the queue."""


class DeadlineError(BusyError):
    """A request was not evaluated in time."""

    def __init__(self, retry_seconds: int) -> None:
        super().__init__(
            "the ciphertexts were not all evaluated in the time that the service allows, or that "
            "the request's timeout states; send fewer at a time, or again after the seconds that "
            "Retry-After gives",
            retry_seconds,
        )


class ClientGoneError(ProblemError):
    """The client has ended its connection: nobody will see the answer."""

    status = HTTPStatus.BAD_REQUEST

    def __init__(self) -> None:
        super().__init__("the connection ended before the answer")
