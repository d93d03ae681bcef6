"""Becomes the gateway, or with the argument ``check`` only sees whether it could."""

import sys
import tempfile
from pathlib import Path

from cloister_gateway import haproxy
from cloister_gateway.configuration import TEMPLATE, has_certificate, render
from cloister_gateway.settings import Settings
from cloister_shared.service import run_service


def write(settings: Settings, folder: Path) -> Path:
    """Write the configuration, have it checked, and return where it is.

    Raises:
        CloisterError: HAProxy does not take it.
        OSError: the certificate cannot be read.
    """
    path = folder / TEMPLATE
    path.write_text(render(settings, secure=has_certificate(settings.gateway_tls_pem)))
    haproxy.check(path)
    return path


def check(settings: Settings) -> None:
    """See whether the gateway could start with these settings."""
    with tempfile.TemporaryDirectory() as folder:
        write(settings, Path(folder))


def serve(settings: Settings) -> None:
    """Be the gateway until told to stop."""
    # HAProxy reads it once, at its start, so nobody has to remove it later than the container.
    haproxy.become(write(settings, Path(tempfile.mkdtemp(prefix="cloister-gateway-"))))


def main() -> None:
    """Entry point of ``python -m cloister_gateway [check]``."""
    run_service("gateway", Settings, check if sys.argv[1:] == ["check"] else serve)


if __name__ == "__main__":
    main()
