"""Log lines as JSON, for machines to read."""

import json
import logging
from datetime import UTC, datetime
from typing import Any

EVENT = "training"
"""Member of a line with all of an event of the training, which its message only words."""


class JsonFormatter(logging.Formatter):
    """Makes one JSON object of a line.

    It holds timestamp (ISO 8601, UTC), level, service, logger and message, the event of the
    training that the line tells of, and ``exc_info`` where there is a traceback.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for one record."""
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if hasattr(record, EVENT):
            line[EVENT] = getattr(record, EVENT)
        if record.exc_info:
            line["exc_info"] = self.formatException(record.exc_info)
        return json.dumps(line)
