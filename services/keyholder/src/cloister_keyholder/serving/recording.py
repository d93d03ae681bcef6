"""What a query's request carried, as it left."""

from contextvars import ContextVar

import httpx

_carried: ContextVar[bytes] = ContextVar("carried", default=b"")
_INFER = "/infer"


class Recorder(httpx.BaseTransport):
    """Passes requests on, and remembers the last ciphertext that the caller's thread sent."""

    def __init__(self, inner: httpx.BaseTransport) -> None:
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Pass a request on."""
        if request.method == "POST" and request.url.path.endswith(_INFER):
            _carried.set(request.read())
        return self._inner.handle_request(request)

    def close(self) -> None:
        """Close the connections."""
        self._inner.close()


def last_ciphertext() -> bytes:
    """Return the body of the inference request that this thread sent last: one row's ciphertext."""
    return _carried.get()
