"""Becomes the gateway, or with the argument ``check`` only sees whether it could."""

import sys

from cloister_gateway.configuration import has_certificate, render
from cloister_gateway.settings import Settings
from cloister_shared import haproxy
from cloister_shared.service import run_service


def configuration(settings: Settings) -> str:
    """Return HAProxy's configuration, with TLS where there is a certificate.

    Raises:
        CloisterError: the certificate's file is missing.
        OSError: it cannot be read.
    """
    return render(settings, secure=has_certificate(settings.gateway_tls_pem))


def check(settings: Settings) -> None:
    """See whether the gateway could start with these settings."""
    haproxy.check(configuration(settings))


def serve(settings: Settings) -> None:
    """Be the gateway until told to stop."""
    haproxy.become(configuration(settings))


def main() -> None:
    """Entry point of ``python -m cloister_gateway [check]``."""
    run_service("gateway", Settings, check if sys.argv[1:] == ["check"] else serve)


if __name__ == "__main__":
    main()
