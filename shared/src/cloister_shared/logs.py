"""Log lines: one form for people, and one for machines, the same in every service."""

import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]
"""Form of a service's log lines."""

_MADE_BY_LOGGING = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Uvicorn adds its messages once more, with codes for terminals.
_LEFT_OUT = _MADE_BY_LOGGING | {"color_message"}

_about: ContextVar[Mapping[str, Any]] = ContextVar("_about", default={})  # noqa: B039 - never changed


@contextmanager
def about(**members: str | int) -> Iterator[None]:
    """Have every JSON line of this thread or task tell what it is about.

    Args:
        members: of the lines: ``request_id`` of an HTTP request, ``run_id`` of a training.
    """
    token = _about.set({**_about.get(), **members})
    try:
        yield
    finally:
        _about.reset(token)


class JsonFormatter(logging.Formatter):
    """Makes one JSON object of a line.

    It holds time (ISO 8601, UTC), level, service, logger and message; what the line is about
    (``about``) and what it adds as ``extra``; and ``exc_info`` where there is a traceback.
    """

    def __init__(self, service: str) -> None:
        """Make lines of a service.

        Args:
            service: stated in every line.
        """
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for one record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _about.get()
        line |= {name: value for name, value in vars(record).items() if name not in _LEFT_OUT}
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        # What JSON has no form for is told as text: a line is better than none.
        return json.dumps(line, default=str)


def _text_formatter(service: str) -> logging.Formatter:
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {service}: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    return formatter


def configure_logging(service: str, form: LogFormat = "text") -> None:
    """Write log lines to standard error.

    Args:
        service: stated in every line.
        form: time in UTC, level, service and message for people; or a JSON object a line.
            Configuring again replaces the form before.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service) if form == "json" else _text_formatter(service))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # httpx logs every request at INFO, with its URL.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def write_once(library: str) -> None:
    """Let this process's handler alone write a library's lines, from INFO on.

    Flower has one of its own, and tells of every request at DEBUG.

    Args:
        library: name of its logger; it has to be imported before.
    """
    found = logging.getLogger(library)
    found.handlers.clear()
    found.setLevel(logging.INFO)
