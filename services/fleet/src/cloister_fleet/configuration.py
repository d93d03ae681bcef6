"""HAProxy's configuration, made of the settings."""

import shlex
from http import HTTPStatus
from importlib.resources import files
from string import Template

from cloister_fleet.paths import (
    ENROLMENT_HEALTH_PATH,
    ENROLMENT_PATH,
    FLEET_PATHS,
    OBJECTS_PATH,
)
from cloister_fleet.problems import PROBLEMS
from cloister_fleet.settings import Settings
from cloister_shared.haproxy import (
    FILE,
    OWN_CONNECTIONS,
    THREADS_LIMIT,
    TIME,
    json_error_line,
)
from cloister_shared.service import worker_threads

HELD_BYTES = 80 << 10
"""Bodies of up to so many bytes are read before the SuperLink hears of them, so that a slow peer
keeps none of its connections. All calls but that of objects are smaller."""
HEADER_BYTES = 16 << 10
"""Room for a request's headers beside a body that is held; larger ones are refused."""
ENROLMENT_BODY_BYTES = 8 << 10
"""A public key and a name."""
SUPERLINK_REQUESTS = 64
"""Requests that the SuperLink is given at a time; it answers with 40 threads."""
SUPERLINK_OBJECTS = 16
"""Large bodies among them at a time, which it holds in memory before it knows who sends them."""
ENROLMENT_REQUESTS = 16
CONNECT_SECONDS = 2
"""For a connection, with its handshake, for which a busy SuperLink takes its time."""

TEXT_LINE = (
    "INFO fleet: %HM %HPO %ST in %Ta ms by %b, %rc retries, %U bytes up, %B down, %ts, from %ci, "
    "request %[var(txn.request_id)]"
)
JSON_LINE = (
    '{"time":"' + TIME + '","level":"INFO","service":"fleet","logger":"haproxy",'
    '"message":"%[var(txn.method),json(utf8s)] %[var(txn.path),json(utf8s)] %ST in %Ta ms",'
    '"request_id":"%[var(txn.request_id)]","client":"%ci",'
    '"method":"%[var(txn.method),json(utf8s)]","path":"%[var(txn.path),json(utf8s)]",'
    '"status":%ST,"by":"%b","retries":"%rc","bytes_up":%U,"bytes_down":%B,"total_ms":%Ta,'
    '"end":"%ts"}'
)


def render(settings: Settings) -> str:
    """Return the configuration."""
    template = Template((files("cloister_fleet") / FILE).read_text())
    json_lines = settings.log_format == "json"
    values = settings.model_dump() | {
        "certificates": _certificates(settings),
        "threads": min(worker_threads(), THREADS_LIMIT),
        "buffer_bytes": HELD_BYTES + HEADER_BYTES,
        "header_bytes": HEADER_BYTES,
        "held_bytes": HELD_BYTES,
        "enrolment_body_bytes": ENROLMENT_BODY_BYTES,
        "connect_seconds": CONNECT_SECONDS,
        "own_connections": OWN_CONNECTIONS,
        "all_connections": settings.fleet_max_connections + OWN_CONNECTIONS,
        "log_target": "raw" if json_lines else "iso",
        "log_line": JSON_LINE if json_lines else TEXT_LINE,
        # Its own form is text.
        "error_line": f"error-log-format '{json_error_line('fleet')}'" if json_lines else "",
        "own_errors": "\n    ".join(PROBLEMS.own_errors()),
        "length_required": PROBLEMS.answer(HTTPStatus.LENGTH_REQUIRED),
        "fleet_paths": " ".join(FLEET_PATHS),
        "objects_path": OBJECTS_PATH,
        "enrolment_path": ENROLMENT_PATH,
        "enrolment_health_path": ENROLMENT_HEALTH_PATH,
        "superlink": _server(settings.superlink, settings),
        "enrolment": _server(settings.enrolment, settings),
        "superlink_requests": SUPERLINK_REQUESTS,
        "superlink_objects": SUPERLINK_OBJECTS,
        "enrolment_requests": ENROLMENT_REQUESTS,
    }
    return template.substitute(values)


def _certificates(settings: Settings) -> str:
    """Return the files to choose from by the name that is called; the first where none fits."""
    pems = filter(None, (settings.fleet_tls_pem, settings.fleet_inside_pem))
    return " ".join(f"crt {shlex.quote(str(pem))}" for pem in pems)


def _server(address: str, settings: Settings) -> str:
    """Return where a server is and what its certificate has to show."""
    name, _, _ = address.partition(":")
    return (
        f"{address} ssl verify required ca-file {shlex.quote(str(settings.ca_path))} "
        f"verifyhost {name} sni str({name}) check-sni {name} alpn http/1.1"
    )
