"""Log lines as JSON, for machines to read."""

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter


def json_formatter(service: str) -> JsonFormatter:
    """Return a formatter that makes one JSON object of a line.

    It holds timestamp (ISO 8601, UTC), level, service, logger and message, what the line adds as
    ``extra``, and ``exc_info`` where there is a traceback.

    Args:
        service: stated in every line.
    """
    return JsonFormatter(
        ("levelname", "name", "message"),
        rename_fields={"levelname": "level", "name": "logger"},
        static_fields={"service": service},
        # Uvicorn adds its messages once more, with codes for terminals.
        reserved_attrs=[*RESERVED_ATTRS, "color_message"],
        timestamp=True,
    )
