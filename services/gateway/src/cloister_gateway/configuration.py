"""HAProxy's configuration, made of the settings."""

import shlex
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from string import Template

from cloister_gateway.problems import problems
from cloister_gateway.settings import Settings
from cloister_shared.errors import CloisterError
from cloister_shared.haproxy import (
    FILE,
    OWN_CONNECTIONS,
    THREADS_LIMIT,
    TIME,
    json_error_line,
)
from cloister_shared.service import worker_threads

HEADER_BYTES = 16 << 10
"""Room for a request's headers beside a body that is held."""
CONNECT_MS = 500
"""Milliseconds for a connection to a replica, and between two attempts at the same one."""

TEXT_LINE = (
    "INFO gateway: %HM %HPO %ST in %Ta ms (%Tw queued, %Tr answering) by %s, %rc retries, "
    "%U bytes up, %B down, %ts, from %ci, request %[var(txn.request_id)]"
)
JSON_LINE = (
    '{"time":"' + TIME + '","level":"INFO","service":"gateway","logger":"haproxy",'
    '"message":"%HM %[var(txn.path),json(utf8s)] %ST in %Ta ms",'
    '"request_id":"%[var(txn.request_id),json(utf8s)]","client":"%ci","method":"%HM",'
    '"path":"%[var(txn.path),json(utf8s)]","status":%ST,"replica":"%s","retries":"%rc",'
    '"bytes_up":%U,"bytes_down":%B,"queued_ms":%Tw,"answer_ms":%Tr,"total_ms":%Ta,"end":"%ts"}'
)


def has_certificate(pem: Path | None) -> bool:
    """Whether there is a file and it is not empty.

    Raises:
        CloisterError: there is no such file.
        OSError: it cannot be read.
    """
    if pem is None:
        return False
    try:
        with pem.open("rb") as stream:
            return bool(stream.read(1))
    except FileNotFoundError:
        raise CloisterError(
            f"CLOISTER_GATEWAY_TLS_PEM: there is no file {pem}; leave it empty for plain HTTP"
        ) from None


def render(settings: Settings, *, secure: bool) -> str:
    """Return the configuration.

    Args:
        settings: of the gateway.
        secure: whether the published port speaks TLS, with the certificate of the settings.
    """
    template = Template((files("cloister_gateway") / FILE).read_text())
    answers = problems(settings.body_bytes)
    json_lines = settings.log_format == "json"
    values = settings.model_dump(exclude={"gateway_tls_pem", "log_format"}) | {
        "threads": min(worker_threads(), THREADS_LIMIT),
        "buffer_bytes": settings.retry_bytes + HEADER_BYTES,
        "connect_ms": CONNECT_MS,
        "patience": settings.queue_seconds * 1000 // CONNECT_MS,
        "own_connections": OWN_CONNECTIONS,
        "all_connections": settings.max_connections + OWN_CONNECTIONS,
        "log_target": "raw" if json_lines else "iso",
        "log_line": JSON_LINE if json_lines else TEXT_LINE,
        # Its own form is text.
        "error_line": f"error-log-format '{json_error_line('gateway')}'" if json_lines else "",
        "tls": f"ssl crt {shlex.quote(str(settings.gateway_tls_pem))} alpn http/1.1"
        if secure
        else "",
        "own_errors": "\n    ".join(answers.own_errors()),
        "length_required": answers.answer(HTTPStatus.LENGTH_REQUIRED),
    }
    return template.substitute(values)
