"""HTTP connections, with bounds that uvicorn's own lack."""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cloister_inference.api.answers import MEDIA_TYPE, Problem

KEEP_ALIVE_SECONDS = 75
"""How long an idle connection stays open: longer than load balancers keep theirs, which is 60 s at
most by common defaults, so that none sends into a connection that is just being closed."""
HEAD_BYTES = 64 << 10
"""A request's head may have about this many bytes, to the reads in which it arrives."""
HEAD_SECONDS = 30.0
"""A connection's first request, and the head of each, must have come after this time."""
STALL_SECONDS = 30.0
"""A client that reads nothing of its answer for so long is cut off."""


class BoundedProtocol(HttpToolsProtocol):
    """A connection whose peer can neither send an endless head, nor none at all, nor stop reading.

    Uvicorn waits for all three without end.
    """

    _head_bytes = 0
    """Of a head that is not complete."""
    _reads_head = False
    _head_timer: asyncio.TimerHandle | None = None
    _stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._end_head()
        self._end_stall()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head grows too long."""
        super().data_received(data)
        if self._reads_head and not self.transport.is_closing():
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.send_400_response(f"a request's head may have {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        super().on_message_begin()
        if not self._head_timer:
            self._await_head()
        self._reads_head = True

    def on_headers_complete(self) -> None:
        """Note that a head ends.

        Raises:
            ValueError: it is too long; the parser makes an answer of it.
        """
        self._end_head()
        # It may have come in one read.
        if sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            raise ValueError("the head is too long")
        super().on_headers_complete()

    def pause_writing(self) -> None:
        """Note that the client reads more slowly than it is answered."""
        super().pause_writing()
        self._await_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Note that the client has read nearly everything."""
        self._end_stall()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, in the form of all errors, and end the connection."""
        self._end_head()
        problem = Problem(title="Bad Request", status=400, detail=msg, error=msg)
        content = problem.model_dump_json(exclude_none=True).encode()
        head = (
            f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + content)
        self.transport.close()

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _end_head(self) -> None:
        self._reads_head = False
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _await_reading(self, unread: int) -> None:
        self._stall_timer = self.loop.call_later(STALL_SECONDS, self._check_reading, unread)

    def _check_reading(self, before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread < before:
            self._await_reading(unread)
        else:
            # Closing would wait for what is unread.
            self.transport.abort()

    def _end_stall(self) -> None:
        if self._stall_timer:
            self._stall_timer.cancel()
            self._stall_timer = None
