"""HAProxy as the program that a service becomes: checked first, with answers of our own."""

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, NoReturn

from pydantic import StringConstraints

from cloister_shared.errors import CloisterError

PROGRAM = "haproxy"
FILE = "haproxy.cfg"
THREADS_LIMIT = 4
"""Bytes are moved by few threads, and each keeps memory of its own."""
OWN_CONNECTIONS = 64
"""Connections to the port of metrics and health at most, beside those of clients."""

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 1
"""When a client may try again after 502, 503 and 504."""

_TEMPORARY = {
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
_NOT_ITS_OWN = {HTTPStatus.LENGTH_REQUIRED}
"""HAProxy makes none by itself and refuses to be told what it would look like."""

Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:*_-]+$")]
"""An address to listen on."""
HostAndPort = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*:[0-9]{1,5}$")]


TIME = "%[date,utime(%Y-%m-%dT%H:%M:%SZ)]"
"""Of a log line, in HAProxy's words."""


def json_error_line(service: str) -> str:
    """Return the form of the JSON line on a connection that never came to a request.

    Args:
        service: stated in every line.
    """
    return (
        f'{{"time":"{TIME}","level":"INFO","service":"{service}","logger":"haproxy",'
        '"message":"%[fc_err_str,json(utf8s)]","client":"%ci"}'
    )


@dataclass(frozen=True)
class Problems:
    """What HAProxy answers by itself, as problem details (RFC 9457).

    Args:
        details: what is wrong and what to do, by status; without an apostrophe.
    """

    details: Mapping[HTTPStatus, str]

    def answer(self, status: HTTPStatus) -> str:
        """Return a problem in HAProxy's words: status, type, body and headers."""
        words = f"status {status.value} content-type {MEDIA_TYPE}"
        # Strong quotes: nothing in them is expanded, and no detail has one.
        words += f" string '{self._problem(status)}'"
        return f"{words} hdr Retry-After {RETRY_SECONDS}" if status in _TEMPORARY else words

    def own_errors(self) -> list[str]:
        """Return a line of configuration for every error that HAProxy makes by itself."""
        return [
            f"http-error {self.answer(status)}"
            for status in sorted(self.details.keys() - _NOT_ITS_OWN)
        ]

    def _problem(self, status: HTTPStatus) -> str:
        detail = self.details[status]
        return json.dumps(
            {
                "type": "about:blank",
                "title": status.phrase,
                "status": status.value,
                "detail": detail,
                # The member in which the Open Inference Protocol has it.
                "error": detail,
            }
        )


def check(configuration: str) -> None:
    """Let HAProxy say whether it could run with this configuration.

    Raises:
        CloisterError: it could not, and why; or HAProxy is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / FILE
        path.write_text(configuration)
        _check(path)


def become(configuration: str) -> NoReturn:
    """Replace this process by HAProxy, in the foreground, until it is told to stop.

    SIGUSR1 lets what is running end; SIGTERM does not.

    Raises:
        CloisterError: as ``check``.
    """
    # HAProxy reads it once, at its start, so nobody has to remove it later than the container.
    path = Path(tempfile.mkdtemp(prefix="cloister-")) / FILE
    path.write_text(configuration)
    _check(path)
    os.execvp(PROGRAM, [PROGRAM, "-db", "-f", str(path)])  # noqa: S606 - a fixed command


def _check(path: Path) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command and our own file
            [PROGRAM, "-c", "-f", path],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise CloisterError(
            f"{PROGRAM} is not on the PATH: install Debian's package {PROGRAM}"
        ) from None
    if done.returncode != 0:
        raise CloisterError(f"{PROGRAM} does not take the settings:\n{done.stderr.strip()}")
